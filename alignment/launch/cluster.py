"""Launch files for clusters: a Slurm script or Kubernetes manifests for a recipe, with the Accelerate file they use.

    align launch recipes/qwen2.5-coder/32b.yaml --slurm --nodes 2 --out launch/
    align launch recipes/qwen2.5-coder/32b.yaml --kubernetes --nodes 2 --image REGISTRY/IMAGE --claim SHARED

Every node runs one `accelerate launch`. The launchers meet through PyTorch's c10d rendezvous on the first node. After a crash
they start all processes again (`--max_restarts`) and the chain resumes from its last checkpoint; so does a job that is queued
again because its time was up or a node was lost. Artifacts and checkpoints must lie on a file system that all nodes share.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignment.recipe import Recipe, launch_file

ClusterKind = Literal["slurm", "kubernetes"]
PORT = 29_500
"""Port of the rendezvous between pods; Slurm jobs derive theirs from the job's number."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["shell_quote"] = shlex.quote
_TEMPLATES.filters["yaml_string"] = lambda text: json.dumps(text, ensure_ascii=False)  # JSON strings are YAML strings


@dataclass(frozen=True)
class Cluster:
    """The machines to run on, and how to start on them; a recipe does not say this."""

    nodes: int = 1
    gpus_per_node: int | None = None
    """Processes on each node; by default the recipe's launch file's `num_processes`, divided by the nodes."""
    max_restarts: int = 3
    """Times that the launchers start all processes again before the job fails."""
    python: str = "python"
    """The interpreter on the nodes."""
    overrides: tuple[str, ...] = ()
    """Values of `--set`, passed on to the recipe."""
    # Slurm
    partition: str | None = None
    account: str | None = None
    time: str = "24:00:00"
    cpus_per_gpu: int = 8
    # Kubernetes
    image: str | None = None
    """Container image with the toolkit's packages."""
    claim: str | None = None
    """Claim of a volume that all nodes can mount."""
    namespace: str | None = None
    mount: str = "/workspace"
    """Where the shared volume is mounted; the checkout is its root."""


def processes_per_node(recipe: Recipe, cluster: Cluster) -> int:
    """Processes on each node.

    Raises:
        ValueError: a number is below 1, or the recipe's processes can't be divided by the nodes.
    """
    if cluster.nodes < 1:
        raise ValueError("--nodes must be at least 1")
    if cluster.gpus_per_node is not None:
        if cluster.gpus_per_node < 1:
            raise ValueError("--gpus-per-node must be at least 1")
        return cluster.gpus_per_node
    total = int(_launch_settings(recipe).get("num_processes", 1))
    if total % cluster.nodes:
        raise ValueError(
            f"{recipe.launch} starts {total} processes, which {cluster.nodes} nodes can't share evenly: give --gpus-per-node"
        )
    return total // cluster.nodes


def _launch_settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.launch is None:
        raise ValueError("the recipe names no `launch:` file: add one of accelerate_configs/")
    return launch_file.read(recipe.launch.path())


def accelerate_config(recipe: Recipe, cluster: Cluster) -> str:
    """Return the recipe's Accelerate file as YAML, changed to the number of nodes.

    Raises:
        ValueError: the recipe names no file, or one for a single process, or its processes can't be divided.
    """
    value = _launch_settings(recipe)
    value |= {"num_machines": cluster.nodes, "num_processes": processes_per_node(recipe, cluster) * cluster.nodes}
    if cluster.nodes > 1:
        if value.get("distributed_type") == "NO":
            raise ValueError(
                f"{recipe.launch} is for one process: name ddp.yaml, a zero*.yaml or fsdp2.yaml in `launch:` for "
                f"{cluster.nodes} nodes"
            )
        # accelerate 1.15 passes c10d its endpoint only if same_network is false.
        value |= {"rdzv_backend": "c10d", "same_network": False}
        if "deepspeed_config" in value:
            # DeepSpeed's other launchers need ssh between the nodes; here every node runs its own launcher.
            value["deepspeed_config"] |= {"deepspeed_multinode_launcher": "standard"}
    value.pop("machine_rank", None)
    value.pop("main_process_port", None)
    return (
        "# Written by `align launch`; the node's rank and the first node's address come from the command line.\n"
        + yaml.safe_dump(value, sort_keys=False)
    )


def launch_command(recipe_file: str, accelerate: str, cluster: Cluster, *, rank: str, head: str, port: str) -> str:
    """Return the `accelerate launch` command of one node, as a line of shell.

    Args:
        recipe_file: the recipe, relative to the checkout or absolute.
        accelerate: path of the Accelerate file.
        cluster: the nodes.
        rank: the node's number; may be a shell variable, as may `head` and `port`.
        head: host name of the first node.
        port: port of the rendezvous.
    """
    options = [item for override in cluster.overrides for item in ("--set", override)]
    words = [cluster.python, "-m", "accelerate.commands.launch", "--config_file", accelerate]
    line = " ".join(shlex.quote(word) for word in words)
    if cluster.nodes > 1:
        line += f' --machine_rank "{rank}" --main_process_ip "{head}" --main_process_port "{port}"'
        # A node may not recognise itself by `head`, so it is told whether it hosts the rendezvous.
        line += f' --rdzv_conf "is_host=$([ "{rank}" = 0 ] && echo true || echo false)"'
    line += f" --max_restarts {cluster.max_restarts}"
    return line + " " + " ".join(shlex.quote(word) for word in ("recipes/run.py", recipe_file, *options))


def slurm_script(recipe: Recipe, recipe_file: str, accelerate: str, cluster: Cluster, root: str) -> str:
    """Return a script for sbatch.

    Args:
        recipe: the recipe.
        recipe_file: its path, relative to `root` or absolute.
        accelerate: path of the Accelerate file.
        cluster: the nodes.
        root: the checkout, on a file system that all nodes share.
    """
    return _TEMPLATES.get_template("slurm.sh.jinja").render(
        name=_label(recipe.name),
        cluster=cluster,
        processes=processes_per_node(recipe, cluster),
        gpu=not _launch_settings(recipe).get("use_cpu"),
        recipe_file=recipe_file,
        root=root,
        command=launch_command(recipe_file, accelerate, cluster, rank="$SLURM_NODEID", head="$HEAD", port="$PORT"),
    )


def kubernetes_manifests(recipe: Recipe, recipe_file: str, cluster: Cluster) -> str:
    """A ConfigMap with the Accelerate file, a headless Service, and an Indexed Job with one pod per node.

    Args:
        recipe: the recipe.
        recipe_file: its path, relative to the checkout on the shared volume or absolute.
        cluster: the nodes; needs `image` and `claim`.

    Raises:
        ValueError: `image` or `claim` is missing, or the recipe can't be launched on these nodes.
    """
    if not cluster.image or not cluster.claim:
        raise ValueError("--kubernetes needs --image (with the toolkit's packages) and --claim (a shared volume)")
    name = _label(recipe.name)
    command = launch_command(
        recipe_file, "/etc/align/accelerate.yaml", cluster,
        rank="$JOB_COMPLETION_INDEX", head=f"{name}-0.{name}", port=str(PORT),
    )  # fmt: skip
    return _TEMPLATES.get_template("kubernetes.yaml.jinja").render(
        name=name,
        cluster=cluster,
        processes=processes_per_node(recipe, cluster),
        gpu=not _launch_settings(recipe).get("use_cpu"),
        recipe_file=recipe_file,
        accelerate=accelerate_config(recipe, cluster),
        command=command,
        port=PORT,
    )


def write_launch_files(
    recipe: Recipe, recipe_file: Path, cluster: Cluster, kind: ClusterKind, out: Path, root: Path
) -> list[Path]:
    """Write the launch files.

    Args:
        recipe: the recipe.
        recipe_file: its file.
        cluster: the nodes.
        kind: which files to write.
        out: folder of the files; made if it is missing.
        root: the checkout.

    Returns:
        The files, the one to submit first.
    """
    relative = path_in_checkout(recipe_file, root)
    name = _label(recipe.name)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "kubernetes":
        path = out / f"{name}.yaml"
        path.write_text(kubernetes_manifests(recipe, relative, cluster))
        return [path]
    path, accelerate = out / f"{name}.sbatch", out / f"{name}-accelerate.yaml"
    accelerate.write_text(accelerate_config(recipe, cluster))
    path.write_text(slurm_script(recipe, relative, str(accelerate.resolve()), cluster, str(root)))
    return [path, accelerate]


def path_in_checkout(file: Path, root: Path) -> str:
    """Return a path relative to the checkout, where jobs run; absolute for a file outside of it."""
    resolved = file.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)


def _label(name: str) -> str:
    """Return a name that Kubernetes accepts: lower-case letters, digits and dashes, at most 50 characters."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:50].strip("-") or "align"

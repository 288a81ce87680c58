"""Writes launch files for clusters: a Slurm script or Kubernetes manifests, with the Accelerate file that they use.

    align launch recipes/qwen2.5-coder/32b.yaml --slurm --nodes 2 --out launch/
    align launch recipes/qwen2.5-coder/32b.yaml --kubernetes --nodes 2 --image REGISTRY/IMAGE --claim SHARED

Every node runs one `accelerate launch`. The launchers meet through PyTorch's c10d rendezvous on the first node. After a
crash they start all processes again (`--max_restarts`), and the chain resumes from its last checkpoint. On SIGTERM or
SIGUSR1 training saves a checkpoint at the end of its step, and the job ends with exit code 75. Jobs of both kinds start
again after this exit code. If a job is queued again because its time was up or a node was lost, the chain resumes in
the same way. Artifacts and checkpoints must be on a file system that all nodes share.
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

from alignment.installation import is_checkout, shipped
from alignment.processes import REQUEUE_CODE
from alignment.recipe import Recipe, launch_file
from data_builders.cleaning.secrets import find_secrets

ClusterKind = Literal["slurm", "kubernetes"]
PORT = 29_500
"""TCP port of the rendezvous between Kubernetes pods. A Slurm job computes its port from the job's id."""
GRACE_SECONDS = 180
"""Seconds between the stop signal and the end of a job. In this time training ends its step and saves a checkpoint."""

IMAGE_USER = 10001
"""User and group of the image that `deploy/Dockerfile` builds."""
SECRET_VARIABLES = ("ALIGN_TOKEN", "WANDB_API_KEY", "HF_TOKEN")
"""Variables that a pod reads from a Secret: the token of a grading service, and the keys of W&B and the hub."""
_MEMORY_GIB, _CPU_MEMORY_GIB = 64, 16

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters["shell_quote"] = shlex.quote
TEMPLATES.filters["yaml_string"] = lambda text: json.dumps(text, ensure_ascii=False)  # JSON strings are YAML strings


@dataclass(frozen=True)
class Cluster:
    """The machines of a cluster and how to start processes on them. A recipe does not contain these settings."""

    nodes: int = 1
    gpus_per_node: int | None = None
    """Number of processes on each node. By default `num_processes` of the recipe's launch file, divided by `nodes`."""
    max_restarts: int = 3
    """How many times the launchers start all processes again before the job fails."""
    python: str = "python"
    """Command or path of the Python interpreter on the nodes."""
    overrides: tuple[str, ...] = ()
    """Values of the option `--set` (`key=value`), each of which changes a setting of the recipe."""
    # Slurm
    partition: str | None = None
    account: str | None = None
    time: str = "24:00:00"
    cpus_per_gpu: int = 8
    # Kubernetes
    image: str | None = None
    """Container image with the toolkit's packages."""
    claim: str | None = None
    """Name of the PersistentVolumeClaim of a volume that all nodes can mount."""
    namespace: str | None = None
    mount: str = "/workspace"
    """Path at which the shared volume is mounted. The root of the volume is the checkout."""
    cpus: int | None = None
    """CPU cores of a pod. By default `cpus_per_gpu` for each process."""
    memory: str | None = None
    """Memory of a pod, for example `512Gi`. By default 64 GiB for each process, and 16 GiB if it runs on CPUs."""
    run_as: int = IMAGE_USER
    """User and group of the processes in a pod. The shared volume must be writable for them."""
    secret: str | None = None
    """Name of a Secret whose keys are variables of `SECRET_VARIABLES`."""
    user_namespaces: bool = False
    """Whether the sandbox may create user namespaces in the pods of training, which the default profiles refuse."""


def processes_per_node(recipe: Recipe, cluster: Cluster) -> int:
    """Return the number of processes on each node.

    Raises:
        ValueError: a number is below 1, or the recipe's processes can't be divided evenly among the nodes.
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
            f"{recipe.launch} starts {total} processes, which can't be divided evenly among {cluster.nodes} nodes: "
            "give --gpus-per-node"
        )
    return total // cluster.nodes


def _launch_settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.launch is None:
        raise ValueError("the recipe names no `launch:` file: add one of accelerate_configs/")
    return launch_file.read(recipe.launch.path())


def accelerate_config(recipe: Recipe, cluster: Cluster) -> str:
    """Return the recipe's Accelerate file as YAML, changed to the number of nodes.

    Raises:
        ValueError: the recipe names no launch file, the launch file is for a single process but there are several
            nodes, or the processes can't be divided evenly among the nodes.
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
        rank: index of the node. `rank`, `head` and `port` may be shell variables.
        head: host name of the first node.
        port: port of the rendezvous.

    Raises:
        ValueError: an override contains a secret, which the command line would show.
    """
    for override in cluster.overrides:
        if find_secrets(override):
            raise ValueError(
                f"--set {override.partition('=')[0]} looks like a secret, and everybody who may see jobs can read their command "
                "lines: put it into the environment (Kubernetes: --secret), and leave it out here"
            )
    options = [item for override in cluster.overrides for item in ("--set", override)]
    words = [cluster.python, "-m", "alignment.launch.accelerate_launcher", "--config_file", accelerate]
    line = " ".join(shlex.quote(word) for word in words)
    if cluster.nodes > 1:
        line += f' --machine_rank "{rank}" --main_process_ip "{head}" --main_process_port "{port}"'
        # A node may not recognise itself by `head`, so it is told whether it hosts the rendezvous.
        line += f' --rdzv_conf "is_host=$([ "{rank}" = 0 ] && echo true || echo false)"'
    line += f" --max_restarts {cluster.max_restarts}"
    return line + " " + " ".join(shlex.quote(word) for word in (_run_target(), recipe_file, *options))


def slurm_script(recipe: Recipe, recipe_file: str, accelerate: str, cluster: Cluster, root: str) -> str:
    """Return a script for sbatch.

    Args:
        recipe: the recipe.
        recipe_file: path of the recipe, relative to `root` or absolute.
        accelerate: path of the Accelerate file.
        cluster: the nodes.
        root: the checkout, on a file system that all nodes share.
    """
    return TEMPLATES.get_template("slurm.sh.jinja").render(
        name=_label(recipe.name),
        cluster=cluster,
        processes=processes_per_node(recipe, cluster),
        gpu=not _launch_settings(recipe).get("use_cpu"),
        recipe_file=recipe_file,
        root=root,
        grace_seconds=GRACE_SECONDS,
        requeue_code=REQUEUE_CODE,
        command=launch_command(recipe_file, accelerate, cluster, rank="$SLURM_NODEID", head="$HEAD", port="$PORT"),
    )


def kubernetes_manifests(recipe: Recipe, recipe_file: str, cluster: Cluster) -> str:
    """Return YAML with a ConfigMap (the Accelerate file), a headless Service, and an Indexed Job with one pod per node.

    Args:
        recipe: the recipe.
        recipe_file: path of the recipe, relative to the checkout on the shared volume or absolute.
        cluster: the nodes. `image` and `claim` must be set.

    Raises:
        ValueError: `image` or `claim` is missing, or the recipe can't be launched on these nodes.
    """
    if not cluster.image or not cluster.claim:
        raise ValueError("--kubernetes needs --image (with the toolkit's packages) and --claim (a shared volume)")
    if cluster.cpus is not None and cluster.cpus < 1:
        raise ValueError("--cpus must be at least 1")
    check_pod(cluster.run_as, cluster.memory)
    name, gpu = _label(recipe.name), not _launch_settings(recipe).get("use_cpu")
    processes = processes_per_node(recipe, cluster)
    command = launch_command(
        recipe_file, "/etc/align/accelerate.yaml", cluster,
        rank="$JOB_COMPLETION_INDEX", head=f"{name}-0.{name}", port=str(PORT),
    )  # fmt: skip
    return TEMPLATES.get_template("kubernetes.yaml.jinja").render(
        name=name,
        cluster=cluster,
        processes=processes,
        cpus=str(cluster.cpus or cluster.cpus_per_gpu * processes),
        memory=cluster.memory or f"{(_MEMORY_GIB if gpu else _CPU_MEMORY_GIB) * processes}Gi",
        secrets=SECRET_VARIABLES,
        gpu=gpu,
        recipe_file=recipe_file,
        accelerate=accelerate_config(recipe, cluster),
        command=command,
        port=PORT,
        grace_seconds=GRACE_SECONDS,
        requeue_code=REQUEUE_CODE,
    )


def check_pod(run_as: int, memory: str | None) -> None:
    """Raise ValueError if a pod would run as root, or if its memory is no quantity of Kubernetes."""
    if not 1 <= run_as < 2**31:
        raise ValueError(f"--run-as is {run_as}: give a user other than root, such as {IMAGE_USER}")
    if memory is not None and not re.fullmatch(r"[1-9][0-9]*(Mi|Gi|Ti|M|G|T)", memory):
        raise ValueError(f"--memory is {memory!r}: give a number with a unit, such as 512Gi")


def write_launch_files(
    recipe: Recipe, recipe_file: Path, cluster: Cluster, kind: ClusterKind, out: Path, root: Path
) -> list[Path]:
    """Write the launch files of a recipe.

    Args:
        recipe: the recipe.
        recipe_file: path of the recipe.
        cluster: the nodes.
        kind: which files to write.
        out: folder for the files. It is created if it does not exist.
        root: the checkout.

    Returns:
        The paths of the files. The user submits the first file to the cluster.
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


def _run_target() -> str:
    """Return the path of the script that `accelerate launch` starts: relative in a checkout, absolute if installed."""
    return "recipes/run.py" if is_checkout() else str(shipped() / "recipes" / "run.py")


def path_in_checkout(file: Path, root: Path) -> str:
    """Return the path of a file relative to the checkout, in which jobs run, or absolute if the file is outside."""
    resolved = file.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)


def _label(name: str) -> str:
    """Return a name that Kubernetes accepts: lower-case letters, digits and dashes, at most 50 characters."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:50].strip("-") or "align"

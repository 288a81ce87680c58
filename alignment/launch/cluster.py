"""Launch files for clusters, from a recipe: a Slurm script or Kubernetes manifests, with the Accelerate file they use.

    align launch recipes/qwen2.5-coder/32b.yaml --slurm --nodes 2 --out launch/
    align launch recipes/qwen2.5-coder/32b.yaml --kubernetes --nodes 2 --image REGISTRY/IMAGE --claim SHARED

Every machine runs one `accelerate launch`. They meet through PyTorch's c10d rendezvous on the first machine, so that after a
crash the launchers start all processes anew (`--max_restarts`), and the chain goes on from its last checkpoint. A job that
runs out of time, or loses a machine, is queued again and does the same. Artifacts and checkpoints must lie on a file
system that all machines see.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignment.recipe import Recipe, launch_file

PORT = 29_500


@dataclass(frozen=True)
class Cluster:
    """What the recipe doesn't know: the machines."""

    nodes: int = 1
    gpus_per_node: int | None = None
    """By default what the recipe's launch file starts, divided by the nodes."""
    max_restarts: int = 3
    """How often the launchers start all processes anew before the job fails."""
    python: str = "python"
    overrides: tuple[str, ...] = ()
    """`--set` of the command line, handed on."""
    # Slurm
    partition: str | None = None
    account: str | None = None
    time: str = "24:00:00"
    cpus_per_gpu: int = 8
    # Kubernetes
    image: str | None = None
    claim: str | None = None
    namespace: str | None = None
    mount: str = "/workspace"
    """Where the shared volume is mounted; the checkout lies there too."""


def processes(recipe: Recipe, cluster: Cluster) -> int:
    """Processes on each machine. Raises ValueError where they do not come out even."""
    if cluster.nodes < 1:
        raise ValueError("--nodes is at least 1")
    if cluster.gpus_per_node is not None:
        if cluster.gpus_per_node < 1:
            raise ValueError("--gpus-per-node is at least 1")
        return cluster.gpus_per_node
    total = int(_accelerate(recipe).get("num_processes", 1))
    if total % cluster.nodes:
        raise ValueError(
            f"{recipe.launch} starts {total} processes, which {cluster.nodes} machines can't share evenly: give --gpus-per-node"
        )
    return total // cluster.nodes


def _accelerate(recipe: Recipe) -> dict[str, Any]:
    if recipe.launch is None:
        raise ValueError("the recipe names no `launch:` file: add one of accelerate_configs/")
    return launch_file.read(recipe.launch.path())


def accelerate_file(recipe: Recipe, cluster: Cluster) -> str:
    """The recipe's Accelerate file, for that many machines."""
    value = _accelerate(recipe)
    each = processes(recipe, cluster)
    value |= {"num_machines": cluster.nodes, "num_processes": each * cluster.nodes}
    if cluster.nodes > 1:
        if value.get("distributed_type") == "NO":
            raise ValueError(
                f"{recipe.launch} is for one process: name ddp.yaml, a zero*.yaml or fsdp2.yaml in `launch:` for "
                f"{cluster.nodes} machines"
            )
        # accelerate 1.15 hands c10d its endpoint only where the machines are said not to share a network.
        value |= {"rdzv_backend": "c10d", "same_network": False}
        if "deepspeed_config" in value:
            # DeepSpeed's own launchers need ssh between the machines; here every machine runs its own launcher.
            value["deepspeed_config"] |= {"deepspeed_multinode_launcher": "standard"}
    value.pop("machine_rank", None)
    value.pop("main_process_port", None)
    return (
        "# Made by `align launch`; the machine's rank and the first machine's address come from the command line.\n"
        + (yaml.safe_dump(value, sort_keys=False))
    )


def command(recipe_file: str, accelerate: str, cluster: Cluster, *, rank: str, head: str, port: str) -> str:
    """`accelerate launch` of one machine, as a line of shell; `rank`, `head` and `port` may be shell variables."""
    options = [item for override in cluster.overrides for item in ("--set", override)]
    words = [cluster.python, "-m", "accelerate.commands.launch", "--config_file", accelerate]
    line = " ".join(shlex.quote(word) for word in words)
    if cluster.nodes > 1:
        line += f' --machine_rank "{rank}" --main_process_ip "{head}" --main_process_port "{port}"'
        # Said outright, since a machine may not know itself by the name it is reached by.
        line += f' --rdzv_conf "is_host=$([ "{rank}" = 0 ] && echo true || echo false)"'
    line += f" --max_restarts {cluster.max_restarts}"
    return line + " " + " ".join(shlex.quote(word) for word in ("recipes/run.py", recipe_file, *options))


def slurm(recipe: Recipe, recipe_file: str, accelerate: str, cluster: Cluster, root: str) -> str:
    """An sbatch script. `root` is the checkout, on a file system that all machines share."""
    each = processes(recipe, cluster)
    gpu = not _accelerate(recipe).get("use_cpu")
    settings = [
        f"--job-name={_label(recipe.name)}",
        f"--nodes={cluster.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={each * cluster.cpus_per_gpu}",
        *([f"--gpus-per-node={each}"] if gpu else []),
        "--mem=0",
        f"--time={cluster.time}",
        *([f"--partition={cluster.partition}"] if cluster.partition else []),
        *([f"--account={cluster.account}"] if cluster.account else []),
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@180",
        f"--output={_label(recipe.name)}-%j.log",
    ]
    launch = command(recipe_file, accelerate, cluster, rank="$SLURM_NODEID", head="$HEAD", port="$PORT")
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {setting}" for setting in settings),
        f"# Made by `align launch --slurm` from {recipe_file}.",
        "# Submit it with sbatch. Out of time, or after a machine is lost, it is queued again and goes on from the last",
        "# checkpoint.",
        "set -euo pipefail",
        f"cd {shlex.quote(root)}",
        'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "PORT=$((20000 + SLURM_JOB_ID % 20000))",
        "export HEAD PORT",
        "export HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false",
        "# Slurm sends USR1 three minutes before the time is up.",
        "again() {",
        '    echo "out of time: queued again"',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "}",
        "trap again USR1",
        f"srun --kill-on-bad-exit=1 --export=ALL bash -c {shlex.quote(launch)} &",
        "# A signal ends `wait` early: wait until srun is really gone.",
        "STATUS=0",
        'wait "$!" || STATUS=$?',
        'while [ "$STATUS" -gt 128 ] && kill -0 "$!" 2>/dev/null; do',
        "    STATUS=0",
        '    wait "$!" || STATUS=$?',
        "done",
        'exit "$STATUS"',
    ]
    return "\n".join(lines) + "\n"


def kubernetes(recipe: Recipe, recipe_file: str, cluster: Cluster) -> str:
    """A ConfigMap with the Accelerate file, a headless Service, and an Indexed Job with one pod a machine."""
    if not cluster.image or not cluster.claim:
        raise ValueError("--kubernetes needs --image (with this toolkit's packages) and --claim (a shared volume)")
    name = _label(recipe.name)
    each = processes(recipe, cluster)
    gpu = not _accelerate(recipe).get("use_cpu")
    launch = command(
        recipe_file, "/etc/align/accelerate.yaml", cluster,
        rank="$JOB_COMPLETION_INDEX", head=f"{name}-0.{name}", port=str(PORT),
    )  # fmt: skip
    meta: dict[str, Any] = {"name": name, "labels": {"app": name}}
    if cluster.namespace:
        meta["namespace"] = cluster.namespace
    container: dict[str, Any] = {
        "name": "align",
        "image": cluster.image,
        "workingDir": cluster.mount,
        "command": ["bash", "-c", f"exec {launch}"],
        "env": [
            {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
            {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
        ],
        "volumeMounts": [
            {"name": "shared", "mountPath": cluster.mount},
            {"name": "accelerate", "mountPath": "/etc/align"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if gpu:
        container["resources"] = {"limits": {"nvidia.com/gpu": each}}
    if cluster.nodes > 1:
        container["ports"] = [{"name": "rendezvous", "containerPort": PORT}]
    pod = {
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": cluster.claim}},
            {"name": "accelerate", "configMap": {"name": name}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL and data loaders
        ],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "completionMode": "Indexed",
            "completions": cluster.nodes,
            "parallelism": cluster.nodes,
            # A lost pod comes back under its own index, and the launchers meet again.
            "backoffLimit": cluster.max_restarts * cluster.nodes,
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "clusterIP": "None",
            "selector": {"app": name},
            # Pods find the first one before it is ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {"accelerate.yaml": accelerate_file(recipe, cluster)},
    }
    documents = [yaml.safe_dump(value, sort_keys=False) for value in (config, service, job)]
    return f"# Made by `align launch --kubernetes` from {recipe_file}.\n" + "---\n".join(documents)


def write(recipe: Recipe, recipe_file: Path, cluster: Cluster, kind: str, out: Path, root: Path) -> list[Path]:
    """Write the launch files below `out`; returns them, the one to submit first."""
    shown = _inside(recipe_file, root)
    name = _label(recipe.name)
    out.mkdir(parents=True, exist_ok=True)
    if kind == "kubernetes":
        path = out / f"{name}.yaml"
        path.write_text(kubernetes(recipe, shown, cluster))
        return [path]
    path, accelerate = out / f"{name}.sbatch", out / f"{name}-accelerate.yaml"
    accelerate.write_text(accelerate_file(recipe, cluster))
    path.write_text(slurm(recipe, shown, str(accelerate.resolve()), cluster, str(root)))
    return [path, accelerate]


def _inside(file: Path, root: Path) -> str:
    """A path relative to the checkout where it lies in it, since that is where jobs run; else absolute."""
    resolved = file.resolve()
    return str(resolved.relative_to(root)) if resolved.is_relative_to(root) else str(resolved)


def _label(name: str) -> str:
    """A name as Kubernetes takes it: lower case letters, digits and dashes, at most 50 characters."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:50].strip("-") or "align"

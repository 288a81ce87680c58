"""`align plan` and `align launch` for a person and for a machine: what each stage needs, whether it fits, how to start it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alignment.launch.cluster import Cluster, accelerate_file, kubernetes, slurm, write
from alignment.planning import disk, resources
from alignment.planning.memory import GIB
from alignment.recipe import Recipe, launch_file

ROOT = Path(__file__).resolve().parents[2]


def needs(recipe: Recipe, device_gib: float | None = None) -> dict[str, Any]:
    """`needs` (one entry a training stage), `disk` and `warnings`, as plain values; bytes throughout."""
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    available = device_gib * GIB if device_gib is not None else resources.device_bytes(layout)
    shape = resources.shape_of(recipe.model)
    if shape is None:
        return {
            "needs": [],
            "warnings": [f"{recipe.model.path}: its shape is not known here, so nothing is predicted"],
        }
    stages = [resources.needs(recipe, index, shape, layout, available) for index in resources.training(recipe)]
    space = disk.forecast(recipe, shape, layout)
    warnings = [warning for stage in stages for warning in stage.pop("warnings")]
    if space["total"] > space["free"]:
        warnings.append(disk.too_little(space))
    return {"device_bytes": available, "devices": layout.devices, "needs": stages, "disk": space, "warnings": warnings}


def describe(found: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines: list[str] = []
    if found["needs"]:
        size = f" of {found['device_bytes'] / GIB:.0f} GiB" if found.get("device_bytes") else ""
        lines.append(f"Predicted peak on each of {found['devices']} devices{size}:")
    for stage in found["needs"]:
        verdict = {True: "", False: "  does NOT fit", None: ""}[stage["fits"]]
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in stage["parts"].items())
        steps = f", {stage['steps']} steps" if stage["steps"] else ""
        lines.append(f"  {stage['stage']:12} {stage['peak'] / GIB:6.1f} GiB{verdict}  ({parts})")
        lines.append(f"  {'':12} {stage['tokens_per_step']:,} tokens a step at most{steps}")
        if stage["host"] > GIB:
            lines.append(f"  {'':12} {stage['host'] / GIB:.1f} GiB of the host's memory")
    if "disk" in found:
        space = found["disk"]
        lines.append(f"Disk: {space['total'] / GIB:.1f} GiB at most, {space['free'] / GIB:.1f} GiB free")
    return lines + [f"warning: {warning}" for warning in found["warnings"]]


def add_launch(parser: argparse.ArgumentParser) -> None:
    """The arguments of `align launch`."""
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--slurm", action="store_const", const="slurm", dest="cluster", help="a script for sbatch")
    kind.add_argument(
        "--kubernetes", action="store_const", const="kubernetes", dest="cluster", help="manifests for kubectl apply"
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    parser.add_argument("--gpus-per-node", type=int, help="by default what the recipe's launch file starts")
    parser.add_argument("--max-restarts", type=int, default=3, help="restarts of all processes after a crash")
    parser.add_argument("--python", default="python", help="the interpreter on the machines (default: python)")
    parser.add_argument("--out", type=Path, help="write files into this folder; without it they are printed")
    parser.add_argument("--partition", help="Slurm's partition")
    parser.add_argument("--account", help="Slurm's account")
    parser.add_argument("--time", default="24:00:00", help="Slurm's time limit; a job out of time is queued again")
    parser.add_argument("--image", help="Kubernetes: the container image, with this toolkit's packages")
    parser.add_argument(
        "--claim", help="Kubernetes: a volume claim that all machines can mount, with the checkout on it"
    )
    parser.add_argument("--namespace", help="Kubernetes: the namespace")
    parser.add_argument("--mount", default="/workspace", help="Kubernetes: where the volume is mounted")


def launch(recipe: Recipe, arguments: argparse.Namespace) -> list[str]:
    """Write or print the files; returns the lines to print."""
    cluster = Cluster(
        nodes=arguments.nodes,
        gpus_per_node=arguments.gpus_per_node,
        max_restarts=arguments.max_restarts,
        python=arguments.python,
        overrides=tuple(arguments.overrides),
        partition=arguments.partition,
        account=arguments.account,
        time=arguments.time,
        image=arguments.image,
        claim=arguments.claim,
        namespace=arguments.namespace,
        mount=arguments.mount,
    )
    unused = {"slurm": ("image", "claim", "namespace"), "kubernetes": ("partition", "account")}[arguments.cluster]
    if given := [f"--{name}" for name in unused if getattr(arguments, name)]:
        raise ValueError(f"{', '.join(given)}: not used with --{arguments.cluster}")
    if arguments.out is not None:
        files = write(recipe, arguments.recipe, cluster, arguments.cluster, arguments.out, ROOT)
        submit = "kubectl apply -f" if arguments.cluster == "kubernetes" else "sbatch"
        return [*(f"wrote {file}" for file in files), f"start it with: {submit} {files[0]}"]
    name = str(arguments.recipe.resolve())
    shown = str(Path(name).relative_to(ROOT)) if Path(name).is_relative_to(ROOT) else name
    if arguments.cluster == "kubernetes":
        return [kubernetes(recipe, shown, cluster)]
    accelerate_file(recipe, cluster)  # raises where the recipe names none, or one for other machines
    assert recipe.launch is not None
    if cluster.nodes > 1 or cluster.gpus_per_node is not None:
        raise ValueError("the script needs an Accelerate file of its own beside it: give --out FOLDER")
    return [slurm(recipe, shown, str(recipe.launch.path()), cluster, str(ROOT))]

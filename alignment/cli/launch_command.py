"""`align launch`: parse the options, and write or print files that start a recipe on a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command, add_recipe
from alignment.installation import PACKAGE, is_checkout

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.recipe import Recipe

ROOT = PACKAGE.parent if is_checkout() else Path.cwd()
"""Where jobs run: the checkout, or the current folder if the package is installed."""

KUBERNETES_OPTIONS = ("image", "claim", "namespace", "cpus", "memory", "run_as", "secret", "user_namespaces")
ONLY_FOR = {"slurm": ("partition", "account"), "kubernetes": KUBERNETES_OPTIONS}
"""Options that apply to only one kind of cluster."""


def add(commands: Commands) -> None:
    """Add the parser of `align launch`."""
    parser = add_command(commands, "launch", "Write files that start a recipe on a cluster: Slurm or Kubernetes.")
    add_recipe(parser)
    parser.set_defaults(handler=_launch)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--slurm", action="store_const", const="slurm", dest="cluster", help="write a script for sbatch")
    kind.add_argument(
        "--kubernetes",
        action="store_const",
        const="kubernetes",
        dest="cluster",
        help="write manifests for kubectl apply",
    )
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes (default: 1)")
    parser.add_argument(
        "--gpus-per-node", type=int, help="default: the processes of the recipe's launch file, divided by the nodes"
    )
    parser.add_argument(
        "--max-restarts", type=int, default=3, help="restarts of all processes after a crash (default: 3)"
    )
    parser.add_argument("--python", default="python", help="the interpreter on the nodes (default: python)")
    parser.add_argument("--out", type=Path, help="folder for the files (default: print them)")
    parser.add_argument("--partition", help="Slurm: the partition")
    parser.add_argument("--account", help="Slurm: the account")
    parser.add_argument(
        "--time",
        default="24:00:00",
        help="Slurm: the time limit, after which the job is queued again (default: 24:00:00)",
    )
    parser.add_argument("--image", help="Kubernetes: container image with the toolkit's packages")
    parser.add_argument("--claim", help="Kubernetes: claim of a volume with the checkout, which all nodes can mount")
    parser.add_argument("--namespace", help="Kubernetes: the namespace")
    parser.add_argument(
        "--mount", default="/workspace", help="Kubernetes: where the volume is mounted (default: /workspace)"
    )
    parser.add_argument("--cpus", type=int, help="Kubernetes: CPU cores of a pod (default: 8 for each process)")
    parser.add_argument(
        "--memory", help="Kubernetes: memory of a pod (default: 64Gi for each process on a GPU, 16Gi for each on CPUs)"
    )
    parser.add_argument(
        "--run-as",
        type=int,
        help="Kubernetes: user and group of the processes, for whom the volume must be writable (default: 10001)",
    )
    parser.add_argument(
        "--secret", help="Kubernetes: a Secret with the keys ALIGN_TOKEN, WANDB_API_KEY and HF_TOKEN, or some of them"
    )
    parser.add_argument(
        "--user-namespaces",
        action="store_true",
        help="Kubernetes: let the sandbox create user namespaces in the pods (no seccomp or AppArmor profile); without it use "
        "a grading service",
    )


def _launch(arguments: argparse.Namespace) -> int:
    from alignment.recipe import load

    for line in launch_lines(load(arguments.recipe, arguments.overrides), arguments):
        print(line)
    return 0


def launch_lines(recipe: Recipe, arguments: argparse.Namespace) -> list[str]:
    """Write the launch files if `--out` is given.

    Returns:
        The lines to print: the names of the written files and the command to start them, or without `--out` the content
        of the launch file.

    Raises:
        ValueError: an option does not belong to the kind of cluster, or the recipe can't be launched on these nodes.
    """
    from alignment.launch.cluster import (
        IMAGE_USER,
        Cluster,
        accelerate_config,
        kubernetes_manifests,
        path_in_checkout,
        slurm_script,
        write_launch_files,
    )

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
        cpus=arguments.cpus,
        memory=arguments.memory,
        run_as=IMAGE_USER if arguments.run_as is None else arguments.run_as,
        secret=arguments.secret,
        user_namespaces=arguments.user_namespaces,
    )
    foreign = [name for kind, names in ONLY_FOR.items() if kind != arguments.cluster for name in names]
    if given := [f"--{name.replace('_', '-')}" for name in foreign if getattr(arguments, name)]:
        raise ValueError(f"{', '.join(given)}: not used with --{arguments.cluster}; remove it")
    if arguments.out is not None:
        files = write_launch_files(recipe, arguments.recipe, cluster, arguments.cluster, arguments.out, ROOT)
        submit = "kubectl apply -f" if arguments.cluster == "kubernetes" else "sbatch"
        return [*(f"wrote {file}" for file in files), f"start it with: {submit} {files[0]}"]
    recipe_file = path_in_checkout(arguments.recipe, ROOT)
    if arguments.cluster == "kubernetes":
        return [kubernetes_manifests(recipe, recipe_file, cluster)]
    accelerate_config(recipe, cluster)  # raises if the recipe names no launch file, or a launch file for other machines
    assert recipe.launch is not None
    if cluster.nodes > 1 or cluster.gpus_per_node is not None:
        raise ValueError(
            "with --nodes or --gpus-per-node the script needs an Accelerate file in the same folder: give --out FOLDER"
        )
    return [slurm_script(recipe, recipe_file, str(recipe.launch.path()), cluster, str(ROOT))]

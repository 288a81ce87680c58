"""`align sandbox`: grade programs for other machines, over HTTP, or write Kubernetes manifests of such a service.

align sandbox serve                                  for this machine only
ALIGN_TOKEN=... align sandbox serve --host 0.0.0.0   for other machines; their recipes have `sandbox: http://host:8711`
align sandbox manifests --image I --secret S         manifests of a service that runs in a cluster
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command, add_consent

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parsers of `align sandbox`."""
    sandbox = add_command(commands, "sandbox", "Grade programs for other machines, over HTTP.")
    actions = sandbox.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = add_command(actions, "serve", "Grade programs until stopped.")
    serve.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only). Any other address needs a token in the "
        "environment variable ALIGN_TOKEN",
    )  # fmt: skip
    serve.add_argument("--port", type=int, default=8711, help="port to listen on (default: 8711; 0: any free one)")
    serve.add_argument("--workers", type=int, help="programs to run at the same time (default: one per core)")
    serve.add_argument(
        "--queue", type=int, default=256, help="requests to hold; further ones get HTTP status 429 (default: 256)"
    )
    serve.add_argument(
        "--hide",
        action="append",
        default=[],
        metavar="FILE",
        help="hide this file: programs see an empty file in its place. May be repeated",
    )
    add_consent(serve)
    serve.set_defaults(handler=_serve)
    manifests = add_command(actions, "manifests", "Print Kubernetes manifests of a grading service.")
    manifests.add_argument("--image", required=True, help="container image with the toolkit's packages")
    manifests.add_argument(
        "--secret", required=True, help="name of a Secret that has the service's token under the key ALIGN_TOKEN"
    )
    manifests.add_argument("--namespace", help="the namespace")
    manifests.add_argument("--replicas", type=int, default=1, help="number of pods (default: 1)")
    manifests.add_argument(
        "--cpus", type=int, default=8, help="CPU cores of a pod, and programs at a time (default: 8)"
    )
    manifests.add_argument("--memory", default="16Gi", help="memory of a pod (default: 16Gi)")
    manifests.add_argument(
        "--run-as", type=int, help="user and group of the processes (default: that of the toolkit's image, 10001)"
    )
    manifests.add_argument(
        "--weaker",
        action="store_true",
        help="keep the cluster's default seccomp and AppArmor profiles: programs run without namespaces",
    )
    manifests.set_defaults(handler=_manifests)


def _serve(arguments: argparse.Namespace) -> int:
    """Serve until stopped.

    First start one sandbox, to find out before any request whether this machine allows sandboxes.
    """
    from alignment.grading import Grader
    from alignment.grading.service import serve
    from alignment.sandbox.launcher_settings import launcher_settings
    from alignment.sandbox.slot import SandboxError, Slot

    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port is {arguments.port}: it must be between 0 and 65535")
    if arguments.queue < 1:
        raise ValueError(f"--queue is {arguments.queue}: it must be at least 1")
    slot = Slot(launcher_settings(arguments.allow_weaker_sandbox))
    try:
        slot.start()
    except SandboxError as error:
        raise ValueError(str(error)) from None
    finally:
        slot.close()

    def ready(port: int) -> None:
        address = f"http://{arguments.host}:{port}"
        print(f"serving on {address}, {grader.workers} programs at a time", file=sys.stderr, flush=True)

    grader = Grader(arguments.workers, allow_weaker=arguments.allow_weaker_sandbox, hidden=tuple(arguments.hide))
    with grader:
        serve(grader, host=arguments.host, port=arguments.port, queue=arguments.queue, ready=ready)
    return 0


def _manifests(arguments: argparse.Namespace) -> int:
    from alignment.launch.cluster import IMAGE_USER
    from alignment.launch.grading_manifests import GradingService, grading_manifests

    service = GradingService(
        image=arguments.image,
        secret=arguments.secret,
        namespace=arguments.namespace,
        replicas=arguments.replicas,
        cpus=arguments.cpus,
        memory=arguments.memory,
        run_as=IMAGE_USER if arguments.run_as is None else arguments.run_as,
        weaker=arguments.weaker,
    )
    print(grading_manifests(service), end="")
    return 0

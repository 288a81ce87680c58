"""The command for the sandbox: `align sandbox serve`.

ALIGN_TOKEN=... align sandbox serve --host 0.0.0.0    grade for other machines; recipes: `sandbox: http://host:8711`
align sandbox serve                                    for this machine only
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from alignment.grading.service import TOKEN

NAMES = ("sandbox",)


def add(commands: Any) -> None:
    """Add the command to the command line's subparsers."""
    sandbox = commands.add_parser("sandbox", help="Grade programs for other machines, over HTTP.")
    actions = sandbox.add_subparsers(dest="action", required=True, metavar="ACTION")
    serve = actions.add_parser("serve", help="Serve verdicts until stopped.")
    serve.add_argument(
        "--host", default="127.0.0.1",
        help=f"address to listen on (default: this machine only); another needs a token in {TOKEN}",
    )  # fmt: skip
    serve.add_argument("--port", type=int, default=8711, help="(default: 8711; 0: any that is free)")
    serve.add_argument("--workers", type=int, help="programs at a time (default: one a core)")
    serve.add_argument("--queue", type=int, default=256, help="requests at a time, beyond which the answer is 429")
    serve.add_argument(
        "--hide", action="append", default=[], metavar="FILE", help="programs find this file empty; may be repeated"
    )
    add_consent(serve)


def add_consent(command: argparse.ArgumentParser) -> None:
    """Add `--allow-weaker-sandbox` to a command that runs programs on this machine."""
    command.add_argument(
        "--allow-weaker-sandbox",
        action="store_true",
        help="allow a weaker sandbox: no namespaces if the kernel refuses them, and no process limit if programs run as "
        "the machine's root",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve; the sandbox is tried before the first request, so that a machine that refuses says so at once."""
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
        print(
            f"serving on http://{arguments.host}:{port}, {grader.workers} programs at a time",
            file=sys.stderr,
            flush=True,
        )

    grader = Grader(arguments.workers, allow_weaker=arguments.allow_weaker_sandbox, hidden=tuple(arguments.hide))
    with grader:
        serve(grader, host=arguments.host, port=arguments.port, queue=arguments.queue, ready=ready)
    return 0

"""`align ui`: a live page about runs, in the browser.

align ui                          the runs in ./runs
align ui runs/shop other/runs     one run, and all runs in a folder
ALIGN_TOKEN=... align ui --host 0.0.0.0   for other machines
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parser."""
    ui = add_command(
        commands, "ui", "Serve a live page about runs: stages, curves, ladder, rollouts, data, logs, chat."
    )
    ui.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help="a recipe's folder of results, a folder that contains such folders, or a recipe file (default: runs)",
    )  # fmt: skip
    ui.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only). Any other address needs a token: that of the "
        "environment variable ALIGN_TOKEN, or a random one. It is part of the address that is printed",
    )  # fmt: skip
    ui.add_argument("--port", type=int, default=8712, help="port to listen on (default: 8712; 0: any free one)")
    ui.set_defaults(handler=_ui)


def _ui(arguments: argparse.Namespace) -> int:
    from alignment.listening import is_loopback, serve_application

    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port is {arguments.port}: it must be between 0 and 65535")
    try:
        from alignment.ui.access import new_token
        from alignment.ui.page_server import application
        from alignment.ui.run_library import RunLibrary
    except ImportError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ValueError("the page needs starlette and uvicorn: pip install 'code-alignment[serve]'") from None
    library = RunLibrary([_place(path) for path in arguments.runs or [Path("runs")]])
    token = os.environ.get("ALIGN_TOKEN") or (None if is_loopback(arguments.host) else new_token())

    def ready(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        query = f"?token={token}" if token else ""
        print(f"serving {len(library.runs())} runs on http://{host}:{port}/{query}", file=sys.stderr, flush=True)

    page = application(library, host=arguments.host, token=token)
    serve_application(page, arguments.host, arguments.port, ready)
    return 0


def _place(path: Path) -> Path:
    """Return the folder that an argument names.

    Raises:
        ValueError: there is no such folder, and the folder is not the default one, in which runs may appear later.
    """
    if path.suffix in (".yaml", ".yml"):
        from alignment.recipe import load

        return load(path, []).folder
    if not path.is_dir() and path != Path("runs"):
        raise ValueError(f"{path} is not a folder: name a recipe's folder of results, for example runs/NAME")
    return path

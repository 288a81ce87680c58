"""`align logs`: print the log of a stage, while it runs or later.

align logs recipe.yaml             the stage that is running, or else the last one that has run
align logs recipe.yaml sft -f      follow a stage
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command, add_recipe

if TYPE_CHECKING:
    from alignment.chain.plan import Step
    from alignment.cli.shared_options import Commands

POLL_SECONDS = 0.5
"""Seconds between two reads of a log that is followed."""


def add(commands: Commands) -> None:
    """Add the parser."""
    logs = add_command(commands, "logs", "Print the log of a stage, while it runs or later.")
    add_recipe(logs)
    logs.add_argument("step", nargs="?", help="the stage or evaluation (default: the one that ran last)")
    logs.add_argument("-n", type=int, default=40, metavar="LINES", help="lines from the end (default: 40; 0: all)")
    logs.add_argument("-f", "--follow", action="store_true", help="print what is added, until the step is done")
    logs.add_argument("--rank", type=int, default=0, help="process whose log is printed (default: 0)")
    logs.set_defaults(handler=_logs)


def _logs(arguments: argparse.Namespace) -> int:
    from alignment.chain.plan import plan
    from alignment.recipe import load

    steps = plan(load(arguments.recipe, arguments.overrides))
    step = _choose(steps, arguments.step, arguments.rank)
    file = _log_of(step, arguments.rank)
    if not file.is_file():
        raise ValueError(f"{step.name} has no log of process {arguments.rank} yet: {file}")
    print(f"{file}", file=sys.stderr)
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in deque(stream, maxlen=arguments.n or None):
            print(line, end="")
        while arguments.follow and step.artifact() is None:
            for line in stream:
                print(line, end="", flush=True)
            time.sleep(POLL_SECONDS)
        for line in stream if arguments.follow else ():
            print(line, end="")
    return 0


def _log_of(step: Step, rank: int) -> Path:
    return step.folder / "logs" / f"rank{rank}.log"


def _choose(steps: list[Step], name: str | None, rank: int) -> Step:
    """Return the step with the given name. Without a name, return the step whose log was changed last.

    Raises:
        ValueError: there is no such step, or no step has a log.
    """
    if name is not None:
        from alignment.wording import did_you_mean

        names = [step.name for step in steps]
        if name not in names:
            raise ValueError(f"the recipe has no step {name!r}: {', '.join(names)}.{did_you_mean(name, names)}")
        return steps[names.index(name)]
    logged = [step for step in steps if _log_of(step, rank).is_file()]
    if not logged:
        raise ValueError(f"no step of the recipe has run yet: align run starts it; logs go to {steps[0].folder.parent}")
    return max(logged, key=lambda step: _log_of(step, rank).stat().st_mtime)

"""The command `align rollouts`: show the completions of a GRPO stage with their rewards.

align rollouts runs/NAME                     the rollouts of the last step of each GRPO stage
align rollouts runs/NAME/rl --step 10        the rollouts of step 10
align rollouts runs/NAME --below 0.5 -n 20   rollouts with a reward below 0.5
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_json

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parser."""
    rollouts = add_command(commands, "rollouts", "Show the rollouts of a GRPO stage: turns, verdict, reward.")
    rollouts.add_argument("run", type=Path, help="a recipe's folder, a stage's folder, or a file of rollouts")
    rollouts.add_argument("-n", type=int, default=5, help="how many rollouts, the last ones (default: 5)")
    rollouts.add_argument("--step", type=int, help="only those of this step")
    rollouts.add_argument("--task", help="only those of the task with this id")
    rollouts.add_argument("--below", type=float, help="only those with a reward below this")
    rollouts.add_argument("--above", type=float, help="only those with a reward above this")
    rollouts.add_argument("--ungraded", action="store_true", help="only those without a reward")
    rollouts.add_argument(
        "--characters", type=int, default=2000, help="characters of one text, at most (default: 2000)"
    )
    add_json(rollouts)
    rollouts.set_defaults(handler=_rollouts)


def _rollouts(arguments: argparse.Namespace) -> int:
    from alignment.stages.rollout_rows import RolloutFilter, select, written
    from data_builders.storage.show import show

    wanted = RolloutFilter(arguments.step, arguments.task, arguments.below, arguments.above, arguments.ungraded)
    rows: list[dict[str, Any]] = select(arguments.run, wanted, arguments.n)
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print(show([written(row) for row in rows], arguments.characters), end="")
    return 0

"""The commands for data: `align build` and `align show`.

align build --list                                     list the built-in builders
align build BUILDER --settings                         list the settings of a builder
align build corpus PATH... --out DIR [--set KEY=VALUE] make a dataset
align build my_builder.py:build --out DIR              make a dataset with a builder of your own
align show DATASET [-n 5] [--kind notebook]            look at rows
align show DATASET --row 12                            look at one row
align show DATASET --where repository=app --where text~TODO
align show DATASET --removed --where reason=near_duplicate
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command, add_consent, add_json, add_set

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parsers of `align build` and `align show`."""
    build = add_command(commands, "build", "Make a dataset, as a recipe's build stage does.")
    build.add_argument(
        "builder", nargs="?", help="a built-in builder (--list names them), or your own as path/to/file.py:function"
    )
    build.add_argument("paths", nargs="*", metavar="PATH", help="repositories or datasets that the builder reads")
    build.add_argument("--out", type=Path, help="folder of the new dataset")
    add_set(build, "one setting of the builder, for example filters.max_line_length=500")
    build.add_argument("--seed", type=int, default=0)
    add_consent(build)
    build.add_argument(
        "--workers", type=int, help="number of processes (default: one per core); it does not change the result"
    )
    build.add_argument(
        "--engine", choices=("local", "ray"), help="run on datatrove's local executor, or on a Ray cluster"
    )
    build.add_argument("--tasks", type=int, default=16, help="with --engine: number of tasks that the work is cut into")
    build.add_argument("--list", action="store_true", help="list the built-in builders")
    build.add_argument("--settings", action="store_true", help="list the settings of the builder")
    add_json(build)
    build.set_defaults(handler=_build)
    show = add_command(commands, "show", "Show rows of a dataset, drawn at random.")
    show.add_argument("dataset", type=Path, help="a dataset's folder, or a .jsonl or .parquet file")
    show.add_argument("-n", type=int, default=5, help="how many rows (default: 5)")
    show.add_argument("--row", type=int, metavar="N", help="only the row with this number, counted from 1")
    show.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only rows with COLUMN=VALUE, or with COLUMN~TEXT in the value. May be repeated",
    )
    show.add_argument(
        "--removed",
        action="store_true",
        help="show what the builder `corpus` removed, with reasons, instead of the rows",
    )
    show.add_argument("--kind", help="only rows with this value in the column `kind` or `format`")
    show.add_argument("--language", help="only rows of this language")
    show.add_argument("--seed", type=int, default=0, help="seed of the random choice of rows")
    show.add_argument("--characters", type=int, default=2000, help="most characters of one text (default: 2000)")
    add_json(show)
    show.set_defaults(handler=_show)


def _build(arguments: argparse.Namespace) -> int:
    from alignment.cli.build_handler import build

    return build(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from data_builders.storage.show import RowFilter, parse_conditions, removed_file, sample_numbered, show

    conditions = parse_conditions(arguments.where)
    named = {"kind": arguments.kind, "language": arguments.language}
    named = {name: value for name, value in named.items() if value is not None}
    wanted = RowFilter({**conditions.values, **named}, conditions.contains, arguments.row)
    dataset = removed_file(arguments.dataset) if arguments.removed else arguments.dataset
    rows = sample_numbered(dataset, arguments.n, arguments.seed, wanted)
    if arguments.json:
        numbered = [{"row_number": number, **row} for number, row in rows]
        print(json.dumps(numbered, indent=2, ensure_ascii=False, default=str))
    else:
        numbers = [number for number, _ in rows]
        print(show([row for _, row in rows], arguments.characters, numbers), end="")
    return 0

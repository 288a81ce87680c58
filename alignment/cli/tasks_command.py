"""`align tasks`: write repair tasks as Harbor task folders, and read such folders.

align tasks export-harbor repairs/tasks.jsonl harbor
align tasks import-harbor harbor tasks.jsonl --interpreter venv/bin/python
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parsers of `align tasks`."""
    parser = add_command(commands, "tasks", "Write repair tasks as Harbor task folders, and read such folders.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = add_command(actions, "export-harbor", "Write a Harbor task folder for each task of kind `repository`.")
    export.add_argument("rows", type=Path, help="rows of tasks, for example repairs/tasks.jsonl")
    export.add_argument("out", type=Path, help="the folder for the task folders; it must be empty or not exist")
    export.add_argument(
        "--requirements", type=Path, help="packages that the tests need, as a file for pip (default: pytest alone)"
    )
    export.set_defaults(handler=_export)
    reader = add_command(actions, "import-harbor", "Write the rows of Harbor tasks that need no image of their own.")
    reader.add_argument("folder", type=Path, help="a task folder, or a folder of task folders")
    reader.add_argument("rows", type=Path, help="the JSONL file to write; it must not exist")
    reader.add_argument("--interpreter", type=Path, help="Python interpreter with the packages that the tests need")
    reader.set_defaults(handler=_import)


def _export(arguments: argparse.Namespace) -> int:
    from data_builders.tasks.harbor.harbor_export import export_tasks

    count, refused = export_tasks(arguments.rows, arguments.out, arguments.requirements)
    print(f"{arguments.out}: {count} task folders")
    _print_refused(refused)
    return 0 if count else 1


def _import(arguments: argparse.Namespace) -> int:
    if arguments.rows.exists():
        raise ValueError(f"{arguments.rows} exists: name another file")
    from data_builders.tasks.harbor.harbor_import import import_tasks

    interpreter = arguments.interpreter.absolute() if arguments.interpreter is not None else None
    count, refused = import_tasks(arguments.folder, arguments.rows, interpreter)
    print(f"{arguments.rows}: {count} tasks")
    _print_refused(refused)
    return 0


def _print_refused(refused: Mapping[str, str]) -> None:
    """Print the tasks that could not be converted, grouped by the reason."""
    for reason, count in Counter(refused.values()).most_common():
        names = [name for name, why in refused.items() if why == reason]
        print(f"left out: {', '.join(names[:3])}{f' and {count - 3} more' if count > 3 else ''}: {reason}")

"""`align complete`: what a model writes at a cursor in a file.

align complete src/shop/order.py:42 --model recipe.yaml:sft        at the end of line 42
align complete src/shop/order.py:42:9 --model runs/app/sft         before the 9th character of line 42
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.model_argument import MODEL_HELP
from alignment.cli.shared_options import add_command, add_json

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands

_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::(?P<column>\d+))?")


def add(commands: Commands) -> None:
    """Add the parser."""
    complete = add_command(commands, "complete", "Complete a file at a cursor, as an editor would with this model.")
    complete.add_argument(
        "place", metavar="FILE:LINE[:COLUMN]", help="the cursor, counted from 1; without a column, the end of the line"
    )
    complete.add_argument("--model", required=True, help=MODEL_HELP)
    complete.add_argument("--max-new-tokens", type=int, default=128, help="tokens of the completion (default: 128)")
    complete.add_argument("--language", help="language of the file (default: recognized)")
    add_json(complete)
    complete.set_defaults(handler=_complete)


def _complete(arguments: argparse.Namespace) -> int:
    from alignment.cli.model_argument import model_path
    from alignment.evaluation.cursor_completion import complete, prompt_at
    from alignment.evaluation.engines.selection import open_engine
    from data_builders.parsing.languages import detect

    match = _PLACE.fullmatch(arguments.place)
    if match is None:
        raise ValueError(f"{arguments.place}: write FILE:LINE or FILE:LINE:COLUMN, for example src/order.py:42")
    if arguments.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {arguments.max_new_tokens}: it must be at least 1")
    file, column = Path(match["file"]), match["column"]
    text = _read(file)
    try:
        prompt = prompt_at(text, int(match["line"]), int(column) if column else None)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    language = arguments.language or detect(str(file), text)
    completion = complete(open_engine(model_path(arguments.model)), prompt, language, arguments.max_new_tokens)
    if completion.shortened:
        print(f"{file} is longer than the model's context: text far from the cursor was left out", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"file": str(file), "language": language, **dataclasses.asdict(completion)}, indent=2))
        return 0
    if completion.finish != "stop":
        print(f"the completion did not end within {arguments.max_new_tokens} tokens", file=sys.stderr)
    print(completion.text)
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")  # line ends stay as they are: offsets count characters of the file
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text") from None

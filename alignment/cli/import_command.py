"""`align import`: convert a GGUF file into a model folder.

align import qwen2.5-coder-0.5b-instruct-q4_k_m.gguf models/0.5b-instruct
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.cli.shared_options import add_command

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands


def add(commands: Commands) -> None:
    """Add the parser of `align import`."""
    parser = add_command(
        commands, "import", "Write a GGUF file as a model folder: weights dequantized, tokenizer and chat template."
    )
    parser.add_argument("file", type=Path, help="a GGUF file of a Qwen2 or Qwen2.5 model")
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16",
        help="type of the weights in the folder (default: bfloat16, as released)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(handler=_import)


def _import(arguments: argparse.Namespace) -> int:
    from alignment.models.gguf_import import import_gguf

    summary = import_gguf(arguments.file, arguments.out, arguments.dtype)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(summary), indent=2))
        return 0
    tied = "tied embedding" if summary.tied_embedding else "untied embedding"
    print(f"{arguments.out}: {summary.parameters:,} parameters, {tied}")
    print(summary.sentence())
    return 0

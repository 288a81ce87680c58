"""`align extract`: write the difference between two models as a LoRA adapter.

align extract runs/shop/sft/model --base Qwen2.5-Coder-7B --rank 32 --out shop-adapter
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
    """Add the parser of `align extract`."""
    parser = add_command(commands, "extract", "Write the difference between two models as a LoRA adapter.")
    parser.add_argument("trained", type=Path, help="folder of the trained model")
    parser.add_argument(
        "--base", type=Path, required=True, help="folder of the model that the adapter will be added to"
    )
    parser.add_argument("--rank", type=int, default=64, help="rank of the adapter (default: 64)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(handler=_extract)


def _extract(arguments: argparse.Namespace) -> int:
    if arguments.rank < 1:
        raise ValueError(f"--rank must be at least 1, not {arguments.rank}")
    from alignment.models.lora_extraction import extract_adapter

    result = extract_adapter(arguments.trained, arguments.base, arguments.out, arguments.rank)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
        return 0
    print(f"{arguments.out}: rank {result.rank}, {result.layers} linear layers")
    print(
        f"reproduces {100 * result.captured:.2f}% of the squared differences; least in {result.worst_layer} "
        f"({100 * result.worst_captured:.2f}%)"
    )
    return 0

"""Merges a stage's adapter into the weights it was trained on, on rank 0, and says how well that went.

python -m alignment.stages.merging < request.json     # what `merge_apart` starts
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from alignment import logs, processes
from alignment.models import loading
from alignment.processes import StageFailed, die_with_parent


def merge(
    source: dict[str, Any], adapter: Path, context: dict[str, Any] | None, chat: bool, out: Path
) -> dict[str, float]:
    """Leave the merged model in `out/model`; returns the proof of `alignment.models.loading.merge_adapter`."""
    tokenizer = loading.load_tokenizer(source)
    merged, proof = loading.merge_adapter(source, adapter, tokenizer, context)
    loading.set_stop_tokens(merged, tokenizer, chat)
    loading.save(merged, tokenizer, out / "model")
    return proof


def merge_apart(
    source: dict[str, Any], adapter: Path, context: dict[str, Any] | None, chat: bool, out: Path
) -> dict[str, float]:
    """The same in a process that knows nothing of launchers, DeepSpeed or other ranks. Raises ValueError."""
    request = {"source": source, "adapter": str(adapter), "context": context, "chat": chat, "out": str(out)}
    alone = processes.child_environment(os.environ, processes.World(0, 1, None), alone=True, port_offset=0)
    try:
        processes.run("alignment.stages.merging", request, out / "logs" / "merge.log", alone)
    except StageFailed as error:
        raise ValueError(f"merging the adapter {error}") from None
    found: dict[str, float] = json.loads((out / "merge.json").read_text())
    return found


def main() -> int:
    from alignment.files import write_json

    die_with_parent()
    logs.configure()
    request = json.load(sys.stdin)
    out = Path(request["out"])
    try:
        proof = merge(request["source"], Path(request["adapter"]), request["context"], request["chat"], out)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(out / "merge.json", proof)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

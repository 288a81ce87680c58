"""Merge a stage's LoRA adapter into its base model, and measure how much merging changes the logits.

`merge_in_process` starts this module as a process: `python -m alignment.stages.merging < request.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from alignment import logs, processes
from alignment.files import write_json
from alignment.models import loading
from alignment.models.source import Context, ModelSource
from alignment.processes import ProcessRequest, StageFailed, die_with_parent


class MergeRequest(ProcessRequest):
    """The adapter to merge, its base model, and the output folder."""

    source: ModelSource
    """The model that the adapter was trained on."""
    adapter: Path
    context: Context | None
    """Long-context settings that the adapter was trained with."""
    chat: bool
    """Whether the model ends its answers with `<|im_end|>`; see `alignment.models.loading.set_stop_tokens`."""
    out: Path
    """The artifact's folder; the merged model goes to `model/` in it."""


def merge(request: MergeRequest) -> dict[str, float]:
    """Merge the adapter and save the merged model.

    Returns:
        The measurements of `alignment.models.loading.merge_adapter`. See that function for the errors.
    """
    tokenizer = loading.load_tokenizer(request.source)
    model, figures = loading.merge_adapter(request.source, request.adapter, tokenizer, request.context)
    loading.set_stop_tokens(model, tokenizer, request.chat)
    loading.save(model, tokenizer, request.out / "model")
    return figures


def merge_in_process(request: MergeRequest) -> dict[str, float]:
    """Run `merge` in a new process that has no state of launchers, DeepSpeed or other ranks.

    Raises:
        ValueError: the process failed.
    """
    environment = processes.child_environment(os.environ, processes.World(0, 1, None), alone=True, port_offset=0)
    try:
        processes.run("alignment.stages.merging", request, request.out / "logs" / "merge.log", environment)
    except StageFailed as error:
        raise ValueError(f"merging the adapter {error}") from None
    figures: dict[str, float] = json.loads((request.out / "merge.json").read_text())
    return figures


def main() -> int:
    die_with_parent()
    logs.configure()
    request = MergeRequest.from_json(sys.stdin.read())
    try:
        figures = merge(request)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(request.out / "merge.json", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

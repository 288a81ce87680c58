"""The quickstart's data: everything its chain reads, from one seed, without a network.

Documents for pretraining, instructions for both phases of SFT, tasks to be rewarded on (`rl`) and held-out tasks, which
are compositions that occur in nothing that trains; and the tokenizer, trained on the documents.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.models.formats import DEFAULT_SYSTEM_PROMPT
from data_builders.synthetic.build_synthetic import TaskForm, build_conversations, build_documents, build_tasks
from data_builders.synthetic.tokenizer import train_tokenizer

CHECKOUT = Path(__file__).resolve().parents[2]


def inputs(**_: Any) -> dict[str, str]:
    """What the data depends on beyond its settings: the interpreter whose standard library is read."""
    return {"python": sys.version.split()[0]}


def build(
    out: Path,
    *,
    seed: int,
    modules: int = 4000,
    repositories: int = 400,
    standard_library: int = 1_000_000,
    history: int = 200_000,
    conversations: int = 8000,
    file_conversations: int = 2000,
    long_conversations: int = 1500,
    short_functions: list[int] = [1, 2],  # noqa: B006 - read only
    long_functions: list[int] = [6, 9],  # noqa: B006
    rl_tasks: int = 600,
    heldout_tasks: int = 300,
    vocab_size: int = 1024,
) -> dict[str, Any]:
    """Write all data sets below `out` and return their row counts. Same seed and settings, same bytes.

    Args:
        modules: Modules of documented functions, for pretraining.
        repositories: Small repositories of two files, for repo-level documents.
        standard_library: Characters of this interpreter's standard library, about.
        history: Characters of the checkout's own commits, at most about.
        conversations: Instructions that state their steps.
        file_conversations: Short instructions that show a file of `short_functions` functions.
        long_conversations: The same with `long_functions` functions: inputs that the short phase has no room for.
        rl_tasks: Tasks for preferences and GRPO.
        heldout_tasks: Held-out tasks of each form.
        vocab_size: Rows of the tokenizer's vocabulary, added tokens included.
    """
    documents = out / "documents.jsonl"
    short, long = (short_functions[0], short_functions[1]), (long_functions[0], long_functions[1])
    counts = {
        "documents": build_documents(
            documents,
            seed=seed,
            modules=modules,
            repositories=repositories,
            standard_library=standard_library,
            history=history,
            checkout=CHECKOUT,
        ),
        "conversations": build_conversations(
            out / "conversations.jsonl", seed=seed, stated=conversations, files=file_conversations, functions=short
        ),
        "long_conversations": build_conversations(
            out / "long.jsonl", seed=seed + 1, files=long_conversations, functions=long
        ),
    }
    tasks: list[tuple[str, str, TaskForm, int, tuple[int, int]]] = [
        ("rl", "rl", "stated", rl_tasks, short),
        ("heldout-fim", "heldout", "fim", heldout_tasks, short),
        ("heldout-short", "heldout", "stated", heldout_tasks, short),
        ("heldout-long", "heldout", "file", heldout_tasks, long),
    ]
    for name, split, form, count, functions in tasks:
        counts[name] = build_tasks(
            out / f"{name}.jsonl", seed=seed, split=split, form=form, count=count, functions=functions
        )
    # Documents of another seed, to compare exported models on.
    counts["heldout_documents"] = build_documents(out / "heldout-documents.jsonl", seed=seed + 2, modules=300)
    train_tokenizer(_texts(documents, out / "conversations.jsonl"), vocab_size, out / "tokenizer")
    return counts


def _texts(documents: Path, conversations: Path) -> Iterator[str]:
    """What the tokenizer learns its merges from: chat words too, or they would fall into letters and fill the context."""
    with documents.open(encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)
    with conversations.open(encoding="utf-8") as file:
        for line in file:
            yield f"system\n{DEFAULT_SYSTEM_PROMPT}"
            for message in json.loads(line)["messages"]:
                yield f"{message['role']}\n{message['content']}"

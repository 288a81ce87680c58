"""Builder `synthetic`: make the quickstart's data from one seed, without a network.

The builder writes documents for pretraining, conversations for both phases of SFT, tasks for preferences and GRPO
(`rl`), held-out tasks whose compositions do not occur in training data, and a tokenizer that is trained on the
documents and conversations.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignment.models.formats import DEFAULT_SYSTEM_PROMPT
from alignment.settings import Count, Positive, Settings
from data_builders.builder import BuildContext
from data_builders.synthetic.build_synthetic import TaskForm, build_conversations, build_documents, build_tasks
from data_builders.synthetic.tokenizer import train_tokenizer

CHECKOUT = Path(__file__).resolve().parents[2]
"""The git checkout of this toolkit. Its history is part of the documents."""
Range = Annotated[list[Positive], Field(min_length=2, max_length=2)]
"""Type of a setting that gives the minimum and the maximum of a number."""


class SyntheticSettings(Settings):
    """Settings of the builder `synthetic`."""

    modules: Count = 4000
    """Number of modules with documented functions, for pretraining."""
    repositories: Count = 400
    """Number of small repositories with two files, for repo-level documents."""
    standard_library: Count = 1_000_000
    """Approximate number of characters of Python's standard library."""
    history: Count = 200_000
    """Approximate number of characters of this toolkit's commits. If the history is shorter, all commits are used."""
    conversations: Count = 8000
    """Number of instructions that state the steps and show no file."""
    file_conversations: Count = 2000
    """Number of instructions that also show a file with `short_functions` functions."""
    long_conversations: Count = 1500
    """Number of instructions that also show a file with `long_functions` functions, for the SFT phase on long rows."""
    short_functions: Range = Field(default_factory=lambda: [1, 2])
    """Minimum and maximum number of functions in the file of a short instruction."""
    long_functions: Range = Field(default_factory=lambda: [6, 9])
    """Minimum and maximum number of functions in the file of a long instruction."""
    rl_tasks: Count = 600
    """Number of tasks for preferences and GRPO."""
    heldout_tasks: Count = 300
    """Number of held-out tasks of each form."""
    vocab_size: Annotated[int, Field(ge=278)] = 1024
    """Size of the tokenizer's vocabulary, including added tokens."""


def inputs(settings: SyntheticSettings) -> dict[str, str]:
    """Return the version of Python. The data depends on it, because documents contain the standard library."""
    return {"python": sys.version.split()[0]}


def build_synthetic(settings: SyntheticSettings, context: BuildContext) -> dict[str, Any]:
    """Write all data of the quickstart: documents, conversations, tasks, held-out tasks and the tokenizer.

    The same seed and settings give the same bytes with the same Python version and checkout.
    """
    out, seed = context.out, context.seed
    documents = out / "documents.jsonl"
    short = (settings.short_functions[0], settings.short_functions[1])
    long = (settings.long_functions[0], settings.long_functions[1])
    counts = {
        "documents": build_documents(
            documents,
            seed=seed,
            modules=settings.modules,
            repositories=settings.repositories,
            standard_library=settings.standard_library,
            history=settings.history,
            checkout=CHECKOUT,
        ),
        "conversations": build_conversations(
            out / "conversations.jsonl",
            seed=seed,
            stated=settings.conversations,
            files=settings.file_conversations,
            functions=short,
        ),
        "long_conversations": build_conversations(
            out / "long.jsonl", seed=seed + 1, files=settings.long_conversations, functions=long
        ),
    }
    tasks: list[tuple[str, str, TaskForm, int, tuple[int, int]]] = [
        ("rl", "rl", "stated", settings.rl_tasks, short),
        ("heldout-fim", "heldout", "fim", settings.heldout_tasks, short),
        ("heldout-short", "heldout", "stated", settings.heldout_tasks, short),
        ("heldout-long", "heldout", "file", settings.heldout_tasks, long),
    ]
    for name, split, form, count, functions in tasks:
        counts[name] = build_tasks(
            out / f"{name}.jsonl", seed=seed, split=split, form=form, count=count, functions=functions
        )
    # These documents have another seed. They are used to compare exported models.
    counts["heldout_documents"] = build_documents(out / "heldout-documents.jsonl", seed=seed + 2, modules=300)
    train_tokenizer(_tokenizer_texts(documents, out / "conversations.jsonl"), settings.vocab_size, out / "tokenizer")
    return counts


def _tokenizer_texts(documents: Path, conversations: Path) -> Iterator[str]:
    """Yield the texts for training the tokenizer. Chats are included, so that words of chats become whole tokens."""
    with documents.open(encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)
    with conversations.open(encoding="utf-8") as file:
        for line in file:
            yield f"system\n{DEFAULT_SYSTEM_PROMPT}"
            for message in json.loads(line)["messages"]:
                yield f"{message['role']}\n{message['content']}"

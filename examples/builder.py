"""Example of your own dataset builder: make conversations from FAQ pages in Markdown.

On the command line:

    align build examples/builder.py:build faq.md more/faq.md --out conversations --set max_rows=500
    align build examples/builder.py:build --settings

In a recipe (the path is relative to the recipe's file), with the rows used by a later stage:

    - name: faq
      kind: build
      builder: ../examples/builder.py:build
      settings: {pages: [faq.md], min_words: 5}
    - {name: sft, kind: sft, data: [{data: faq/conversations.jsonl}]}

A builder is a function `build(settings, context)`; `data_builders/builder.py` documents the two arguments. The content
of this file is part of the stage's fingerprint. After an edit, the stage and all later stages that use the dataset run
again.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from alignment.settings import Positive, Reference, Settings
from data_builders.builder import BuildContext


class FaqSettings(Settings):
    """Settings of the builder. Unknown keys and wrong types are reported with their line in the recipe."""

    pages: list[Reference]
    """Markdown files. Each heading of the second level is a question, and the text below the heading is the answer."""
    min_words: Positive = 3
    """Smallest number of words in an answer. Shorter answers are skipped and counted."""
    max_rows: Positive | None = None
    """Largest number of conversations. If there are more, they are drawn at random."""


def build(settings: FaqSettings, context: BuildContext) -> dict[str, Any]:
    """Make conversations from FAQ pages in Markdown, one for each heading of the second level.

    Returns:
        Counts, as JSON values. They are printed at the end, and stored in the stage's `artifact.json`.
    """
    rows, too_short = [], 0
    for page in settings.pages:
        path = page.path()  # an absolute path, even if the recipe names `stage/file` of an earlier stage
        for question, answer in questions(path.read_text(encoding="utf-8")):
            if len(answer.split()) < settings.min_words:
                too_short += 1
                continue
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            rows.append({"messages": messages, "source": f"faq:{path.name}"})
    if settings.max_rows is not None and len(rows) > settings.max_rows:
        # All randomness comes from the stage's seed, so that the same seed gives the same rows.
        chosen = random.Random(context.seed).sample(range(len(rows)), settings.max_rows)
        rows = [rows[index] for index in sorted(chosen)]
    if not rows:
        raise ValueError("no question with a long enough answer; lower `min_words` or name other pages")
    with (context.out / "conversations.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"rows": len(rows), "too_short": too_short}


def questions(text: str) -> list[tuple[str, str]]:
    """Return the heading and the text below the heading, for each heading of the second level."""
    parts = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    return [(heading, body.strip()) for heading, body in zip(parts[1::2], parts[2::2], strict=True)]

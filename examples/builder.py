"""A dataset builder of your own: conversations from FAQ pages in Markdown.

On the command line:

    align build examples/builder.py:build faq.md more/faq.md --out conversations --set max_rows=500
    align build examples/builder.py:build --settings

In a recipe (the path is relative to the recipe's file), with the rows used by a later stage:

    - name: faq
      kind: build
      builder: ../examples/builder.py:build
      settings: {pages: [faq.md], min_words: 5}
    - {name: sft, kind: sft, data: [{data: faq/conversations.jsonl}]}

A builder is a function `build(settings, context)`; `data_builders/builder.py` documents both. The content of this file is
part of the stage's fingerprint: after an edit the dataset is built again, and everything that was made from it.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from alignment.settings import Positive, Reference, Settings
from data_builders.builder import BuildContext


class FaqSettings(Settings):
    """The settings of the builder. Unknown keys and wrong types are errors at their line of the recipe."""

    pages: list[Reference]
    """Markdown files; each heading of the second level is a question, and the text below it the answer."""
    min_words: Positive = 3
    """Words of an answer, at least; shorter ones are left out, and counted."""
    max_rows: Positive | None = None
    """Conversations, at most; drawn at random if there are more."""


def build(settings: FaqSettings, context: BuildContext) -> dict[str, Any]:
    """Conversations from FAQ pages in Markdown: one for each heading of the second level.

    Returns:
        Counts, as JSON values. They are shown at the end, and kept in `artifact.json` of the stage.
    """
    rows, too_short = [], 0
    for page in settings.pages:
        path = page.path()  # absolute: also `stage/file` of an earlier stage is a path by now
        for question, answer in questions(path.read_text(encoding="utf-8")):
            if len(answer.split()) < settings.min_words:
                too_short += 1
                continue
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            rows.append({"messages": messages, "source": f"faq:{path.name}"})
    if settings.max_rows is not None and len(rows) > settings.max_rows:
        # Draw with the seed of the stage only, so that the same seed gives the same rows.
        chosen = random.Random(context.seed).sample(range(len(rows)), settings.max_rows)
        rows = [rows[index] for index in sorted(chosen)]
    if not rows:
        raise ValueError("no question with a long enough answer; lower `min_words` or name other pages")
    with (context.out / "conversations.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return {"rows": len(rows), "too_short": too_short}


def questions(text: str) -> list[tuple[str, str]]:
    """(heading, text below it) for each heading of the second level."""
    parts = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    return [(heading, body.strip()) for heading, body in zip(parts[1::2], parts[2::2], strict=True)]

"""Look at rows of a dataset: what `align show` prints."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from data_builders.dataset import read_rows


def sample_rows(path: str | Path, count: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows drawn evenly from a dataset in one pass (reservoir sampling), in their order."""
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    rng = random.Random(seed)
    kept: list[tuple[int, dict[str, Any]]] = []
    for number, row in enumerate(read_rows(Path(path))):
        if len(kept) < count:
            kept.append((number, row))
        elif (place := rng.randrange(number + 1)) < count:
            kept[place] = (number, row)
    return [row for _, row in sorted(kept, key=lambda item: item[0])]


def show(path: str | Path, count: int = 3, seed: int = 0, max_characters: int = 2000) -> str:
    """Sampled rows as readable text, long columns cut in the middle."""
    parts = []
    for row in sample_rows(path, count, seed):
        lines = ["=" * 80]
        for name, value in row.items():
            if name == "messages" or (name in {"chosen", "rejected"} and isinstance(value, list)):
                lines += [
                    f"--- {name}: {message['role']}\n{_cut(str(message['content']), max_characters)}"
                    for message in value
                ]
            elif isinstance(value, str) and "\n" in value:
                lines.append(f"--- {name}\n{_cut(value, max_characters)}")
            elif value is not None:
                lines.append(f"{name}: {value}")
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[... {len(text) - limit:,} characters ...]\n{text[-(limit // 2) :]}"

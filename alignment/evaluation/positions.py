"""Perplexity by position: whether what stands far back still helps, which one average over all tokens hides.

    python -m alignment.evaluation.positions MODEL --data documents.jsonl --length 32768

Windows are the beginnings of documents of at least `length` tokens, never several documents in a row: their far tokens
have a real past. Where the figure falls with the position the model uses its context; where it rises past some
position, the model was not trained that far (or YaRN is missing).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_ROWS_OF_LOGITS = 1024  # tokens whose logits are there at a time


def edges_of(length: int, first: int = 256) -> list[int]:
    """Ends of bins that double: 256, 512, ... up to `length`."""
    edges = [min(first, length)]
    while edges[-1] < length:
        edges.append(min(2 * edges[-1], length))
    return edges


def by_position(
    model: Any, windows: Iterable[Sequence[int]], length: int, edges: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Rows `{from, to, perplexity, tokens}`; a token counts in the bin of its own position, the first in none.

    `windows` are token ids, each at least `length` long. Raises ValueError where the model holds fewer positions.
    """
    import torch

    held = int(getattr(model.config, "max_position_embeddings", length))
    if length > held:
        raise ValueError(f"the model holds {held} positions, not {length}: measure up to there, or add YaRN")
    ends = list(edges or edges_of(length))
    sums, counts = [0.0] * len(ends), [0] * len(ends)
    bins = torch.bucketize(torch.arange(1, length), torch.tensor(ends), right=True)
    model.eval()
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([list(window[:length])], device=model.device)
            if ids.shape[1] < length:
                raise ValueError(f"a window of {ids.shape[1]} tokens is shorter than {length}")
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
            for start in range(0, length - 1, _ROWS_OF_LOGITS):
                end = min(start + _ROWS_OF_LOGITS, length - 1)
                logits = model.lm_head(hidden[start:end]).float()
                losses = torch.nn.functional.cross_entropy(logits, ids[0, start + 1 : end + 1], reduction="none").cpu()
                for index in range(len(ends)):
                    chosen = losses[bins[start:end] == index]
                    sums[index] += float(chosen.double().sum())
                    counts[index] += len(chosen)
    rows, begin = [], 0
    for end, total, count in zip(ends, sums, counts, strict=True):
        if count:
            rows.append({"from": begin, "to": end, "perplexity": math.exp(total / count), "tokens": count})
        begin = end
    return rows


def long_windows(rows: Iterable[dict[str, Any]], tokenizer: Any, length: int, limit: int) -> list[list[int]]:
    """The first `limit` documents of at least `length` tokens. Raises ValueError where there is none."""
    found: list[list[int]] = []
    longest = 0
    for row in rows:
        if isinstance(text := row.get("text"), str) and len(text) >= length:  # a token is a character at least
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            longest = max(longest, len(ids))
            if len(ids) >= length:
                found.append(ids[:length])
        if len(found) == limit:
            break
    if not found:
        raise ValueError(
            f"no document has {length} tokens (the longest has {longest}): give longer ones, or a smaller --length"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's folder, or its name on the hub")
    parser.add_argument("--data", type=Path, required=True, help="documents (`text`), JSONL or Parquet")
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--limit", type=int, default=16, help="documents (default: 16)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignment.evaluation.benchmark_rows import read_rows

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(arguments.model)
        windows = long_windows(read_rows(str(arguments.data)), tokenizer, arguments.length, arguments.limit)
        cuda = torch.cuda.is_available()
        model: Any = AutoModelForCausalLM.from_pretrained(
            arguments.model, dtype=torch.bfloat16 if cuda else torch.float32
        )
        rows = by_position(model.to("cuda" if cuda else "cpu"), windows, arguments.length)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"documents": len(windows), "rows": rows}, indent=2))
    else:
        for row in rows:
            print(f"{row['from']:7} to {row['to']:7}  perplexity {row['perplexity']:.4f}  ({row['tokens']} tokens)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

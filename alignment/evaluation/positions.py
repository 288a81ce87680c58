"""Measure perplexity by token position, which shows whether a model uses distant context.

    python -m alignment.evaluation.positions MODEL --data documents.jsonl --length 32768

The perplexity over all tokens hides whether distant context is used. A window is the beginning of one document of at
least `length` tokens, never several joined documents, so that late tokens have real context. If perplexity falls with
the position, the model uses the context. If it rises beyond some position, the model was not trained on contexts of
that length, or its YaRN settings are missing.

Shapes: T = tokens of a window, C = tokens of a chunk, D = model width, V = vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignment.rows.reading import read_rows

_CHUNK = 1024
"""C, the number of tokens whose logits [C, V] are in memory at the same time."""


def edges_of(length: int, first: int = 256) -> list[int]:
    """Return the end positions of bins, which double from `first` up to `length`: 256, 512, 1024, ..."""
    edges = [min(first, length)]
    while edges[-1] < length:
        edges.append(min(2 * edges[-1], length))
    return edges


def by_position(
    model: Any, windows: Iterable[Sequence[int]], length: int, edges: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Compute the perplexity in bins of token positions. The first token of a window is not predicted and not counted.

    Args:
        model: a causal language model of transformers.
        windows: token ids of the windows, each at least `length` long.
        length: number of tokens that are used of each window.
        edges: ends of the bins; by default `edges_of(length)`.

    Returns:
        Rows `{from, to, perplexity, tokens}`, one for each bin that has tokens.

    Raises:
        ValueError: the model has fewer positions than `length`, or a window has fewer tokens.
    """
    import torch

    max_positions = int(getattr(model.config, "max_position_embeddings", length))
    if length > max_positions:
        raise ValueError(
            f"the model has {max_positions} positions, fewer than {length}: use a smaller length, or add YaRN"
        )
    ends = list(edges or edges_of(length))
    sums, counts = [0.0] * len(ends), [0] * len(ends)
    bins = torch.bucketize(torch.arange(1, length), torch.tensor(ends), right=True)  # [T - 1]
    model.eval()
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([list(window[:length])], device=model.device)  # [1, T]
            if ids.shape[1] < length:
                raise ValueError(f"a window of {ids.shape[1]} tokens is shorter than {length}")
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]  # [T, D]
            for start in range(0, length - 1, _CHUNK):
                end = min(start + _CHUNK, length - 1)
                logits = model.lm_head(hidden[start:end]).float()  # [C, V]
                losses = torch.nn.functional.cross_entropy(logits, ids[0, start + 1 : end + 1], reduction="none").cpu()
                for index in range(len(ends)):
                    in_bin = losses[bins[start:end] == index]
                    sums[index] += float(in_bin.double().sum())
                    counts[index] += len(in_bin)
    rows, begin = [], 0
    for end, total, count in zip(ends, sums, counts, strict=True):
        if count:
            rows.append({"from": begin, "to": end, "perplexity": math.exp(total / count), "tokens": count})
        begin = end
    return rows


def long_windows(rows: Iterable[dict[str, Any]], tokenizer: Any, length: int, limit: int) -> list[list[int]]:
    """Return the token ids of the first `limit` documents that have at least `length` tokens, cut to `length` tokens.

    Args:
        rows: documents with the column `text`.
        tokenizer: a Hugging Face tokenizer.
        length: number of tokens of a window.
        limit: largest number of windows.

    Raises:
        ValueError: no document is long enough.
    """
    windows: list[list[int]] = []
    longest = 0
    for row in rows:
        if isinstance(text := row.get("text"), str) and len(text) >= length:  # a token has at least one character
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            longest = max(longest, len(ids))
            if len(ids) >= length:
                windows.append(ids[:length])
        if len(windows) == limit:
            break
    if not windows:
        raise ValueError(
            f"no document has {length} tokens (the longest has {longest}): use longer documents or a smaller --length"
        )
    return windows


def main() -> int:
    """Run the command line of `python -m alignment.evaluation.positions`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's folder, or its name on the hub")
    parser.add_argument("--data", type=Path, required=True, help="documents (`text`), JSONL or Parquet")
    parser.add_argument("--length", type=int, default=32_768, help="tokens of a window (default: 32768)")
    parser.add_argument("--limit", type=int, default=16, help="number of documents (default: 16)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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

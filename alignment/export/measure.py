"""Measuring a model in a fresh process: what the original says, and how far an exported file is from it.

    python -m alignment.export.measure JOB.json

The job names an engine and a model. Without a `reference`, the run makes it: token windows and log-probabilities at
every position go into `folder`, perplexity and greedy continuations into its result. With the reference, the run
compares its model with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.fresh_process import serve_job
from alignment.export.runtime_engines import Engine, LlamaCpp, Transformers


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of float32 logits along the last axis; the sum is taken in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def windows_of(engine: Engine, texts: Sequence[str], context: int, positions: int) -> tuple[np.ndarray, int]:
    """Token windows of `context` ids each, cut from `texts` in order, for about `positions` scored positions; and how
    many of the texts they took."""
    count = max(1, math.ceil(positions / (context - 1)))
    ids: list[int] = []
    used = 0
    for text in texts:
        ids += engine.tokenize(text)
        used += 1
        if len(ids) >= count * context:
            break
    found = min(count, len(ids) // context)
    if found == 0:
        raise ValueError(
            f"the rows give {len(ids)} tokens, one window takes {context}: give more rows or a shorter context"
        )
    return np.array(ids[: found * context], dtype=np.int32).reshape(found, context), used


def write_reference(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Run the original and keep what the comparison needs; perplexity over all scored positions."""
    folder = Path(job["folder"])
    windows, _ = windows_of(engine, job["texts"], job["context"], job["positions"])
    np.save(folder / "windows.npy", windows)
    store: np.ndarray | None = None
    loss, started = 0.0, time.perf_counter()
    for number, window in enumerate(windows):
        log_p = log_softmax(engine.logits(window.tolist())[:-1])
        if store is None:
            store = np.lib.format.open_memmap(
                folder / "log_probabilities.npy", "w+", np.float32, (len(windows), *log_p.shape)
            )
        store[number] = log_p
        loss -= float(np.take_along_axis(log_p, window[1:, None], 1).sum(dtype=np.float64))
    seconds = time.perf_counter() - started
    prompts = [window[: job["context"] // 2].tolist() for window in windows[: job["greedy_prompts"]]]
    return {
        "perplexity": math.exp(loss / windows[:, 1:].size),
        "positions": windows[:, 1:].size,
        "windows": len(windows),
        "prompt_tokens_per_second": windows.size / seconds,
        "hard_corpus": [engine.tokenize(text) for text in job["hard_corpus"]],
        "prompts": prompts,
        "greedy": [engine.greedy(prompt, job["greedy_tokens"]) for prompt in prompts],
    }


def compare(engine: Engine, job: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Run an exported model over the reference's windows.

    Returns perplexity, top-1 agreement and greedy agreement (the share of greedy tokens before the first that
    differs), both in percent, the mean KL divergence from the original in nats, and speeds in tokens a second.
    """
    folder = Path(job["folder"])
    windows = np.load(folder / "windows.npy")
    store = np.load(folder / "log_probabilities.npy", mmap_mode="r")
    loss = divergence = same = 0.0
    seconds = 0.0
    for window, expected in zip(windows, store, strict=True):
        started = time.perf_counter()
        logits = engine.logits(window.tolist())[:-1]
        seconds += time.perf_counter() - started
        if logits.shape != expected.shape:
            raise ValueError(f"the export has {logits.shape[1]} vocabulary rows, the original {expected.shape[1]}")
        log_q = log_softmax(logits)
        loss -= float(np.take_along_axis(log_q, window[1:, None], 1).sum(dtype=np.float64))
        divergence += float((np.exp(expected) * (expected - log_q)).sum(dtype=np.float64))
        same += int((log_q.argmax(-1) == expected.argmax(-1)).sum())
    positions = windows[:, 1:].size
    started = time.perf_counter()
    greedy = [engine.greedy(prompt, job["greedy_tokens"]) for prompt in reference["prompts"]]
    generating = time.perf_counter() - started
    agreement = [_common(a, b) / len(b) for a, b in zip(greedy, reference["greedy"], strict=True)]
    unequal = [
        text
        for text, ids in zip(job["hard_corpus"], reference["hard_corpus"], strict=True)
        if engine.tokenize(text) != ids
    ]
    return {
        "perplexity": math.exp(min(loss / positions, 700.0)) if math.isfinite(loss) else math.inf,
        "top1_agreement": 100.0 * same / positions,
        "kl_divergence": divergence / positions,
        "greedy_agreement": 100.0 * sum(agreement) / max(1, len(agreement)),
        "tokenization_equal": not unequal,
        "tokenization_differs_on": unequal[:3],
        "positions": positions,
        "prompt_tokens_per_second": windows.size / seconds,
        "tokens_per_second": sum(map(len, greedy)) / generating if greedy else None,
    }


def _common(left: list[int], right: list[int]) -> int:
    for number, (a, b) in enumerate(zip(left, right, strict=True)):
        if a != b:
            return number
    return len(left)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; see the module's docstring."""
    engine: Engine
    if job["engine"] == "llama.cpp":
        room = max(job["context"], job["context"] // 2 + job["greedy_tokens"])
        engine = LlamaCpp(job["model"], room, job["threads"], job.get("adapter"))
    else:
        engine = Transformers(job["model"], job["dtype"], job["device"], job["threads"], job.get("adapter"))
    if job.get("reference"):
        return compare(engine, job, job["reference"])
    return write_reference(engine, job)


if __name__ == "__main__":
    serve_job(measure)

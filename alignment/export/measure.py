"""Measures a model in a fresh process: the original as the reference, or an exported file against the reference.

    python -m alignment.export.measure JOB.json

JOB.json holds a `MeasureJob`. Without a `reference`, the run makes one: token windows and log-probabilities go into the
job's folder, perplexity and greedy continuations into the result. With a reference, it compares the model with it.

W = windows, C = tokens of a window, P = C - 1 scored positions of a window, V = vocabulary rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from alignment.export.export_row import Measurement
from alignment.export.fresh_process import serve_job
from alignment.export.runtimes import LlamaCppRuntime, Runtime, TransformersRuntime

MAX_LOSS = 700.0
"""Mean losses are capped here before exp, which overflows float64 above 709."""


class OriginalFigures(TypedDict):
    """The original's figures; its windows and log-probabilities are files in the job's folder."""

    perplexity: float
    positions: int
    windows: int
    prompt_tokens_per_second: float
    hard_corpus: list[list[int]]
    """Token ids of every text of the job's `hard_corpus`."""
    prompts: list[list[int]]
    """Token ids of the greedy prompts."""
    greedy: list[list[int]]
    """Greedy continuation of every prompt."""


@dataclass(frozen=True)
class MeasureJob:
    """One measurement."""

    texts: list[str]
    """Held-out texts."""
    hard_corpus: list[str]
    """Texts on which tokenizers are known to differ."""
    folder: str
    """Where the reference's arrays are: `windows.npy` [W, C] and `log_probabilities.npy` [W, P, V]."""
    context: int
    """C."""
    positions: int
    """Scored positions in total, about."""
    greedy_prompts: int
    greedy_tokens: int
    dtype: str
    device: str
    threads: int
    runtime: Literal["llama.cpp", "transformers"] = "transformers"
    model: str = ""
    """A GGUF file or a folder."""
    adapter: str | None = None
    """LoRA adapter to run the model with: a GGUF file for llama.cpp, a folder for transformers."""
    reference: OriginalFigures | None = None


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of float32 logits along the last axis; the sum is taken in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def cut_windows(runtime: Runtime, texts: Sequence[str], context: int, positions: int) -> tuple[np.ndarray, int]:
    """Cut texts, in order, into token windows.

    Args:
        runtime: Tokenizes the texts.
        texts: The texts.
        context: Tokens of a window, C.
        positions: Number of scored positions wanted; a window has C - 1 of them.

    Returns:
        Token ids [W, C] in int32, and the number of texts they were cut from.

    Raises:
        ValueError: The texts do not fill one window.
    """
    wanted = max(1, math.ceil(positions / (context - 1)))
    ids: list[int] = []
    used = 0
    for text in texts:
        ids += runtime.tokenize(text)
        used += 1
        if len(ids) >= wanted * context:
            break
    count = min(wanted, len(ids) // context)
    if count == 0:
        raise ValueError(
            f"the rows give {len(ids)} tokens, one window takes {context}: give more rows or a shorter context"
        )
    return np.array(ids[: count * context], dtype=np.int32).reshape(count, context), used


def write_reference(runtime: Runtime, job: MeasureJob) -> OriginalFigures:
    """Run the original model, write its windows and log-probabilities to the job's folder, return the rest."""
    folder = Path(job.folder)
    windows, _ = cut_windows(runtime, job.texts, job.context, job.positions)
    np.save(folder / "windows.npy", windows)
    store: np.ndarray | None = None
    loss, started = 0.0, time.perf_counter()
    for number, window in enumerate(windows):
        log_p = log_softmax(runtime.logits(window.tolist())[:-1])
        if store is None:
            store = np.lib.format.open_memmap(
                folder / "log_probabilities.npy", "w+", np.float32, (len(windows), *log_p.shape)
            )
        store[number] = log_p
        loss -= float(np.take_along_axis(log_p, window[1:, None], 1).sum(dtype=np.float64))
    seconds = time.perf_counter() - started
    prompts = [window[: job.context // 2].tolist() for window in windows[: job.greedy_prompts]]
    return {
        "perplexity": math.exp(loss / windows[:, 1:].size),
        "positions": windows[:, 1:].size,
        "windows": len(windows),
        "prompt_tokens_per_second": windows.size / seconds,
        "hard_corpus": [runtime.tokenize(text) for text in job.hard_corpus],
        "prompts": prompts,
        "greedy": [runtime.greedy(prompt, job.greedy_tokens) for prompt in prompts],
    }


def compare(runtime: Runtime, job: MeasureJob, reference: OriginalFigures) -> Measurement:
    """Run an exported model over the reference's windows and compare the two.

    KL(original || export) is averaged over the scored positions; perplexity is exp of the mean loss per position.

    Raises:
        ValueError: The export has another number of vocabulary rows than the original.
    """
    windows = np.load(Path(job.folder, "windows.npy"))
    store = np.load(Path(job.folder, "log_probabilities.npy"), mmap_mode="r")
    loss = divergence = 0.0
    same = 0
    seconds = 0.0
    for window, expected in zip(windows, store, strict=True):
        started = time.perf_counter()
        logits = runtime.logits(window.tolist())[:-1]
        seconds += time.perf_counter() - started
        if logits.shape != expected.shape:
            raise ValueError(f"the export has {logits.shape[1]} vocabulary rows, the original {expected.shape[1]}")
        log_q = log_softmax(logits)
        loss -= float(np.take_along_axis(log_q, window[1:, None], 1).sum(dtype=np.float64))
        divergence += float((np.exp(expected) * (expected - log_q)).sum(dtype=np.float64))
        same += int((log_q.argmax(-1) == expected.argmax(-1)).sum())
    positions = windows[:, 1:].size
    figures: Measurement = {
        "perplexity": math.exp(min(loss / positions, MAX_LOSS)) if math.isfinite(loss) else math.inf,
        "top1_agreement": 100.0 * same / positions,
        "kl_divergence": divergence / positions,
        "positions": positions,
        "prompt_tokens_per_second": windows.size / seconds,
    }
    return figures | _compare_greedy(runtime, job, reference) | _compare_tokenization(runtime, job, reference)


def _compare_greedy(runtime: Runtime, job: MeasureJob, reference: OriginalFigures) -> Measurement:
    started = time.perf_counter()
    continuations = [runtime.greedy(prompt, job.greedy_tokens) for prompt in reference["prompts"]]
    seconds = time.perf_counter() - started
    shares = [_common_prefix(a, b) / len(b) for a, b in zip(continuations, reference["greedy"], strict=True)]
    return {
        "greedy_agreement": 100.0 * sum(shares) / max(1, len(shares)),
        "tokens_per_second": sum(map(len, continuations)) / seconds if continuations else None,
    }


def _compare_tokenization(runtime: Runtime, job: MeasureJob, reference: OriginalFigures) -> Measurement:
    pairs = zip(job.hard_corpus, reference["hard_corpus"], strict=True)
    different = [text for text, ids in pairs if runtime.tokenize(text) != ids]
    return {"tokenization_equal": not different, "tokenization_differs_on": different[:3]}


def _common_prefix(left: list[int], right: list[int]) -> int:
    for number, (a, b) in enumerate(zip(left, right, strict=True)):
        if a != b:
            return number
    return len(left)


def measure(job: MeasureJob) -> OriginalFigures | Measurement:
    """Run one job: the reference of the original, or the figures of an export."""
    runtime: Runtime
    if job.runtime == "llama.cpp":
        n_ctx = max(job.context, job.context // 2 + job.greedy_tokens)
        runtime = LlamaCppRuntime(job.model, n_ctx, job.threads, job.adapter)
    else:
        runtime = TransformersRuntime(job.model, job.dtype, job.device, job.threads, job.adapter)
    return write_reference(runtime, job) if job.reference is None else compare(runtime, job, job.reference)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Entry point of the process."""
    return dict(measure(MeasureJob(**job)))


if __name__ == "__main__":
    serve_job(run)

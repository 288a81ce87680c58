"""Measure the original model in a fresh process, or compare an exported model with the original's measurement.

    python -m alignment.export.measure JOB.json

JOB.json holds a `MeasureJob`. A job without `reference` measures the original: token windows and log-probabilities are
written to the job's folder, perplexity and greedy continuations are in the result. A job with `reference` compares the
job's model with that measurement.

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
from alignment.progress import track

MAX_LOSS = 700.0
"""Mean losses are cut to this value before exp is computed, since exp overflows float64 above 709."""


class OriginalFigures(TypedDict):
    """Measurement of the original. Its windows and log-probabilities are files in the job's folder."""

    perplexity: float
    positions: int
    windows: int
    prompt_tokens_per_second: float
    hard_corpus: list[list[int]]
    """Token ids of each text of the job's `hard_corpus`."""
    prompts: list[list[int]]
    """Token ids of the prompts that are continued greedily."""
    greedy: list[list[int]]
    """Token ids of the greedy continuation of each prompt."""


@dataclass(frozen=True)
class MeasureJob:
    """Model and settings of one measurement."""

    texts: list[str]
    """Held-out texts."""
    hard_corpus: list[str]
    """Texts on which tokenizers are known to differ."""
    folder: str
    """Folder of the original's arrays: `windows.npy` [W, C] and `log_probabilities.npy` [W, P, V]."""
    context: int
    """C, the number of tokens in a window."""
    positions: int
    """Approximate number of scored positions in total."""
    greedy_prompts: int
    greedy_tokens: int
    dtype: str
    device: str
    threads: int
    runtime: Literal["llama.cpp", "transformers"] = "transformers"
    model: str = ""
    """A GGUF file or a folder."""
    adapter: str | None = None
    """LoRA adapter with which the model is run: a GGUF file for llama.cpp, a folder for transformers."""
    reference: OriginalFigures | None = None
    """The original's measurement, or None to measure the original."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the log-probabilities of float32 logits along the last axis, with the sum in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def cut_windows(runtime: Runtime, texts: Sequence[str], context: int, positions: int) -> tuple[np.ndarray, int]:
    """Cut texts, in order, into token windows.

    Args:
        runtime: Runtime that tokenizes the texts.
        texts: The texts.
        context: C, the number of tokens in a window.
        positions: Number of scored positions that all windows should have together. Each window has C - 1 scored
            positions.

    Returns:
        Token ids [W, C] in int32, and the number of texts that were used.

    Raises:
        ValueError: The texts have too few tokens for one window.
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
            f"the rows have {len(ids)} tokens, but one window needs {context}: give more rows or a shorter context"
        )
    return np.array(ids[: count * context], dtype=np.int32).reshape(count, context), used


def write_reference(runtime: Runtime, job: MeasureJob) -> OriginalFigures:
    """Measure the original: write windows and log-probabilities to the job's folder, return the other results."""
    folder = Path(job.folder)
    windows, _ = cut_windows(runtime, job.texts, job.context, job.positions)
    np.save(folder / "windows.npy", windows)
    store: np.ndarray | None = None
    loss, started = 0.0, time.perf_counter()
    for number, window in enumerate(track(windows, "measuring the original", "windows")):
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
    """Run an exported model on the reference's windows, and compare the model with the original.

    KL(original || export) is averaged over the scored positions. Perplexity is exp of the mean loss per position.

    Raises:
        ValueError: Export and original do not have equally many vocabulary rows.
    """
    windows = np.load(Path(job.folder, "windows.npy"))
    store = np.load(Path(job.folder, "log_probabilities.npy"), mmap_mode="r")
    loss = divergence = 0.0
    same = 0
    seconds = 0.0
    for window, expected in zip(track(windows, f"measuring {Path(job.model).name}", "windows"), store, strict=True):
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
    """Run one job: measure the original, or compare an export with the original."""
    runtime: Runtime
    if job.runtime == "llama.cpp":
        n_ctx = max(job.context, job.context // 2 + job.greedy_tokens)
        runtime = LlamaCppRuntime(job.model, n_ctx, job.threads, job.adapter)
    else:
        runtime = TransformersRuntime(job.model, job.dtype, job.device, job.threads, job.adapter)
    return write_reference(runtime, job) if job.reference is None else compare(runtime, job, job.reference)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process: the entry point for `serve_job`."""
    return dict(measure(MeasureJob(**job)))


if __name__ == "__main__":
    serve_job(run)

"""Measure response times of fill-in-the-middle requests to llama.cpp's server, at the cursor positions of the benchmark
`editor`.

    python -m benchmarks infill-latency --model MODEL.gguf --rows fim.jsonl

Requests are sent to `/infill` one after the other, as by one developer, with `--context` characters on each side of the
cursor. `cold` requests reuse nothing from the server's cache (`cache_prompt: false`). `warm` requests repeat a position
after one more character was typed, so that the server's cache holds nearly the whole prompt.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.cursor_positions import editor
from alignment.evaluation.engines.llamacpp_server import LlamaCppServer
from alignment.evaluation.problem import Problem


def main(arguments: Sequence[str]) -> int:
    """Measure and print the table."""
    options = _parse(arguments)
    import httpx

    problems = editor(BenchmarkRequest("editor", "editor", str(options.rows))).problems[: options.count]
    server = LlamaCppServer(options.model, context=4096, slots=1, threads=options.threads)
    client = httpx.Client(base_url=server.address, timeout=600, trust_env=False)
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    tokens: list[int] = []
    for problem in problems:
        for kind, typed in (("cold", 0), ("warm", 1)):
            body = _request(problem, typed, options)
            started = time.perf_counter()
            answer = client.post("/infill", json={**body, "cache_prompt": kind == "warm"}).raise_for_status().json()
            times[kind].append(time.perf_counter() - started)
            tokens.append(int(answer["tokens_predicted"]))
            if kind == "cold":  # the request that fills the cache for the warm one
                client.post("/infill", json={**body, "n_predict": 0, "cache_prompt": True}).raise_for_status()
    server.close()
    print(f"{len(problems)} cursor positions, {statistics.mean(tokens):.0f} tokens per completion (mean)")
    print("| request | p50 (ms) | p95 (ms) |\n|---|---|---|")
    for kind, seconds in times.items():
        cut = statistics.quantiles(seconds, n=20, method="inclusive")
        print(f"| {kind} | {1000 * statistics.median(seconds):.0f} | {1000 * cut[-1]:.0f} |")
    return 0


def _request(problem: Problem, typed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the body of a request, with the cursor moved forward by the first `typed` characters of the expected
    text.
    """
    reference = problem.reference or ""
    prefix = (problem.row["prefix"] + reference[:typed])[-options.context :]
    suffix = problem.row["suffix"][: options.context]
    return {"input_prefix": prefix, "input_suffix": suffix, "n_predict": options.tokens, "temperature": 0}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks infill-latency", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="a GGUF file")
    parser.add_argument("--rows", required=True, type=Path, help="rows with `prefix`, `middle` and `suffix`")
    parser.add_argument("--count", type=int, default=60, help="cursor positions (default: 60, the first ones)")
    parser.add_argument("--context", type=int, default=1500, help="characters on each side (default: 1500)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per completion at most (default: 64)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 uses all (default)")
    return parser.parse_args(arguments)

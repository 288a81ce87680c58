"""Measure how many tokens per second each engine generates on this machine, and whether the engines generate the same
greedy tokens.

    python -m benchmarks generation-speed --model FOLDER --prompts HumanEval.jsonl --gguf MODEL.gguf --vllm PYTHON

All engines get the same prompts as token ids, decode greedily, and do not stop at end tokens, so that each generates
exactly prompts x new tokens. Loading the model, and vLLM's start, are not counted. The engines run one after the other
in each round; the table shows the median of the rounds. At the first position where the tokens of two engines differ,
the logits of both tokens are compared in a float32 forward pass: a small gap is a rounding difference, a large gap
would be an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VLLM_SCRIPT = Path(__file__).with_name("vllm_generation.py")
LLAMACPP_SLOTS = 16


@dataclass
class Generation:
    """Results of one engine: wall and CPU seconds of each round, and the generated tokens of the last round."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    """The generated token ids of each prompt."""


@dataclass(frozen=True)
class Workload:
    """The prompts of a measurement and the number of tokens to generate after each of them."""

    prompts: list[list[int]]
    new_tokens: int

    @property
    def total(self) -> int:
        return len(self.prompts) * self.new_tokens


def main(arguments: Sequence[str]) -> int:
    """Measure the engines and print the table."""
    options = _parse(arguments)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    workload = Workload(_prompts(tokenizer, options.prompts, options.count), options.tokens)
    runs: dict[str, Callable[[Workload, Generation], None]] = {"own": _own(options.model)}
    if options.transformers:
        runs["transformers"] = _transformers(options.model)
    if options.vllm:
        runs["vllm"] = lambda work, result: _vllm(options.vllm, options.model, work, result)
    if options.gguf:
        runs["llama.cpp"] = _llamacpp(options.gguf, workload)
    results = {name: Generation() for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            run(workload, results[name])
            print(f"{name}: {workload.total / results[name].seconds[-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    _print_speed(workload, results)
    _print_agreement(options.model, workload, results)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation-speed", description=__doc__)
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument(
        "--prompts", required=True, type=Path, help="rows with a column `prompt`, for example HumanEval.jsonl.gz"
    )
    parser.add_argument("--count", type=int, default=64, help="prompts (default: 64, the first ones)")
    parser.add_argument("--tokens", type=int, default=256, help="new tokens per prompt (default: 256)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds; the table shows medians (default: 1)")
    parser.add_argument("--gguf", type=Path, help="also measure llama.cpp's server with this file")
    parser.add_argument("--vllm", metavar="PYTHON", help="also measure vLLM in this Python environment")
    parser.add_argument("--transformers", action="store_true", help="also measure `generate` of transformers")
    return parser.parse_args(arguments)


def _prompts(tokenizer: Any, file: Path, count: int) -> list[list[int]]:
    """Return chat prompts as token ids.

    Each prompt contains the code in the column `prompt` of a row and asks the model to complete it.
    """
    from alignment.rows import reading

    prompts: list[list[int]] = []
    for row in itertools.islice(reading.read(file), count):
        request = f"Complete this function:\n```python\n{row['prompt']}\n```"
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
        prompts.append(tokenizer.encode(text, add_special_tokens=False))
    return prompts


def _timed(result: Generation, generate: Callable[[], list[list[int]]]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    result.tokens = generate()
    result.seconds.append(time.perf_counter() - started)
    result.cpu_seconds.append(time.process_time() - cpu)


class _IdsAsText:
    """Replaces the tokenizer: decodes token ids to a text that lists the ids, since ids can't be recovered from an
    ordinary text.
    """

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def _own(model: str) -> Callable[[Workload, Generation], None]:
    """Return a function that generates with the engine that `align evaluate` uses on a CPU, without end tokens."""
    from alignment.evaluation.engines.protocol import GenerationJob
    from alignment.evaluation.engines.selection import open_engine

    engine = open_engine(model, "transformers")
    engine.stop_ids = ()
    engine.tokenizer = _IdsAsText()

    def run(workload: Workload, result: Generation) -> None:
        jobs = [GenerationJob(str(n), ids, workload.new_tokens) for n, ids in enumerate(workload.prompts)]

        def generate() -> list[list[int]]:
            texts = {int(job.key): completion.text for job, completion in engine.generate(jobs)}
            return [[int(token) for token in texts[number].split()] for number in range(len(jobs))]

        _timed(result, generate)

    return run


def _transformers(model: str) -> Callable[[Workload, Generation], None]:
    """Return a function that calls `generate` of transformers in bfloat16, on all prompts in one batch, padded on the
    left.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def run(workload: Workload, result: Generation) -> None:
        width = max(map(len, workload.prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in workload.prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in workload.prompts])
        settings: dict[str, Any] = {
            "do_sample": False,
            "max_new_tokens": workload.new_tokens,
            "repetition_penalty": 1.0,
        }
        settings |= {"eos_token_id": None, "temperature": None, "top_p": None, "top_k": None}

        def generate() -> list[list[int]]:
            with torch.inference_mode():
                output = network.generate(ids, attention_mask=mask, **settings)
            rows: list[list[int]] = output[:, width:].tolist()
            return rows

        _timed(result, generate)

    return run


def _vllm(python: str, model: str, workload: Workload, result: Generation) -> None:
    """Generate with vLLM in a process that runs in vLLM's Python environment and measures the time."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        values = {"model": model, "prompts": workload.prompts, "new_tokens": workload.new_tokens}
        request.write_text(json.dumps(values))
        log = Path(folder) / "log"
        with log.open("w") as output:
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            command = [python, str(VLLM_SCRIPT), str(request), str(answer)]
            process = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if process.returncode:
            raise SystemExit(f"vLLM failed:\n{log.read_text()[-3000:]}")
        report = json.loads(answer.read_text())
    result.tokens = report["tokens"]
    result.seconds.append(report["seconds"])
    result.cpu_seconds.append(report["cpu_seconds"])


def _llamacpp(file: Path, workload: Workload) -> Callable[[Workload, Generation], None]:
    """Return a function that generates with llama.cpp's server with 16 slots, with one request per prompt."""
    import httpx
    import psutil

    from alignment.evaluation.engines.llamacpp_server import LlamaCppServer

    longest = max(map(len, workload.prompts)) + workload.new_tokens
    server = LlamaCppServer(file, context=longest + 1, slots=LLAMACPP_SLOTS)
    client = httpx.Client(timeout=3600, trust_env=False)

    def complete(prompt: list[int], new_tokens: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": new_tokens, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        answer = client.post(f"{server.address}/completion", json={**body, "cache_prompt": False})
        tokens: list[int] = answer.raise_for_status().json()["tokens"]
        return tokens

    def run(workload: Workload, result: Generation) -> None:
        process = psutil.Process(server.process_id)
        before = process.cpu_times()
        with ThreadPoolExecutor(LLAMACPP_SLOTS) as pool:
            _timed(result, lambda: list(pool.map(complete, workload.prompts, itertools.repeat(workload.new_tokens))))
        after = process.cpu_times()
        result.cpu_seconds[-1] = after.user + after.system - before.user - before.system

    return run


def _print_speed(workload: Workload, results: dict[str, Generation]) -> None:
    print(f"{len(workload.prompts)} prompts ({sum(map(len, workload.prompts))} tokens), {workload.total} new tokens")
    print("| engine | tokens/s | tokens per CPU second | ratio to own |\n|---|---|---|---|")
    reference = statistics.median(results["own"].seconds)
    for name, result in results.items():
        seconds, cpu = statistics.median(result.seconds), statistics.median(result.cpu_seconds)
        print(f"| {name} | {workload.total / seconds:.1f} | {workload.total / cpu:.1f} | {reference / seconds:.2f} |")


def _print_agreement(model: str, workload: Workload, results: dict[str, Generation]) -> None:
    """Compare the tokens of each engine with the tokens of this toolkit's engine.

    Print how many completions are equal, and the gaps of the logits at the first difference.

    Only the tokens before the first end token of this toolkit's engine are compared. Later tokens would not be part of
    an answer, and llama.cpp never chooses an end token here, because it is asked to ignore end tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignment.evaluation.engines.decoding import end_token_ids

    ends = set(end_token_ids(AutoTokenizer.from_pretrained(model), None))
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    print("\n| engine | equal completions | median tokens before they part | logit gap there: median, largest |")
    print("|---|---|---|---|")
    for name, result in results.items():
        if name == "own":
            continue
        equal, lengths, gaps = 0, [], []
        for prompt, own_tokens, other_tokens in zip(
            workload.prompts, results["own"].tokens, result.tokens, strict=True
        ):
            mine = _before_end(own_tokens, ends)
            theirs = other_tokens[: len(mine)]
            part = next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            if part is None:
                equal += 1
                continue
            with torch.inference_mode():
                logits = network(torch.tensor([[*prompt, *mine[:part]]]), logits_to_keep=1).logits[0, -1]
            lengths.append(part)
            gaps.append(abs(float(logits[mine[part]] - logits[theirs[part]])))
        parted = f"{statistics.median(lengths):.0f}" if lengths else "-"
        gap = f"{statistics.median(gaps):.3f}, {max(gaps):.3f}" if gaps else "-"
        print(f"| {name} | {equal} of {len(workload.prompts)} | {parted} | {gap} |")


def _before_end(tokens: list[int], ends: set[int]) -> list[int]:
    """Return the tokens before the first end token."""
    return tokens[: next((index for index, token in enumerate(tokens) if token in ends), len(tokens))]

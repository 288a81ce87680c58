"""Generates with vLLM for `generation-speed`: run by the Python of an environment that has vLLM and not this project.

PYTHON vllm_generation.py REQUEST.json ANSWER.json
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def _cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(entry.ru_utime + entry.ru_stime for entry in usage)


def main() -> None:
    """Load the model, generate once for a warm-up and once measured, and write tokens and times."""
    import os

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process, so that its CPU time is counted
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found, unused-ignore]

    request = json.loads(Path(sys.argv[1]).read_text())
    longest = max(map(len, request["prompts"])) + request["new_tokens"]
    llm = LLM(
        model=request["model"], dtype="bfloat16", seed=0, generation_config="vllm", enforce_eager=True,
        max_model_len=longest + 1, enable_prefix_caching=False, gpu_memory_utilization=0.3,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": ids} for ids in request["prompts"]]
    llm.generate(prompts[:1], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
    sampling = SamplingParams(temperature=0, max_tokens=request["new_tokens"], ignore_eos=True)
    started, cpu = time.perf_counter(), _cpu_seconds()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    answer = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": _cpu_seconds() - cpu,
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()

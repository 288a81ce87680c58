"""Generation through vLLM, for GPUs: the same jobs, the same stops, its own batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.evaluation.engines.transformers_engine import Completion, Job, end_ids, split_by_length

CHUNK = 1024
"""Jobs handed over at once: what an interrupted run loses at most."""


class VllmEngine:
    """One vLLM engine on this rank's GPU."""

    def __init__(self, model_path: str, *, batch_size: int | None = None, **settings: Any) -> None:
        from transformers import GenerationConfig
        from vllm import LLM

        self.batch_size = batch_size
        self.llm = LLM(model=model_path, seed=0, generation_config="vllm", enable_prefix_caching=True, **settings)
        self.tokenizer = self.llm.get_tokenizer()
        try:
            generation_config = GenerationConfig.from_pretrained(model_path)
        except OSError:
            generation_config = None
        self.stop_ids = end_ids(self.tokenizer, generation_config)
        self.max_length = int(self.llm.llm_engine.model_config.max_model_len)

    def generate(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Completion]]:
        from vllm import SamplingParams

        fitting, too_long = split_by_length(jobs, self.max_length)
        yield from too_long
        size = min(CHUNK, self.batch_size or CHUNK)
        for start in range(0, len(fitting), size):
            chunk = fitting[start : start + size]
            sampling = [
                SamplingParams(
                    temperature=job.temperature,
                    top_p=job.top_p,
                    max_tokens=min(job.max_new_tokens, self.max_length - len(job.ids)),
                    stop=list(job.stop),
                    stop_token_ids=sorted({*self.stop_ids, *job.stop_ids}),
                    seed=job.seed if job.temperature > 0 else None,
                    skip_special_tokens=True,
                )
                for job in chunk
            ]
            prompts = [{"prompt_token_ids": job.ids} for job in chunk]
            for job, output in zip(chunk, self.llm.generate(prompts, sampling, use_tqdm=False), strict=True):
                best = output.outputs[0]
                finish = "stop" if best.finish_reason == "stop" else "length"
                yield job, Completion(best.text, len(best.token_ids), finish)

"""Generate with vLLM, on GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.evaluation.engines.decoding import end_token_ids, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)

CHUNK = 1024
"""Number of jobs per call of vLLM. An interrupted run loses at most the completions of one call."""


class VllmEngine:
    """An engine that runs a checkpoint with vLLM on this rank's GPU."""

    name = "vllm"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS - {"top_p with min_p"}
    """vLLM applies min_p before top_p, so that top_p counts other probabilities if both are set."""

    def __init__(self, model_path: str, *, batch_size: int | None = None, **settings: Any) -> None:
        """Load the model.

        Args:
            model_path: a checkpoint folder, or a name on the hub.
            batch_size: number of jobs per call; by default `CHUNK`. vLLM divides the jobs of a call into batches by
                itself.
            settings: further arguments of `vllm.LLM`.
        """
        from transformers import GenerationConfig
        from vllm import LLM

        self.batch_size = batch_size
        self.llm = LLM(model=model_path, seed=0, generation_config="vllm", enable_prefix_caching=True, **settings)
        self.tokenizer: Any = self.llm.get_tokenizer()
        try:
            generation_config = GenerationConfig.from_pretrained(model_path)
        except OSError:
            generation_config = None
        self.stop_ids = end_token_ids(self.tokenizer, generation_config)
        self.max_length = int(self.llm.llm_engine.model_config.max_model_len)

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield completions chunk by chunk, in the order of the jobs."""
        from vllm import SamplingParams

        refuse_unsupported(jobs, self.name, self.supported_fields)
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        size = min(CHUNK, self.batch_size or CHUNK)
        for start in range(0, len(fitting), size):
            chunk = fitting[start : start + size]
            sampling = [
                SamplingParams(
                    temperature=job.temperature,
                    top_p=job.top_p,
                    top_k=job.top_k,
                    min_p=job.min_p,
                    repetition_penalty=job.repetition_penalty,
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
                yield (
                    job,
                    Completion(best.text, len(best.token_ids), "stop" if best.finish_reason == "stop" else "length"),
                )

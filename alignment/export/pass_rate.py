"""pass@1 of an exported model on a benchmark of the recipe, in a fresh process and in the model's own runtime.

    python -m alignment.export.pass_rate JOB.json

The prompts are tokenized by the original's tokenizer: the gate proves apart from this that an export tokenizes alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens, end_token_ids, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)
from alignment.export.fresh_process import run_job, serve_job


def pass_at_1(
    model: Path,
    original: Path,
    benchmark: dict[str, Any],
    out: Path,
    *,
    runtime: str,
    threads: int,
    python: str | None = None,
) -> float:
    """pass@1 in percent of `model`, a GGUF file or a folder, on `benchmark`; completions and verdicts go to `out`.

    `benchmark` holds `request` (an entry of `evaluate:`), and optionally `sandbox` (the settings of a recipe's
    `sandbox:`) and `seed`. ValueError says why it can't be measured.
    """
    job = {"model": str(model), "original": str(original), "out": str(out), "runtime": runtime, "threads": threads}
    try:
        return float(run_job("alignment.export.pass_rate", benchmark | job, python)["pass_at_1"])
    except RuntimeError as error:
        raise ValueError(f"the benchmark could not be run on {model}: {error}") from error


class LlamaCppEngine:
    """A GGUF file as the engine of an evaluation: one completion at a time, stops and sampling as with transformers."""

    name = "llama.cpp"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS
    batch_size: int | None = None
    """Ignored."""

    def __init__(self, model: str, tokenizer_folder: str, threads: int, room: int) -> None:
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        from alignment.export.llamacpp import Library, Model

        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
        config = AutoConfig.from_pretrained(tokenizer_folder)
        try:
            generation: Any = GenerationConfig.from_pretrained(tokenizer_folder)
        except OSError:
            generation = config
        self.stop_ids = end_token_ids(self.tokenizer, generation)
        self.max_length = min(int(config.max_position_embeddings), room)
        self.model = Model(Library(), model, self.max_length, threads)

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield each job with its completion, one after another."""
        import torch

        refuse_unsupported(jobs, self.name, self.supported_fields)
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        for job in fitting:
            sequence = DecodedSequence(job, self.max_length - len(job.ids))
            self.model.clear()
            logits = self.model.decode(job.ids, every=False)
            while True:
                (token,) = choose_tokens(torch.from_numpy(logits[-1:].copy()), [sequence])
                sequence.add(token, self.stop_ids, self.tokenizer)
                if sequence.finish is not None:
                    break
                logits = self.model.decode([token], position=len(job.ids) + len(sequence.new) - 1)
            yield job, sequence.completion(self.tokenizer)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job; called in its own process and environment."""
    from alignment.evaluation import evaluate
    from alignment.grading import SandboxSettings

    engine: Any = "transformers"
    if job["runtime"] == "llama.cpp":
        engine = LlamaCppEngine(job["model"], job["original"], job["threads"], job.get("room") or 8192)
    figures = evaluate(
        job["model"],
        [job["request"]],
        job["out"],
        engine=engine,
        seed=job.get("seed", 0),
        sandbox=SandboxSettings.model_validate(job.get("sandbox", {})),
        rank=0,
        world_size=1,
        preflight=False,
    )
    found = [figure["value"] for figure in figures if figure["metric"] == "pass@1"]
    if not found:
        names = ", ".join(sorted({figure["metric"] for figure in figures}))
        raise ValueError(f"the benchmark gives {names}, not pass@1: choose another one")
    return {"pass_at_1": found[0]}


if __name__ == "__main__":
    serve_job(measure)

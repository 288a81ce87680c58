"""Measure pass@1 of an exported model on a benchmark, in a fresh process and in the model's runtime.

    python -m alignment.export.pass_rate JOB.json

JOB.json holds a `PassRateJob`. The original's tokenizer tokenizes the prompts. `alignment.export.gate` checks
separately that an export tokenizes in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens, end_token_ids, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)
from alignment.export.export_options import PassRateBenchmark
from alignment.export.fresh_process import run_job, serve_job
from alignment.export.llamacpp import GgufModel, LlamaCppLibrary
from alignment.grading import SandboxSettings

MAX_CONTEXT = 8192
"""Largest context length in llama.cpp, in tokens. Memory grows with the context length."""


@dataclass(frozen=True)
class PassRateJob:
    """Model, benchmark and settings of one measurement of pass@1."""

    model: str
    """A GGUF file or a folder."""
    original: str
    """Folder of the original model, whose tokenizer and length limit are used."""
    out: str
    """Folder for completions and verdicts."""
    runtime: Literal["llama.cpp", "transformers"]
    threads: int
    request: dict[str, Any]
    """Settings of the benchmark, in the form of an entry of a recipe's `evaluate:`."""
    sandbox: dict[str, Any]
    """Settings of the sandbox, in the form of a recipe's `sandbox:`."""
    seed: int


def pass_at_1(
    model: Path,
    original: Path,
    benchmark: PassRateBenchmark,
    out: Path,
    *,
    runtime: Literal["llama.cpp", "transformers"],
    threads: int,
    python: str | None = None,
) -> float:
    """Measure pass@1 of a model, in percent.

    Args:
        model: A GGUF file or a folder.
        original: Folder of the original model.
        benchmark: The benchmark, its sandbox and its seed.
        out: Folder for completions and verdicts.
        runtime: Runtime that runs the model.
        threads: CPU threads of llama.cpp.
        python: Interpreter of another environment in which to run the model.

    Raises:
        ValueError: The benchmark can't be run, or does not measure pass@1.
    """
    job = PassRateJob(
        model=str(model),
        original=str(original),
        out=str(out),
        runtime=runtime,
        threads=threads,
        request=benchmark.request,
        sandbox=benchmark.sandbox.model_dump(mode="json"),
        seed=benchmark.seed,
    )
    try:
        return float(run_job("alignment.export.pass_rate", asdict(job), python)["pass_at_1"])
    except RuntimeError as error:
        raise ValueError(f"the benchmark could not be run on {model}: {error}") from error


class LlamaCppEngine:
    """An evaluation engine that runs a GGUF file in llama.cpp, one completion at a time.

    Stop conditions and sampling are the same as in the transformers engine.

    Args:
        model: The GGUF file.
        tokenizer_folder: Folder of the original model, whose tokenizer is used.
        threads: Number of CPU threads.
        max_context: Largest number of tokens of a prompt and its completion together.
    """

    name = "llama.cpp"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS
    batch_size: int | None = None
    """Required by the engine protocol. This engine ignores the batch size."""

    def __init__(self, model: str, tokenizer_folder: str, threads: int, max_context: int = MAX_CONTEXT) -> None:
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
        config = AutoConfig.from_pretrained(tokenizer_folder)
        try:
            generation: Any = GenerationConfig.from_pretrained(tokenizer_folder)
        except OSError:
            generation = config
        self.stop_ids = end_token_ids(self.tokenizer, generation)
        self.max_length = min(int(config.max_position_embeddings), max_context)
        self.model = GgufModel(LlamaCppLibrary(), model, self.max_length, threads)

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


def measure(job: PassRateJob) -> float:
    """Measure pass@1 in this process, in percent."""
    from alignment.evaluation import evaluate

    engine: Any = "transformers"
    if job.runtime == "llama.cpp":
        engine = LlamaCppEngine(job.model, job.original, job.threads)
    figures = evaluate(
        job.model,
        [job.request],
        job.out,
        engine=engine,
        seed=job.seed,
        sandbox=SandboxSettings.model_validate(job.sandbox),
        rank=0,
        world_size=1,
        preflight=False,
    )
    values = [figure["value"] for figure in figures if figure["metric"] == "pass@1"]
    if not values:
        names = ", ".join(sorted({figure["metric"] for figure in figures}))
        raise ValueError(f"the benchmark measures {names}, not pass@1: choose another benchmark")
    return float(values[0])


def run(job: dict[str, Any]) -> dict[str, float]:
    """Run a job in this process: the entry point for `serve_job`."""
    return {"pass_at_1": measure(PassRateJob(**job))}


if __name__ == "__main__":
    serve_job(run)

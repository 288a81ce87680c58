"""Measure pass@1 of an exported model on a benchmark, in a fresh process and in the model's runtime.

    python -m alignment.export.pass_rate JOB.json

JOB.json holds a `PassRateJob`. The original's tokenizer tokenizes the prompts. `alignment.export.gate` checks
separately that an export tokenizes in the same way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.export.export_options import PassRateBenchmark
from alignment.export.fresh_process import run_job, serve_job
from alignment.grading import SandboxSettings


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


def measure(job: PassRateJob) -> float:
    """Measure pass@1 in this process, in percent."""
    from alignment.evaluation import evaluate

    engine: Any = "transformers"
    if job.runtime == "llama.cpp":
        from alignment.evaluation.engines.llamacpp_engine import LlamaCppEngine

        engine = LlamaCppEngine(job.model, tokenizer_folder=job.original, threads=job.threads)
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

"""Evaluation of a checkpoint: generate completions, grade them, and write figures.

The folder of results gets `figures.json`, `completions.jsonl` (every completion), `verdicts.jsonl` (every program with
its verdict), and `raw/`, from which an interrupted evaluation resumes. Several ranks share the work through `raw/`, which
must be on storage that all of them see: each takes every `world_size`-th task, and rank 0 waits for the others and writes
the results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue, scoring
from alignment.evaluation.benchmark_request import BenchmarkRequest, parse_request
from alignment.evaluation.engines.protocol import Engine, GenerationJob
from alignment.evaluation.engines.selection import EngineName, open_engine
from alignment.evaluation.preflight import check_checkpoint
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem
from alignment.evaluation.results import write_results
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import Figure, figures
from alignment.evaluation.store import Store, digest, model_fingerprint
from alignment.grading import SandboxSettings
from alignment.logs import get_logger
from alignment.models.source import DType

logger = get_logger(__name__)

SILENCE_SECONDS = 1800
"""Seconds that rank 0 waits while no other rank writes anything."""
PROGRESS_SECONDS = 15
"""Seconds between two log lines while completions are generated."""


def evaluate(
    model_path: str | Path,
    benchmarks: Sequence[Any],
    out_dir: str | Path,
    *,
    seed: int = 0,
    engine: EngineName | Engine = "auto",
    batch_size: int | None = None,
    dtype: DType = "auto",
    sandbox: SandboxSettings | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    preflight: bool = True,
) -> list[Figure]:
    """Measure a checkpoint on benchmarks.

    Args:
        model_path: a checkpoint folder, or a name on the hub.
        benchmarks: requests in any form that `parse_request` takes: `BenchmarkRequest`, mapping, object with the same
            attributes, or a word such as `humaneval`, `fim:held-out.jsonl`, `my_bench.py:Tasks`.
        out_dir: the folder of results. Completions and verdicts that it already has are reused.
        seed: of sampling and of bootstrap intervals.
        engine: name of an engine, or an engine with a loaded model.
        batch_size: sequences that are generated at the same time; by default as many as fit.
        dtype: number format of the weights; see `alignment.models.precision`.
        sandbox: how programs run; by default on this machine.
        rank: number of this process; by default the environment variable RANK, as Accelerate and torchrun set it.
        world_size: number of processes; by default the environment variable WORLD_SIZE.
        preflight: check first that chat template, stop tokens and tokenizer fit the checkpoint.

    Returns:
        The figures, in percent with 95% intervals; an empty list on ranks other than 0.

    Raises:
        ValueError: a benchmark is unknown, its data is missing, or the checkpoint cannot be measured. Raised before
            anything is generated.
    """
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    sandbox = sandbox or SandboxSettings()
    requests = [replace(parse_request(entry), sandbox=sandbox) for entry in benchmarks]
    names = [request.name for request in requests]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two benchmarks are called {sorted(repeated)[0]!r}: give each its own `name`")
    loaded = [(request, catalogue.load(request)) for request in requests]
    if preflight:
        for warning in check_checkpoint(model_path, {benchmark.mode for _, benchmark in loaded}, _uses_fim(loaded)):
            logger.warning("%s", warning)
    scoring.check_tools([benchmark for _, benchmark in loaded], sandbox)
    run = _EvaluationRun(
        model_path=str(model_path),
        out_dir=Path(out_dir),
        seed=seed,
        engine_name=engine if isinstance(engine, str) else "auto",
        batch_size=batch_size,
        dtype=dtype,
        sandbox=sandbox,
        rank=rank,
        world_size=world_size,
        loaded_engine=None if isinstance(engine, str) else engine,
    )
    return run.run(loaded)


def _uses_fim(loaded: Sequence[tuple[BenchmarkRequest, Benchmark]]) -> bool:
    return any(isinstance(benchmark.problems[0].prompt, FimPrompt) for _, benchmark in loaded if benchmark.problems)


@dataclass
class _EvaluationRun:
    """One rank's part of an evaluation."""

    model_path: str
    out_dir: Path
    seed: int
    engine_name: EngineName
    batch_size: int | None
    dtype: DType
    sandbox: SandboxSettings
    rank: int
    world_size: int
    loaded_engine: Engine | None
    """The engine, once it is needed: an evaluation whose completions are all stored loads no model."""
    loaded_tokenizer: Any = None
    jobs: dict[tuple[str, str, int, bool], GenerationJob] = field(default_factory=dict)
    """Jobs by benchmark, problem, sample, and whether it is the second try: prompts are encoded once."""

    def run(self, loaded: Sequence[tuple[BenchmarkRequest, Benchmark]]) -> list[Figure]:
        """Generate and grade this rank's part; on rank 0 wait for the others, and write and return the figures."""
        raw = self.out_dir / "raw"
        self.model = model_fingerprint(self.model_path)
        with (
            Store(raw, "completions", self.rank) as self.completions,
            Store(raw, "verdicts", self.rank) as self.verdicts,
        ):
            for request, benchmark in loaded:
                self.measure(request, benchmark, benchmark.problems[self.rank :: self.world_size])
            if self.rank != 0:
                return []
            results = {benchmark.name: self.wait_for_outcomes(benchmark) for _, benchmark in loaded}
        all_figures = [figure for name, outcomes in results.items() for figure in figures(name, outcomes, self.seed)]
        write_results(self.out_dir, all_figures, results, {benchmark.name: benchmark.mode for _, benchmark in loaded})
        return all_figures

    def measure(self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        """Generate and grade completions of problems, and the second try of a benchmark that has one."""
        self.generate(request, benchmark, problems)
        self.grade(benchmark, problems)
        if benchmark.retry is not None:
            retried = [again for problem in problems if (again := self.second_try(benchmark, problem)) is not None]
            self.generate(request, benchmark, retried, second=True)
            self.grade(benchmark, retried, second=True)

    def second_try(self, benchmark: Benchmark, problem: Problem) -> Problem | None:
        """Return the problem asked again. None if the first try did not fail."""
        assert benchmark.retry is not None
        outcome = self.outcome(benchmark, problem, 0)
        if outcome is None or outcome.status != "failed":
            return None
        return benchmark.retry(problem, outcome.completion, outcome.detail)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model; loading it does not load the model."""
        if self.loaded_engine is not None:
            return self.loaded_engine.tokenizer
        if self.loaded_tokenizer is None:
            from transformers import AutoTokenizer

            self.loaded_tokenizer = AutoTokenizer.from_pretrained(self.model_path)
        return self.loaded_tokenizer

    @property
    def engine(self) -> Engine:
        """The engine; the first use loads the model."""
        if self.loaded_engine is None:
            self.loaded_engine = open_engine(self.model_path, self.engine_name, self.batch_size, self.dtype)
        return self.loaded_engine

    def job(self, benchmark: Benchmark, problem: Problem, sample: int, second: bool = False) -> GenerationJob:
        """Return the job of one sample."""
        place = (benchmark.name, problem.id, sample, second)
        if place not in self.jobs:
            self.jobs[place] = self.new_job(benchmark, problem, sample)
        return self.jobs[place]

    def new_job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        """Encode the prompt and derive seed and key: hashes of everything that the completion depends on."""
        stop = (*benchmark.stop, *problem.stop)
        ids = problem.prompt.encode(self.tokenizer)
        random = digest("sample", ids, self.seed, sample)
        sampled = (benchmark.temperature, benchmark.top_p, random) if benchmark.temperature > 0 else ()
        vocabulary = self.tokenizer.get_vocab()
        settings = (benchmark.max_new_tokens, stop, benchmark.stop_tokens, sampled)
        source: tuple[str, ...] = (benchmark.source_digest,) if benchmark.source_digest else ()
        # Completions of another number format are other completions; float32 has no mark, as it always was the default.
        source += (self.dtype,) if self.dtype != "float32" else ()
        return GenerationJob(
            key=digest("completion", self.model, ids, *settings, *source),
            ids=ids,
            max_new_tokens=benchmark.max_new_tokens,
            stop=stop,
            stop_ids=tuple(vocabulary[token] for token in benchmark.stop_tokens if token in vocabulary),
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            seed=int(random[:12], 16),
        )

    def generate(
        self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem], second: bool = False
    ) -> None:
        """Generate and store the completions that the store does not have."""
        jobs = {
            job.key: job
            for problem in problems
            for job in (self.job(benchmark, problem, sample, second) for sample in range(benchmark.n))
            if job.key not in self.completions.records
        }
        if not jobs:
            return
        engine = self.engine
        engine.batch_size = request.batch_size or self.batch_size
        started = logged = time.monotonic()
        tokens = 0
        for count, (job, completion) in enumerate(engine.generate(list(jobs.values())), 1):
            self.completions.add({"key": job.key, **asdict(completion)})
            tokens += completion.tokens
            if completion.finish == "prompt_too_long":
                logger.warning(
                    "%s: a prompt of %d tokens is longer than the model's %d: counted as not solved",
                    benchmark.name, len(job.ids), engine.max_length,
                )  # fmt: skip
            if time.monotonic() - logged > PROGRESS_SECONDS or count == len(jobs):
                logged = time.monotonic()
                speed = tokens / max(1e-9, logged - started)
                logger.info("%s: %d/%d completions, %.0f tokens/s", benchmark.name, count, len(jobs), speed)

    def grade(self, benchmark: Benchmark, problems: Sequence[Problem], second: bool = False) -> None:
        """Grade the stored completions of problems with a task."""
        pairs = []
        for problem in problems:
            if problem.task is None:
                continue
            for sample in range(benchmark.n):
                record = self.completions.records[self.job(benchmark, problem, sample, second).key]
                pairs.append((problem, benchmark.assemble(problem, record["text"])))
        if pairs:
            limits = scoring.limits_for(benchmark, self.sandbox.limits())
            scoring.grade(pairs, self.verdicts, sandbox=self.sandbox, limits=limits, hidden=benchmark.hidden)

    def outcome(self, benchmark: Benchmark, problem: Problem, sample: int, second: bool = False) -> Outcome | None:
        """Return the outcome of one sample. None if its completion or verdict is not stored yet."""
        record = self.completions.records.get(self.job(benchmark, problem, sample, second).key)
        if record is None:
            return None
        return scoring.outcome_of(benchmark, problem, sample, record, self.verdicts, self.sandbox.limits())

    def wait_for_outcomes(self, benchmark: Benchmark) -> list[Outcome]:
        """Return all outcomes of a benchmark, once every rank has written its part.

        Raises:
            RuntimeError: nothing was written for `SILENCE_SECONDS`.
        """
        known, last = -1, time.monotonic()
        while True:
            outcomes = self.stored_outcomes(benchmark)
            if outcomes is not None:
                return outcomes
            size = len(self.completions.records) + len(self.verdicts.records)
            if size != known:
                known, last = size, time.monotonic()
            elif time.monotonic() - last > SILENCE_SECONDS:
                raise RuntimeError(
                    f"{benchmark.name}: other ranks have written nothing for {SILENCE_SECONDS // 60} minutes. Check that "
                    f"all {self.world_size} of them run and see {self.out_dir}; a second start resumes here."
                )
            time.sleep(1)
            self.completions.reload()
            self.verdicts.reload()

    def stored_outcomes(self, benchmark: Benchmark) -> list[Outcome] | None:
        """Return all outcomes of a benchmark, or None while some are missing."""
        outcomes: list[Outcome] = []
        for problem in benchmark.problems:
            for sample in range(benchmark.n):
                outcome = self.outcome(benchmark, problem, sample)
                if outcome is None:
                    return None
                if benchmark.retry is not None:
                    second = None
                    if (again := self.second_try(benchmark, problem)) is not None:
                        second = self.outcome(benchmark, again, sample, second=True)
                        if second is None:
                            return None
                    outcome = scoring.outcome_of_two_tries(outcome, second)
                outcomes.append(outcome)
        return outcomes

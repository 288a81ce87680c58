"""Evaluate a checkpoint: generate completions, grade them, and write metrics.

The result folder gets `figures.json` (metrics), `completions.jsonl` (every completion), `verdicts.jsonl` (every program
with its verdict), and `raw/`, from which an interrupted evaluation resumes. Several ranks can share the work. Each rank
takes every `world_size`-th task and writes to `raw/`, which must be on storage that all ranks see. Rank 0 waits for the
other ranks and writes the results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue, scoring, trajectory_runs
from alignment.evaluation.benchmark_request import BenchmarkRequest, parse_request
from alignment.evaluation.engines.protocol import Engine, GenerationJob
from alignment.evaluation.engines.selection import open_engine
from alignment.evaluation.preflight import check_checkpoint
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem
from alignment.evaluation.results import GENERATION_FILE, GenerationCost, write_results
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import Figure, figures
from alignment.evaluation.store import Store, digest, model_fingerprint
from alignment.files import write_json
from alignment.grading import SandboxSettings
from alignment.logs import get_logger
from alignment.models.source import DType, EngineName
from alignment.models.stored_config import is_gguf
from alignment.progress import Progress

logger = get_logger(__name__)

SILENCE_SECONDS = 1800
"""Rank 0 stops with an error if no other rank has written anything for this many seconds."""


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
        model_path: a checkpoint folder, a name on the hub, or a GGUF file.
        benchmarks: requests in any form that `parse_request` takes: `BenchmarkRequest`, mapping, object with the same
            attributes, or a word such as `humaneval`, `fim:held-out.jsonl`, `my_bench.py:Tasks`. Or pairs of a request
            and its loaded benchmark.
        out_dir: the folder for the results. Completions and verdicts in this folder are reused.
        seed: seed of sampling and of bootstrap intervals.
        engine: name of an engine, or an engine with a loaded model.
        batch_size: number of sequences that are generated at the same time; by default as many as fit into memory.
        dtype: number format of the weights; see `alignment.models.precision`.
        sandbox: how programs run; by default on this machine.
        rank: index of this process; by default the environment variable RANK, which Accelerate and torchrun set.
        world_size: number of processes; by default the environment variable WORLD_SIZE.
        preflight: whether to check first that chat template, stop tokens and tokenizer suit the checkpoint.

    Returns:
        The metrics in percent with 95% intervals. The list is empty on ranks other than 0.

    Raises:
        ValueError: a benchmark is unknown, its data is missing, or the checkpoint cannot be measured. The error is
            raised before anything is generated.
    """
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    sandbox = sandbox or SandboxSettings()
    loaded = _load(benchmarks, sandbox)
    if is_gguf(model_path) and isinstance(engine, str):
        engine = open_engine(str(model_path), engine, batch_size)
    if preflight:
        described = getattr(engine, "description", model_path)
        for warning in check_checkpoint(described, {benchmark.mode for _, benchmark in loaded}, _uses_fim(loaded)):
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


def _load(benchmarks: Sequence[Any], sandbox: SandboxSettings) -> list[tuple[BenchmarkRequest, Benchmark]]:
    """Load the benchmarks that are not loaded yet. Raise ValueError if two have the same name."""
    pairs = [
        entry if isinstance(entry, tuple) else (replace(parse_request(entry), sandbox=sandbox), None)
        for entry in benchmarks
    ]
    names = [request.name for request, _ in pairs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two benchmarks are called {sorted(repeated)[0]!r}: give each its own `name`")
    return [(request, benchmark or catalogue.load(request)) for request, benchmark in pairs]


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
    """The engine, or None before it is first needed: if all completions are stored already, no model is loaded."""
    loaded_tokenizer: Any = None
    jobs: dict[tuple[str, str, int, bool], GenerationJob] = field(default_factory=dict)
    """Cached jobs, so that each prompt is encoded once.

    Keys: (benchmark, problem, sample, whether the job is a second try).
    """

    def run(self, loaded: Sequence[tuple[BenchmarkRequest, Benchmark]]) -> list[Figure]:
        """Generate and grade this rank's tasks.

        Rank 0 then waits for the other ranks, and writes and returns the metrics.
        """
        raw = self.out_dir / "raw"
        self.model = model_fingerprint(self.model_path)
        with (
            Store(raw, "completions", self.rank) as self.completions,
            Store(raw, "verdicts", self.rank) as self.verdicts,
            Store(raw, "trajectories", self.rank) as self.trajectories,
        ):
            for request, benchmark in loaded:
                self.measure(request, benchmark, benchmark.problems[self.rank :: self.world_size])
            if self.rank != 0:
                return []
            results = {benchmark.name: self.wait_for_outcomes(benchmark) for _, benchmark in loaded}
        all_figures = [figure for name, outcomes in results.items() for figure in figures(name, outcomes, self.seed)]
        write_results(self.out_dir, all_figures, results, {benchmark.name: benchmark.mode for _, benchmark in loaded})
        costs = {benchmark.name: self.cost(benchmark) for _, benchmark in loaded}
        write_json(self.out_dir / GENERATION_FILE, costs)
        return all_figures

    def cost(self, benchmark: Benchmark) -> GenerationCost:
        """Return what the completions of a benchmark cost. Second tries are not counted."""
        if benchmark.plan is not None:
            return trajectory_runs.cost(self, benchmark)
        records = [
            self.completions.records[self.job(benchmark, problem, sample).key]
            for problem in benchmark.problems
            for sample in range(benchmark.n)
        ]
        # Completions of version 0.1.0 have no time.
        times = [record["seconds"] for record in records if record.get("seconds") is not None]
        return {
            "completions": len(records),
            "cut": sum(record["finish"] == "length" for record in records),
            "tokens": sum(record["tokens"] for record in records),
            "seconds": round(sum(times), 2) if len(times) == len(records) else None,
        }

    def measure(self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        """Generate and grade completions of problems.

        If the benchmark has a second try, generate and grade failed problems again. If it has several turns, run its
        trajectories.
        """
        if benchmark.plan is not None:
            trajectory_runs.measure(self, request, benchmark, problems)
            return
        self.generate(request, benchmark, problems)
        self.grade(benchmark, problems)
        if benchmark.retry is not None:
            retried = [again for problem in problems if (again := self.second_try(benchmark, problem)) is not None]
            self.generate(request, benchmark, retried, second=True)
            self.grade(benchmark, retried, second=True)

    def second_try(self, benchmark: Benchmark, problem: Problem) -> Problem | None:
        """Return the problem with the prompt of the second try, or None if the first try did not fail."""
        assert benchmark.retry is not None
        outcome = self.outcome(benchmark, problem, 0)
        if outcome is None or outcome.status != "failed":
            return None
        return benchmark.retry(problem, outcome.completion, outcome.detail)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, which is loaded without the model."""
        if self.loaded_engine is not None:
            return self.loaded_engine.tokenizer
        if self.loaded_tokenizer is None:
            from transformers import AutoTokenizer

            self.loaded_tokenizer = AutoTokenizer.from_pretrained(self.model_path)
        return self.loaded_tokenizer

    @property
    def engine(self) -> Engine:
        """The engine. The first access loads the model."""
        if self.loaded_engine is None:
            self.loaded_engine = open_engine(self.model_path, self.engine_name, self.batch_size, self.dtype)
        return self.loaded_engine

    def job(self, benchmark: Benchmark, problem: Problem, sample: int, second: bool = False) -> GenerationJob:
        """Return the generation job of one sample, from the cache if possible."""
        place = (benchmark.name, problem.id, sample, second)
        if place not in self.jobs:
            self.jobs[place] = self.new_job(benchmark, problem, sample)
        return self.jobs[place]

    def new_job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        """Create a generation job: encode the prompt, and derive seed and key from everything on which the completion
        depends.
        """
        stop = (*benchmark.stop, *problem.stop)
        ids = problem.prompt.encode(self.tokenizer)
        random = digest("sample", ids, self.seed, sample)
        sampled: tuple[Any, ...] = ()
        if benchmark.temperature > 0:
            sampled = (benchmark.temperature, benchmark.top_p, random)
            sampled += (benchmark.top_k, benchmark.min_p) if benchmark.top_k or benchmark.min_p else ()
        sampled += (("repetition_penalty", benchmark.repetition_penalty),) if benchmark.repetition_penalty != 1 else ()
        vocabulary = self.tokenizer.get_vocab()
        settings = (benchmark.max_new_tokens, stop, benchmark.stop_tokens, sampled)
        source: tuple[str, ...] = (benchmark.source_digest,) if benchmark.source_digest else ()
        # The number format changes completions. float32 adds nothing to the key because it was the default in the past.
        source += (self.dtype,) if self.dtype != "float32" else ()
        return GenerationJob(
            key=digest("completion", self.model, ids, *settings, *source),
            ids=ids,
            max_new_tokens=benchmark.max_new_tokens,
            stop=stop,
            stop_ids=tuple(vocabulary[token] for token in benchmark.stop_tokens if token in vocabulary),
            temperature=benchmark.temperature,
            top_p=benchmark.top_p,
            top_k=benchmark.top_k,
            min_p=benchmark.min_p,
            repetition_penalty=benchmark.repetition_penalty,
            seed=int(random[:12], 16),
        )

    def generate(
        self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem], second: bool = False
    ) -> None:
        """Generate and store the completions of problems that are not in the store yet."""
        places = [(problem, sample) for problem in problems for sample in range(benchmark.n)]
        self.generate_jobs(request, benchmark, [self.job(benchmark, *place, second) for place in places])

    def generate_jobs(self, request: BenchmarkRequest, benchmark: Benchmark, wanted: Sequence[GenerationJob]) -> None:
        """Generate and store the completions of jobs that are not in the store yet."""
        jobs = {job.key: job for job in wanted if job.key not in self.completions.records}
        if not jobs:
            return
        engine = self.engine
        engine.batch_size = request.batch_size or self.batch_size
        progress = Progress(benchmark.name, len(jobs), "completions", amount_unit="tokens")
        before = time.monotonic()
        for job, completion in engine.generate(list(jobs.values())):
            now = time.monotonic()
            # The time since the previous completion: over all completions these times add up to the whole time.
            self.completions.add({"key": job.key, **asdict(completion), "seconds": round(now - before, 4)})
            before = now
            progress.advance(1, completion.tokens)
            if completion.finish == "prompt_too_long":
                logger.warning(
                    "%s: a prompt of %d tokens is longer than the model's %d: counted as not solved",
                    benchmark.name, len(job.ids), engine.max_length,
                )  # fmt: skip
        progress.finish()

    def grade(self, benchmark: Benchmark, problems: Sequence[Problem], second: bool = False) -> None:
        """Grade the stored completions of those problems that have a task."""
        pairs = []
        for problem in problems:
            if problem.task is None:
                continue
            for sample in range(benchmark.n):
                record = self.completions.records[self.job(benchmark, problem, sample, second).key]
                pairs.append((problem, benchmark.assemble(problem, record["text"])))
        if pairs:
            limits = scoring.limits_for(benchmark, self.sandbox.limits())
            scoring.grade(
                pairs,
                self.verdicts,
                sandbox=self.sandbox,
                limits=limits,
                hidden=benchmark.hidden,
                label=f"{benchmark.name}: grading",
            )

    def outcome(self, benchmark: Benchmark, problem: Problem, sample: int, second: bool = False) -> Outcome | None:
        """Return the outcome of one sample, or None if its completion or verdict is not stored yet."""
        if benchmark.plan is not None:
            return trajectory_runs.outcome(self, benchmark, problem, sample)
        record = self.completions.records.get(self.job(benchmark, problem, sample, second).key)
        if record is None:
            return None
        return scoring.outcome_of(benchmark, problem, sample, record, self.verdicts, self.sandbox.limits())

    def wait_for_outcomes(self, benchmark: Benchmark) -> list[Outcome]:
        """Wait until every rank has written its part of a benchmark, and return all outcomes.

        Raises:
            RuntimeError: no rank wrote anything for `SILENCE_SECONDS`.
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
                    f"{benchmark.name}: the other ranks have written nothing for {SILENCE_SECONDS // 60} minutes. "
                    f"Check that all {self.world_size} ranks run and see {self.out_dir}, then start again to resume."
                )
            time.sleep(1)
            for store in (self.completions, self.verdicts, self.trajectories):
                store.reload()

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

"""Run benchmarks on a checkpoint: generate, grade, and write what was found.

In `out_dir`: `figures.json`, `completions.jsonl` (every raw completion), `verdicts.jsonl` (every program with its
verdict), and `raw/`, from which an interrupted run goes on. Several ranks share the work through `raw/`, which they
must all see; each takes every `world_size`-th task, and rank 0 waits for the others and writes the results.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue, scoring
from alignment.evaluation.benchmark_request import BenchmarkRequest, parse_request
from alignment.evaluation.engines.protocol import Engine, GenerationJob
from alignment.evaluation.engines.selection import EngineName, open_engine
from alignment.evaluation.preflight import check_checkpoint
from alignment.evaluation.problem import Benchmark, Problem
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import Figure, figures
from alignment.evaluation.store import Store, digest, model_fingerprint, write_jsonl
from alignment.grading import SandboxSettings
from alignment.models.precision import DtypeSetting

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 1800
"""How long rank 0 waits for another rank that writes nothing."""


def evaluate(
    model_path: str | Path,
    benchmarks: Sequence[Any],
    out_dir: str | Path,
    *,
    seed: int = 0,
    engine: EngineName | Engine = "auto",
    batch_size: int | None = None,
    dtype: DtypeSetting = "auto",
    sandbox: SandboxSettings | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    preflight: bool = True,
    progress: Callable[[str], None] | None = None,
) -> list[Figure]:
    """Figures `{benchmark, metric, value, n, low, high, seed, errors}` of a checkpoint, in percent, 95% intervals.

    `benchmarks` are `Request`s, mappings or objects with the same fields, or words such as `humaneval` and
    `fim:held-out.jsonl`. `rank` and `world_size` default to what Accelerate and torchrun set; ranks other than 0
    return no figures. `sandbox` says how programs run; by default on this machine. ValueError for a wrong name, missing data or a
    checkpoint that can't be measured, before anything long begins.
    """
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    world_size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    sandbox = sandbox or SandboxSettings()
    requests = [replace(parse_request(entry), sandbox=sandbox) for entry in benchmarks]
    twice = {request.name for request in requests if [other.name for other in requests].count(request.name) > 1}
    if twice:
        raise ValueError(f"two benchmarks are called {sorted(twice)[0]!r}: give each its own `name`")
    loaded = [(request, catalogue.load(request)) for request in requests]
    if preflight:
        for warning in check_checkpoint(model_path, {benchmark.mode for _, benchmark in loaded}, _uses_fim(loaded)):
            logger.warning("%s", warning)
    scoring.check_tools([benchmark for _, benchmark in loaded], sandbox)
    run = _Run(
        model_path=str(model_path),
        out_dir=Path(out_dir),
        seed=seed,
        engine_name=engine if isinstance(engine, str) else "auto",
        batch_size=batch_size,
        dtype=dtype,
        sandbox=sandbox,
        rank=rank,
        world_size=world_size,
        say=progress or logger.info,
    )
    if not isinstance(engine, str):  # one that is loaded already, of a kind that only the caller knows
        run._engine, run._tokenizer = engine, engine.tokenizer
    return run.all(loaded)


def _uses_fim(loaded: Sequence[tuple[BenchmarkRequest, Benchmark]]) -> bool:
    from alignment.evaluation.problem import FimPrompt

    return any(isinstance(benchmark.problems[0].prompt, FimPrompt) for _, benchmark in loaded if benchmark.problems)


@dataclass
class _Run:
    model_path: str
    out_dir: Path
    seed: int
    engine_name: EngineName
    batch_size: int | None
    dtype: DtypeSetting
    sandbox: SandboxSettings
    rank: int
    world_size: int
    say: Callable[[str], None]
    _engine: Engine | None = None
    _tokenizer: Any = None
    _jobs: dict[tuple[str, int, int], tuple[Problem, GenerationJob]] = field(default_factory=dict)

    def all(self, loaded: Sequence[tuple[BenchmarkRequest, Benchmark]]) -> list[Figure]:
        raw = self.out_dir / "raw"
        self.model = model_fingerprint(self.model_path)
        with (
            Store(raw, "completions", self.rank) as self.completions,
            Store(raw, "verdicts", self.rank) as self.verdicts,
        ):
            for request, benchmark in loaded:
                self.share(request, benchmark, benchmark.problems[self.rank :: self.world_size])
            if self.rank != 0:
                return []
            results = [(benchmark, self.wait(request, benchmark)) for request, benchmark in loaded]
        found = [figure for benchmark, outcomes in results for figure in figures(benchmark.name, outcomes, self.seed)]
        modes = {benchmark.name: benchmark.mode for benchmark, _ in results}
        write_results(self.out_dir, found, {benchmark.name: outcomes for benchmark, outcomes in results}, modes)
        return found

    def share(self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        """Generate and grade this rank's part, and, where a benchmark gives one, the second try."""
        self.generate(request, benchmark, problems)
        self.grade(benchmark, problems)
        if benchmark.retry is not None:
            again = self.second_tries(benchmark, problems)
            self.generate(request, benchmark, again)
            self.grade(benchmark, again)

    def second_tries(self, benchmark: Benchmark, problems: Sequence[Problem]) -> list[Problem]:
        assert benchmark.retry is not None
        first = [(problem, self.outcome(benchmark, problem, 0)) for problem in problems]
        return [
            benchmark.retry(problem, outcome.completion, outcome.detail)
            for problem, outcome in first
            if outcome is not None and outcome.status == "failed"
        ]

    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self.model_path)
        return self._tokenizer

    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = open_engine(self.model_path, self.engine_name, self.batch_size, self.dtype)
        return self._engine

    def job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        """The job of one sample, made once; the problem is kept with it so that its `id()` stays its own."""
        place = (benchmark.name, id(problem), sample)
        if place not in self._jobs:
            self._jobs[place] = (problem, self.new_job(benchmark, problem, sample))
        return self._jobs[place][1]

    def new_job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        stop = (*benchmark.stop, *problem.stop)
        ids = problem.prompt.encode(self.tokenizer())
        random = digest("sample", ids, self.seed, sample)
        sampled = (benchmark.temperature, benchmark.top_p, random) if benchmark.temperature > 0 else ()
        vocabulary = self.tokenizer().get_vocab()
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

    def generate(self, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        jobs = {
            job.key: job
            for problem in problems
            for job in (self.job(benchmark, problem, sample) for sample in range(benchmark.n))
            if job.key not in self.completions.records
        }
        if not jobs:
            return
        engine = self.engine()
        engine.batch_size = request.batch_size or self.batch_size
        started, said, tokens = time.monotonic(), time.monotonic(), 0
        for count, (job, completion) in enumerate(engine.generate(list(jobs.values())), 1):
            self.completions.add({"key": job.key, **asdict(completion)})
            tokens += completion.tokens
            if completion.finish == "prompt_too_long":
                logger.warning(
                    "%s: a prompt of %d tokens is longer than the model's %d: counted as not solved",
                    benchmark.name, len(job.ids), engine.max_length,
                )  # fmt: skip
            if time.monotonic() - said > 15 or count == len(jobs):
                said = time.monotonic()
                speed = tokens / max(1e-9, said - started)
                self.say(f"{benchmark.name}: {count}/{len(jobs)} completions, {speed:.0f} tokens/s")

    def grade(self, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        pairs = []
        for problem in problems:
            if problem.task is None:
                continue
            for sample in range(benchmark.n):
                record = self.completions.records[self.job(benchmark, problem, sample).key]
                pairs.append((problem, benchmark.assemble(problem, record["text"])))
        if pairs:
            limits = scoring.limits_for(benchmark, self.sandbox.limits())
            scoring.grade(pairs, self.verdicts, sandbox=self.sandbox, limits=limits, hidden=benchmark.hidden)

    def outcome(self, benchmark: Benchmark, problem: Problem, sample: int) -> Outcome | None:
        record = self.completions.records.get(self.job(benchmark, problem, sample).key)
        if record is None:
            return None
        return scoring.judged(benchmark, problem, sample, record, self.verdicts, self.sandbox.limits())

    def wait(self, request: BenchmarkRequest, benchmark: Benchmark) -> list[Outcome]:
        """All outcomes of a benchmark, once every rank has written its part."""
        known, last = -1, time.monotonic()
        while True:
            outcomes = self.collect(benchmark)
            if outcomes is not None:
                return outcomes
            size = len(self.completions.records) + len(self.verdicts.records)
            if size != known:
                known, last = size, time.monotonic()
            elif time.monotonic() - last > SILENCE_SECONDS:
                raise RuntimeError(
                    f"{benchmark.name}: other ranks have written nothing for {SILENCE_SECONDS // 60} minutes; do all "
                    f"of {self.world_size} run, and do they see {self.out_dir}? A second start goes on from here."
                )
            time.sleep(1)
            self.completions.reload()
            self.verdicts.reload()

    def collect(self, benchmark: Benchmark) -> list[Outcome] | None:
        outcomes: list[Outcome] = []
        for problem in benchmark.problems:
            for sample in range(benchmark.n):
                outcome = self.outcome(benchmark, problem, sample)
                if outcome is None:
                    return None
                if benchmark.retry is not None:
                    second = None
                    if outcome.status == "failed":
                        retried = benchmark.retry(problem, outcome.completion, outcome.detail)
                        second = self.outcome(benchmark, retried, sample)
                        if second is None:
                            return None
                    outcome = scoring.two_tries(outcome, second)
                outcomes.append(outcome)
        return outcomes


def write_results(
    out_dir: Path, found: list[Figure], results: dict[str, list[Outcome]], modes: Mapping[str, str]
) -> None:
    """Write `completions.jsonl`, `verdicts.jsonl`, and `figures.json` last."""
    completions, verdicts = [], []
    for name, outcomes in results.items():
        for outcome in outcomes:
            place = {"benchmark": name, "task_id": outcome.task_id, "sample": outcome.sample}
            completions.append(
                place
                | {
                    "mode": modes[name],
                    "completion": outcome.completion,
                    "finish": outcome.finish,
                    "tokens": outcome.tokens,
                }
            )
            verdicts.append(
                place
                | {
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "detail": outcome.detail,
                    "scores": outcome.scores,
                    "answer": outcome.answer,
                }
            )
    write_jsonl(out_dir / "completions.jsonl", completions)
    write_jsonl(out_dir / "verdicts.jsonl", verdicts)
    partial = out_dir / "figures.json.partial"
    partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    partial.replace(out_dir / "figures.json")

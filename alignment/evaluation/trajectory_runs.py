"""Run, store and grade the trajectories of a benchmark with several turns, as a part of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from alignment.evaluation import scoring
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.engines.protocol import GenerationJob
from alignment.evaluation.problem import Benchmark, Problem, Row, unchanged
from alignment.evaluation.results import GenerationCost
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.store import Store, digest
from alignment.evaluation.trajectories import GROUP, outcome_of_trajectory, play
from alignment.grading import SandboxSettings, open_grader


class EvaluationRun(Protocol):
    """The parts of `runner.evaluate`'s run that trajectories need."""

    completions: Store
    verdicts: Store
    trajectories: Store
    sandbox: SandboxSettings

    def job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        """Return the job of the first answer."""
        ...

    def new_job(self, benchmark: Benchmark, problem: Problem, sample: int) -> GenerationJob:
        """Return the job of an answer to `problem.prompt`."""
        ...

    def generate_jobs(self, request: BenchmarkRequest, benchmark: Benchmark, wanted: Sequence[GenerationJob]) -> None:
        """Generate and store the completions of jobs."""
        ...


def _key(run: EvaluationRun, benchmark: Benchmark, problem: Problem, sample: int) -> str:
    """Return the key of a trajectory: a hash of everything that can change it."""
    assert benchmark.plan is not None
    first, plan = run.job(benchmark, problem, sample).key, benchmark.plan
    return digest("trajectory", first, plan.turns, plan.version, problem.row, scoring.grader_version())


def measure(run: EvaluationRun, request: BenchmarkRequest, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
    """Run and store the trajectories that are not in the store yet, and grade the program after each turn."""
    places = [(problem, sample) for problem in problems for sample in range(benchmark.n)]
    keys = [_key(run, benchmark, *place) for place in places]
    missing = [pair for pair in zip(places, keys, strict=True) if pair[1] not in run.trajectories.records]

    def answers(pairs: Sequence[tuple[Problem, int]]) -> list[Row]:
        jobs = [run.new_job(benchmark, problem, sample) for problem, sample in pairs]
        run.generate_jobs(request, benchmark, jobs)
        return [run.completions.records[job.key] for job in jobs]

    limits = scoring.limits_for(benchmark, run.sandbox.limits())
    with open_grader(run.sandbox, limits=limits) as grader:
        for start in range(0, len(missing), GROUP):
            group = missing[start : start + GROUP]
            played = play(benchmark, [place for place, _ in group], answers, grader)
            for trajectory, (_, key) in zip(played, group, strict=True):
                run.trajectories.add(trajectory.record(key))
    pairs = [
        (problem, turn["program"])
        for (problem, _), key in zip(places, keys, strict=True)
        for turn in run.trajectories.records[key]["turns"]
    ]
    scoring.grade(pairs, run.verdicts, sandbox=run.sandbox, limits=limits, label=f"{benchmark.name}: hidden tests")


def outcome(run: EvaluationRun, benchmark: Benchmark, problem: Problem, sample: int) -> Outcome | None:
    """Return the outcome of one trajectory, or None if it or one of its verdicts is not stored yet."""
    record = run.trajectories.records.get(_key(run, benchmark, problem, sample))
    if record is None:
        return None
    plain = replace(benchmark, assemble=unchanged, score=None, stop_rate=False)
    limits = run.sandbox.limits()
    verdicts: list[Outcome] = []
    for turn in record["turns"]:
        program = turn | {"text": turn["program"]}
        verdict = scoring.outcome_of(plain, problem, sample, program, run.verdicts, limits)
        if verdict is None:
            return None
        verdicts.append(verdict)
    assert benchmark.plan is not None
    return outcome_of_trajectory(problem, sample, record, verdicts, benchmark.plan.turns)


def cost(run: EvaluationRun, benchmark: Benchmark) -> GenerationCost:
    """Return what the answers of all trajectories of a benchmark cost, and how many calls they have."""
    turns = [
        turn
        for problem in benchmark.problems
        for sample in range(benchmark.n)
        for turn in run.trajectories.records[_key(run, benchmark, problem, sample)]["turns"]
    ]
    return {
        "completions": len(turns), "cut": sum(turn["finish"] == "length" for turn in turns),
        "tokens": sum(turn["tokens"] for turn in turns), "seconds": None,
        "calls": sum(turn["calls"] for turn in turns),
        "invalid_calls": sum(turn["invalid_calls"] for turn in turns),
    }  # fmt: skip

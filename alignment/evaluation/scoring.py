"""Compute verdicts and scores of completions. Only `alignment.grading` runs and grades programs."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from alignment.evaluation.problem import Benchmark, Problem, Row
from alignment.evaluation.store import Store, digest
from alignment.grading import Limits, SandboxSettings, open_grader
from alignment.grading.task import tier_of
from alignment.logs import get_logger
from alignment.progress import Progress
from alignment.sandbox import SandboxUnavailable, toolchains

logger = get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A completion with its verdict and scores."""

    task_id: str
    sample: int
    """Index of this sample among the samples of its task, from 0."""
    completion: str
    finish: str
    """Why generation ended; empty for completions that were generated elsewhere."""
    tokens: int
    answer: str
    """The program that ran, or the text that was compared."""
    status: str
    """`passed`, `failed` or `error`. `error` is an infrastructure error; the completion then counts in no metric."""
    reason: str
    detail: str
    scores: dict[str, float]
    """Name of a score -> its value from 0 to 1."""
    tries: int = 1
    forgeable: bool = False
    """Whether the tests ran in the process of the program, so that the program could forge the verdict."""


@cache
def grader_version() -> str:
    """Return a hash of the grading code. Verdicts of another version are not reused."""
    hasher = hashlib.sha256()
    for package in ("alignment.grading", "alignment.sandbox"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


def limits_for(benchmark: Benchmark, limits: Limits) -> Limits:
    """Return the given limits, each raised to the value that the benchmark needs."""
    return limits.at_least(**benchmark.least_limits)


def verdict_key(problem: Problem, program: str, limits: Limits, hidden: Sequence[str] = ()) -> str:
    """Return the key of a verdict in the store: a hash of everything that can change the verdict."""
    return digest("verdict", grader_version(), problem.task_digest, program, repr(limits), list(hidden))


def grade(
    pairs: Sequence[tuple[Problem, str]],
    store: Store,
    *,
    sandbox: SandboxSettings,
    limits: Limits,
    hidden: Sequence[str] = (),
    label: str = "grading",
) -> None:
    """Grade the programs that have no verdict (result of the tests) in the store yet, and store their verdicts.

    Equal pairs are graded once.

    Args:
        pairs: problems that have a task, each with a program.
        store: the store of verdicts. Each verdict is stored at once, so an interrupted run loses only running programs.
        sandbox: how programs run.
        limits: limits of one program.
        hidden: files that programs must not see.
        label: name of the work in progress messages.
    """
    missing: dict[str, tuple[Row, str]] = {}
    for problem, program in pairs:
        assert problem.task is not None
        key = verdict_key(problem, program, limits, hidden)
        known = store.records.get(key)
        if known is None or (known["status"] == "error" and not known.get("fresh")):
            missing[key] = (problem.task, program)
    if not missing:
        return
    with open_grader(sandbox, limits=limits, hidden=hidden) as grader:
        keys = {grader.submit(task, program): key for key, (task, program) in missing.items()}
        progress = Progress(label, len(keys), "programs")
        for future in as_completed(keys):
            verdict = future.result()
            store.add(
                {
                    "key": keys[future],
                    "status": verdict.status,
                    "reason": verdict.reason or "",
                    "detail": verdict.detail or "",
                    "fraction": verdict.fraction,
                    "cpu_seconds": round(verdict.cpu_seconds, 3),
                }
            )
            store.records[keys[future]]["fresh"] = True  # only errors of earlier runs are graded again
            progress.advance()
        progress.finish()


def check_tools(benchmarks: Sequence[Benchmark], sandbox: SandboxSettings) -> None:
    """Check that the toolchains and test frameworks of the benchmarks' languages are installed.

    Without them every program would fail, or count as an error, after a long generation. If only some languages of a
    benchmark can't run, a warning is logged.

    Raises:
        ValueError: no language of a benchmark can run, a test framework is missing, or the grading service does not
            answer. The message says what to do.
    """
    if sandbox.address and any(problem.task for benchmark in benchmarks for problem in benchmark.problems):
        with open_grader(sandbox) as grader:
            try:
                grader.check()
            except SandboxUnavailable as problem:
                raise ValueError(str(problem)) from None
    for benchmark in benchmarks:
        languages = {str(problem.task.get("language") or "python") for problem in benchmark.problems if problem.task}
        missing: dict[str, str] = {}
        for language in sorted(languages):
            name = toolchains.language_of(language).name
            if name == "python" or sandbox.address:
                continue
            try:
                toolchains.toolchain(name)
            except toolchains.NoToolchain as problem:
                missing[name] = str(problem)
        if missing and len(missing) == len(languages):
            raise ValueError(f"{benchmark.name}: {'; '.join(missing.values())}")
        for text in missing.values():
            logger.warning("%s: %s; tasks in this language count as errors and enter no score", benchmark.name, text)
        if benchmark.needs is not None:
            program, install = benchmark.needs
            task = {"kind": "program", "language": next(iter(languages)), "tests": "{}", "entry_point": None}
            with open_grader(sandbox, workers=1, limits=limits_for(benchmark, sandbox.limits())) as grader:
                (verdict,) = grader.grade_many([(task, program)])
            if verdict.status == "failed":
                raise ValueError(f"{benchmark.name}: {install} ({verdict.detail[:200]})")


def outcome_of(
    benchmark: Benchmark, problem: Problem, sample: int, record: Row, verdicts: Store, limits: Limits
) -> Outcome | None:
    """Return the outcome of one completion, or None if its program is not graded yet.

    Args:
        benchmark: the benchmark, whose `assemble` and `score` apply.
        problem: the problem of the completion.
        sample: index of the sample among the samples of its task.
        record: the stored completion: `text`, `finish` and `tokens`.
        verdicts: the store of verdicts.
        limits: limits of the sandbox settings with which the program was graded.
    """
    answer = benchmark.assemble(problem, record["text"])
    status, reason, detail = "", "", ""
    scores: dict[str, float] = {}
    if problem.task is not None:
        limits = limits_for(benchmark, limits)
        verdict = verdicts.records.get(verdict_key(problem, answer, limits, benchmark.hidden))
        if verdict is None:
            return None
        status, reason, detail = verdict["status"], verdict["reason"], verdict["detail"]
        if status != "error":
            scores["pass"] = float(status == "passed")
    if benchmark.score is not None:
        scores |= benchmark.score(problem, answer if problem.task is None else record["text"])
        if not status:
            status = "passed" if next(iter(scores.values())) == 1.0 else "failed"
    if benchmark.stop_rate and record["finish"] and status != "error":
        scores["stop_rate"] = float(record["finish"] == "stop")
    return Outcome(
        task_id=problem.cluster or problem.id,
        sample=sample + problem.part * benchmark.n,
        completion=record["text"],
        finish=record["finish"],
        tokens=record["tokens"],
        answer=answer,
        status=status,
        reason=reason,
        detail=detail,
        scores=scores,
        forgeable=problem.task is not None and tier_of(problem.task) == "B",
    )


def outcome_of_two_tries(first: Outcome, second: Outcome | None) -> Outcome:
    """Combine the outcomes of two tries: the score `pass_rate_1` counts the first try, `pass_rate_2` both tries.

    Args:
        first: outcome of the first try.
        second: outcome of the second try, or None if the first try did not fail.
    """
    last = second or first
    if last.status == "error":
        return replace(last, scores={}, tries=2 if second else 1)
    scores = {"pass_rate_1": float(first.status == "passed"), "pass_rate_2": float(last.status == "passed")}
    return replace(last, scores=scores, tries=2 if second else 1)

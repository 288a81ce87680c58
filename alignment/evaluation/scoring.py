"""From completions to verdicts and scores. Programs are graded by `alignment.grading` alone."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from alignment.evaluation.problem import Benchmark, Problem, Row
from alignment.evaluation.store import Store, digest
from alignment.grading import Limits, SandboxSettings, open_grader
from alignment.sandbox import toolchains

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """One completion, judged. `status` is `passed`, `failed` or `error` (infrastructure: counted nowhere)."""

    task_id: str
    sample: int
    completion: str
    finish: str
    tokens: int
    answer: str
    """The program that ran, or the text that was compared."""
    status: str
    reason: str
    detail: str
    scores: dict[str, float]
    tries: int = 1


@cache
def grader_version() -> str:
    """A hash of the code that grades: a changed grader asks anew."""
    hasher = hashlib.sha256()
    for package in ("alignment.grading", "alignment.sandbox"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


def limits_for(benchmark: Benchmark, limits: Limits) -> Limits:
    """The limits asked for, raised to what the benchmark needs."""
    return limits.at_least(**benchmark.least_limits)


def verdict_key(problem: Problem, program: str, limits: Limits, hidden: Sequence[str] = ()) -> str:
    """The key of a verdict in the store: a hash of everything that can change it."""
    return digest("verdict", grader_version(), problem.task_digest, program, repr(limits), list(hidden))


def grade(
    pairs: Sequence[tuple[Problem, str]],
    store: Store,
    *,
    sandbox: SandboxSettings,
    limits: Limits,
    hidden: Sequence[str] = (),
) -> None:
    """Grade programs whose verdict the store does not have, each distinct (task, program) once, and store the verdicts.

    Args:
        pairs: problems with a task, and programs.
        store: gets each verdict as soon as it is there, so an interrupted run loses only what was running.
        sandbox: how programs run.
        limits: of one program.
        hidden: files that the programs must not see.
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
            store.records[keys[future]]["fresh"] = True


def check_tools(benchmarks: Sequence[Benchmark], sandbox: SandboxSettings) -> None:
    """Raise ValueError where a benchmark's programs can't run on this machine; warn where some of its languages can't.

    Without its toolchain or test framework every program would fail, or be an error, after a long run.
    """
    for benchmark in benchmarks:
        spoken = {str(problem.task.get("language") or "python") for problem in benchmark.problems if problem.task}
        missing: dict[str, str] = {}
        for language in sorted(spoken):
            name = toolchains.language_of(language).name
            if name == "python" or sandbox.address:
                continue
            try:
                toolchains.toolchain(name)
            except toolchains.NoToolchain as problem:
                missing[name] = str(problem)
        if missing and len(missing) == len(spoken):
            raise ValueError(f"{benchmark.name}: {'; '.join(missing.values())}")
        for text in missing.values():
            logger.warning("%s: %s; until then its tasks are errors, and in no score", benchmark.name, text)
        if benchmark.needs is not None:
            program, install = benchmark.needs
            task = {"kind": "program", "language": next(iter(spoken)), "tests": "{}", "entry_point": None}
            with open_grader(sandbox, workers=1, limits=limits_for(benchmark, sandbox.limits())) as grader:
                (verdict,) = grader.grade_many([(task, program)])
            if verdict.status == "failed":
                raise ValueError(f"{benchmark.name}: {install} ({verdict.detail[:200]})")


def judged(
    benchmark: Benchmark, problem: Problem, sample: int, record: Row, verdicts: Store, limits: Limits
) -> Outcome | None:
    """The outcome of one raw completion, or None while its program waits to be graded."""
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
    return Outcome(
        task_id=problem.id,
        sample=sample,
        completion=record["text"],
        finish=record["finish"],
        tokens=record["tokens"],
        answer=answer,
        status=status,
        reason=reason,
        detail=detail,
        scores=scores,
    )


def two_tries(first: Outcome, second: Outcome | None) -> Outcome:
    """One outcome of a benchmark that shows the failed tests and asks again: pass rates after one and two tries."""
    last = second or first
    if last.status == "error":
        return replace(last, scores={}, tries=2 if second else 1)
    scores = {"pass_rate_1": float(first.status == "passed"), "pass_rate_2": float(last.status == "passed")}
    return replace(last, scores=scores, tries=2 if second else 1)

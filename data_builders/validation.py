"""Which functions make good tasks: the original passes, three times; the masked body fails; most mutants are noticed."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.grading import Grader, Limits, Verdict
from data_builders.coverage_map import CoverageMap
from data_builders.mutants import indented, mutants, trivial_bodies
from data_builders.suite import Prepared
from data_builders.targets import MASK, Function

REPEATS = 3
LIMITS = Limits(cpu_seconds=5, wall_seconds=5)


@dataclass(frozen=True)
class TaskSettings:
    """What a function needs to become a task."""

    min_tests: int = 2
    """Covering tests, at least."""
    max_tests: int = 40
    """Of many covering tests so many are drawn."""
    mutants: int = 6
    min_mutation_score: float = 0.5
    """Share of the mutants, and of answers without thought, that the tests must notice."""
    hidden_share: float = 0.5
    """Of the tests that fail for a masked body; at least one is hidden."""
    max_body_characters: int = 4000
    forgeable_share: float = 0.3
    """Of the rows, those at most that are graded with tests and candidate in one process (tier B)."""

    def __post_init__(self) -> None:
        for name in ("min_mutation_score", "hidden_share", "forgeable_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {getattr(self, name)}")
        if self.min_tests < 1 or self.max_tests < self.min_tests:
            raise ValueError("min_tests must be at least 1, and max_tests at least as many")


@dataclass
class Candidate:
    """A function on its way to become a task."""

    function: Function
    covering: list[str]
    copies: list[str] = field(default_factory=list)
    tier: str = ""
    tests: list[str] = field(default_factory=list)
    """Those that pass with the original and fail without it."""
    score: float = 0.0
    cpu: list[float] = field(default_factory=list)
    dropped: str = ""

    def row(self, prepared: Prepared, names: Sequence[str], tier: str) -> dict[str, Any]:
        """A task to grade with, all tests hidden."""
        tests = {"suite": prepared.id, "tier": tier, "target": self.function.target(), "visible": [], "hidden": list(names),
                 "copies": self.copies}  # fmt: skip
        return {
            "language": "python",
            "kind": "pytest",
            "entry_point": self.function.qualname,
            "tests": json.dumps(tests),
        }


def validate(
    prepared: Prepared, coverage: CoverageMap, chosen: Sequence[Function], settings: TaskSettings, *, workers: int = 1,
    limits: Limits = LIMITS,
) -> list[Candidate]:  # fmt: skip
    """Judge functions; those with `dropped` can't become tasks, and say why."""
    candidates = [_candidate(prepared, coverage, function, settings) for function in chosen]
    waiting = [item for item in candidates if not item.dropped]
    with Grader(workers, limits) as grader:
        for tier in ("A", "B"):
            tried = [item for item in waiting if tier == "B" or item.function.plain]
            _try(prepared, tried, tier, settings, grader)
            waiting = [item for item in waiting if not item.tier]
    return candidates


def _candidate(prepared: Prepared, coverage: CoverageMap, function: Function, settings: TaskSettings) -> Candidate:
    item = Candidate(function, coverage.of(function))
    if function.problem:
        item.dropped = function.problem
    elif not item.covering:
        item.dropped = "not_covered"
    elif len(item.covering) < settings.min_tests:
        item.dropped = "too_few_tests"
    elif function.end - function.start > settings.max_body_characters:
        item.dropped = "body_too_long"
    else:
        if len(item.covering) > settings.max_tests:
            drawn = random.Random(f"{function.file}:{function.qualname}").sample(
                range(len(item.covering)), settings.max_tests
            )
            item.covering = [item.covering[place] for place in sorted(drawn)]
        item.copies = copies(prepared.texts, function)
    return item


def copies(texts: dict[str, str], function: Function) -> list[str]:
    """Other files that hold the same body: they are hidden with it."""
    body = flat(texts[function.file][function.start : function.end])
    if body.count("\n") < 2:
        return []
    return [path for path, text in texts.items() if path != function.file and body in flat(text)]


def flat(text: str) -> str:
    """Lines without indentation, comments of their own and blank lines: what two copies of code share."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def original(prepared: Prepared, function: Function) -> str:
    """The body as the file has it; one on the line of its ``def`` moves to a line of its own."""
    text = prepared.texts[function.file][function.start : function.end]
    return text if text[:1] in (" ", "\t", "\n", "#") else indented(text)


def _try(prepared: Prepared, tried: list[Candidate], tier: str, settings: TaskSettings, grader: Grader) -> None:
    """Give the tier to those that are valid in it."""
    restored = _grade(prepared, tried, [item.covering for item in tried], tier, grader, original)
    passing = [with_result(item.covering, verdict, True) for item, verdict in zip(tried, restored, strict=True)]
    masked = _grade(prepared, tried, passing, tier, grader, lambda *_: indented(MASK))
    left: list[tuple[Candidate, list[str]]] = []
    for item, first, green, verdict in zip(tried, restored, passing, masked, strict=True):
        failing = with_result(green, verdict, False)
        if first.status == "error":
            item.dropped = f"not_graded: {first.reason}"
        elif not green:
            item.dropped = f"original_fails: {first.reason}" if tier == "B" else "original_fails"
        elif verdict.status == "error":
            item.dropped = f"not_graded: {verdict.reason}"
        elif not failing:
            item.dropped = "passes_when_masked"
        else:
            left.append((item, failing))
    for _ in range(REPEATS - 1):
        again = _grade(prepared, [item for item, _ in left], [names for _, names in left], tier, grader, original)
        for (item, _), verdict in zip(left, again, strict=True):
            item.cpu.append(verdict.cpu_seconds)
            if verdict.status != "passed":
                item.dropped = "unstable"
        left = [(item, names) for (item, names), verdict in zip(left, again, strict=True) if verdict.status == "passed"]
    _score(prepared, left, tier, settings, grader)


def _score(
    prepared: Prepared, left: list[tuple[Candidate, list[str]]], tier: str, settings: TaskSettings, grader: Grader
) -> None:
    bodies = [
        [*mutants(item.function, settings.mutants), *trivial_bodies(item.function)] if settings.mutants else []
        for item, _ in left
    ]
    jobs = [
        (item.row(prepared, names, tier), body)
        for (item, names), texts in zip(left, bodies, strict=True)
        for body in texts
    ]
    verdicts = iter(grader.grade_many(jobs))
    for (item, names), texts in zip(left, bodies, strict=True):
        noticed = [next(verdicts).status == "failed" for _ in texts]
        item.score = statistics.mean(noticed) if noticed else 1.0
        if item.score < settings.min_mutation_score:
            item.dropped = "weak_tests"
        else:
            item.tier, item.tests, item.dropped = tier, names, ""


def _grade(
    prepared: Prepared, items: Sequence[Candidate], names: Sequence[Sequence[str]], tier: str, grader: Grader, body: Any
) -> list[Verdict]:
    """One verdict per candidate; without tests a failed one."""
    jobs = [
        (item.row(prepared, tests, tier), body(prepared, item.function))
        for item, tests in zip(items, names, strict=True) if tests
    ]  # fmt: skip
    verdicts = iter(grader.grade_many(jobs))
    return [next(verdicts) if tests else Verdict("failed", "no_tests") for tests in names]


def with_result(names: Sequence[str], verdict: Verdict, passed: bool) -> list[str]:
    """Those of a verdict's tests that passed, or that did not; none where it has no word on each."""
    if len(verdict.tests) != len(names):
        return []
    return [name for name, result in zip(names, verdict.tests, strict=True) if result.passed == passed]


def split(function: Function, names: Sequence[str], hidden_share: float) -> tuple[list[str], list[str]]:
    """(visible, hidden) tests; the parameters of one test stay together where there are several tests."""
    return split_names(f"{function.file}:{function.qualname}", names, hidden_share)


def split_names(key: str, names: Sequence[str], hidden_share: float) -> tuple[list[str], list[str]]:
    """The same for a function that `key` names."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("[")[0], []).append(name)
    if len(groups) == 1:
        groups = {name: [name] for name in names}
    order = sorted(groups)
    random.Random(f"hide:{key}").shuffle(order)
    count = min(len(order), max(1, round(hidden_share * len(order))))
    hidden = {name for group in order[:count] for name in groups[group]}
    return [name for name in names if name not in hidden], [name for name in names if name in hidden]


def account(candidates: Iterable[Candidate]) -> dict[str, Any]:
    """What became of the functions."""
    items = list(candidates)
    covered = [item for item in items if len(item.covering) >= 2]
    valid = [item for item in items if item.tier]
    cpu = [seconds for item in valid for seconds in item.cpu[-2:]]
    return {
        "functions": len(items), "covered_by_two": len(covered), "valid": len(valid),
        "tier_a": sum(item.tier == "A" for item in valid), "tier_b": sum(item.tier == "B" for item in valid),
        "median_cpu_ms": round(1000 * statistics.median(cpu), 1) if cpu else 0.0,
        "dropped": dict(sorted(Counter(item.dropped for item in items if item.dropped).items())),
        "dropped_of_covered": dict(sorted(Counter(item.dropped for item in covered if item.dropped).items())),
    }  # fmt: skip

"""Which functions make good tasks: the original passes, three times; the masked body fails; most mutants are noticed.

One procedure for every language: a language gives its functions, the tests that call them, and what is graded in a
function's place (`TaskValidator`).
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, Self, TypeVar

from pydantic import model_validator

from alignment.grading import Grader, Limits, SandboxSettings, Verdict
from alignment.settings import Count, Positive, Settings, Share
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.cleaning.secrets import redact

REPEATS = 3


class TaskSettings(Settings):
    """What a function needs to become a task."""

    min_tests: Positive = 2
    """Tests that call the function, at least."""
    max_tests: Positive = 40
    """Use at most this many covering tests per function, drawn at random."""
    max_messages: Positive = 5000
    """Calls from the tests to the function (which runs in a process of its own) in one grading, at most. A test with more
    calls is left out; if all tests together have more, the busiest are left out as long as `min_tests` remain."""
    mutants: Count = 6
    """Mutants of the function that its tests are tried on."""
    min_mutation_score: Share = 0.5
    """Share of the mutants and of trivial bodies that the tests must fail."""
    hidden_share: Share = 0.5
    """Share of the tests that are hidden from the prompt; at least one is."""
    max_body_characters: Count = 4000
    """Length of the function's body, at most."""
    forgeable_share: Share = 0.3
    """Rows of tier B, at most: their tests run in the same process as the candidate, which could forge the result."""

    @model_validator(mode="after")
    def _check_tests(self) -> Self:
        if self.max_tests < self.min_tests:
            raise ValueError("max_tests must be at least min_tests")
        return self


class Maskable(Protocol):
    """A function of any language, as far as validation looks at it."""

    @property
    def file(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def plain(self) -> bool: ...
    def target(self) -> dict[str, Any]: ...


F = TypeVar("F", bound=Maskable)


@dataclass
class Candidate(Generic[F]):
    """A function on its way to become a task."""

    function: F
    covering: list[str]
    copies: list[str] = field(default_factory=list)
    tier: str = ""
    tests: list[str] = field(default_factory=list)
    """Those that pass with the original and fail without it."""
    score: float = 0.0
    cpu: list[float] = field(default_factory=list)
    dropped: str = ""
    busy: int = 0
    """Tests that were left out for what they cost (`TaskSettings.max_messages`)."""


def candidate(
    function: F, covering: Sequence[str], flat_texts: Mapping[str, str], body: str, settings: TaskSettings,
    problem: str = "",
) -> Candidate[F]:  # fmt: skip
    """A function with the tests that call it; `dropped` where it can't become a task, for `problem` or what is missing.

    Args:
        flat_texts: `flat` of all files that may hold a copy of its body, by path.
        body: of the function, as its file has it.
        problem: why its language says that it can't be one, or "".
    """
    item = Candidate(function, [name for name in dict.fromkeys(covering) if not _names_secret(name)])
    if problem:
        item.dropped = problem
    elif not item.covering:
        item.dropped = "not_covered"
    elif len(item.covering) < settings.min_tests:
        item.dropped = "too_few_tests"
    elif function.end - function.start > settings.max_body_characters:
        item.dropped = "body_too_long"
    else:
        if len(item.covering) > settings.max_tests:
            generator = random.Random(f"{function.file}:{function.name}")
            drawn = generator.sample(range(len(item.covering)), settings.max_tests)
            item.covering = [item.covering[place] for place in sorted(drawn)]
        item.copies = copies(flat_texts, function.file, body)
    return item


@lru_cache(maxsize=65536)
def _names_secret(test: str) -> bool:
    """Whether a test's name holds a key or a password: a row must name its tests as they are."""
    return bool(redact(test).counts.keys() - {"EMAIL", "IP_ADDRESS"})


def copies(flat_texts: Mapping[str, str], file: str, body: str) -> list[str]:
    """Other files that hold the same body: they are hidden with it."""
    sought = flat(body)
    if sought.count("\n") < 2:
        return []
    return [path for path, text in flat_texts.items() if path != file and sought in text]


def flat(text: str) -> str:
    """Lines without indentation, comments of their own and blank lines: what two copies of code share."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class TaskValidator(Generic[F]):
    """How functions of one language stand before the tests of one repository."""

    suite: str
    """The snapshot's id."""
    kind: str
    language: str
    original: Callable[[F], str]
    """What is graded in a function's place: its own code, ..."""
    masked: Callable[[F], str]
    """... code that does nothing, ..."""
    wrong: Callable[[F, int], list[str]]
    """... and at most so many mutants of it, with answers that need no thought."""
    limits: Limits

    def validate(
        self, candidates: Sequence[Candidate[F]], settings: TaskSettings, workers: int, sandbox: SandboxSettings
    ) -> None:
        """Give each a tier, A where it can have it; those with `dropped` can't become tasks, and it says why."""
        waiting = [item for item in candidates if not item.dropped]
        with Grader(workers, self.limits, allow_weaker=sandbox.allow_weaker) as grader:
            for tier in ("A", "B"):
                self._try([item for item in waiting if tier == "B" or item.function.plain], tier, settings, grader)
                waiting = [item for item in waiting if not item.tier]

    def _try(self, tried: Sequence[Candidate[F]], tier: str, settings: TaskSettings, grader: Grader) -> None:
        most = settings.max_messages
        restored = self._grade(tried, [item.covering for item in tried], tier, grader, self.original, most)
        green = [with_result(item.covering, verdict, True) for item, verdict in zip(tried, restored, strict=True)]
        masked = self._grade(tried, green, tier, grader, self.masked)
        left: list[tuple[Candidate[F], list[str]]] = []
        for item, first, passing, verdict in zip(tried, restored, green, masked, strict=True):
            failing = _affordable(item, first, with_result(passing, verdict, False), settings)
            if first.status == "error":
                item.dropped = f"not_graded: {first.reason}"
            elif not passing:
                item.dropped = f"original_fails: {first.reason}"
            elif verdict.status == "error":
                item.dropped = f"not_graded: {verdict.reason}"
            elif not failing:
                item.dropped = "passes_when_masked"
            else:
                left.append((item, failing))
        for _ in range(REPEATS - 1):
            again = self._grade([item for item, _ in left], [names for _, names in left], tier, grader, self.original)
            for (item, _), verdict in zip(left, again, strict=True):
                item.cpu.append(verdict.cpu_seconds)
                if verdict.status != "passed":
                    item.dropped = "unstable"
            left = [pair for pair, verdict in zip(left, again, strict=True) if verdict.status == "passed"]
        self._score(left, tier, settings, grader)

    def _score(
        self, left: Sequence[tuple[Candidate[F], list[str]]], tier: str, settings: TaskSettings, grader: Grader
    ) -> None:
        wrong = [self.wrong(item.function, settings.mutants) if settings.mutants else [] for item, _ in left]
        jobs = [
            (self._row(item, names, tier), text) for (item, names), own in zip(left, wrong, strict=True) for text in own
        ]
        verdicts = iter(grader.grade_many(jobs))
        for (item, names), own in zip(left, wrong, strict=True):
            noticed = [next(verdicts).status == "failed" for _ in own]
            item.score = statistics.mean(noticed) if noticed else 1.0
            if item.score < settings.min_mutation_score:
                item.dropped = "weak_tests"
            else:
                item.tier, item.tests, item.dropped = tier, names, ""

    def _grade(
        self, items: Sequence[Candidate[F]], names: Sequence[Sequence[str]], tier: str, grader: Grader,
        program: Callable[[F], str], most_messages: int | None = None,
    ) -> list[Verdict]:  # fmt: skip
        """One verdict per candidate; without tests a failed one."""
        jobs = [
            (self._row(item, tests, tier, most_messages), program(item.function))
            for item, tests in zip(items, names, strict=True) if tests
        ]  # fmt: skip
        verdicts = iter(grader.grade_many(jobs))
        return [next(verdicts) if tests else Verdict("failed", "no_tests") for tests in names]

    def _row(
        self, item: Candidate[F], names: Sequence[str], tier: str, most_messages: int | None = None
    ) -> dict[str, Any]:
        """A task to grade with, all tests hidden."""
        tests = tests_of(self.suite, item, tier, [], names) | {"most_messages": most_messages}
        return {"kind": self.kind, "language": self.language, "entry_point": item.function.name, "tests": tests}


def tests_of(
    suite: str, item: Candidate[Any], tier: str, visible: Sequence[str], hidden: Sequence[str]
) -> dict[str, Any]:
    """What a task says of its tests."""
    return {"suite": suite, "tier": tier, "target": item.function.target(), "visible": list(visible), "hidden": list(hidden),
            "copies": item.copies}  # fmt: skip


def _affordable(item: Candidate[Any], verdict: Verdict, names: Sequence[str], settings: TaskSettings) -> list[str]:
    """Tests without the busiest, where all together send too many messages; `verdict` is of all that cover it, each ended
    at as many."""
    sent = {name: result.messages for name, result in zip(item.covering, verdict.tests, strict=False)}
    ended = {name for name, count in sent.items() if count >= settings.max_messages}
    busiest = sorted((name for name in names if name not in ended), key=lambda name: -sent[name])
    total = sum(sent[name] for name in busiest)
    item.busy = len(ended)
    while total > settings.max_messages and len(busiest) > settings.min_tests:
        total -= sent[busiest.pop(0)]
        item.busy += 1
    left = set(busiest)
    return [name for name in names if name in left]


def with_result(names: Sequence[str], verdict: Verdict, passed: bool) -> list[str]:
    """Those of a verdict's tests that passed, or that did not; none where it has no word on each."""
    if len(verdict.tests) != len(names):
        return []
    return [name for name, result in zip(names, verdict.tests, strict=True) if result.passed == passed]


def split_names(key: str, names: Sequence[str], hidden_share: float) -> tuple[list[str], list[str]]:
    """(visible, hidden) tests of the function that `key` names; the parameters of one test stay together where there are
    several tests."""
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


CODE, CONTEXT = ("middle", "reference", HELD_OUT_COLUMN), ("prompt", "prefix", "suffix")


def without_secrets(rows: Iterable[dict[str, Any]], left_out: Counter[str]) -> tuple[list[dict[str, Any]], int]:
    """Rows whose context shows no secret and no personal datum, and in how many of them one was replaced.

    Those whose code itself holds one, which no answer could then equal, are left out and counted. The names of tests are
    shown to nobody.
    """
    kept, replaced = [], 0
    for row in rows:
        if any(redact(row.get(key) or "", row["language"]).counts for key in CODE):
            left_out["secret_in_body"] += 1
            continue
        shown = {key: redact(row[key], row["language"]) for key in CONTEXT if row.get(key)}
        replaced += any(found.counts for found in shown.values())
        kept.append(row | {key: found.text for key, found in shown.items()})
    return kept, replaced


def account(candidates: Iterable[Candidate[Any]]) -> dict[str, Any]:
    """What became of the functions."""
    items = list(candidates)
    covered = [item for item in items if len(item.covering) >= 2]
    valid = [item for item in items if item.tier]
    cpu = [seconds for item in valid for seconds in item.cpu[-2:]]
    return {
        "functions": len(items), "covered_by_two": len(covered), "valid": len(valid),
        "tier_a": sum(item.tier == "A" for item in valid), "tier_b": sum(item.tier == "B" for item in valid),
        "median_cpu_ms": round(1000 * statistics.median(cpu), 1) if cpu else 0.0,
        "dropped": _counted(items), "dropped_of_covered": _counted(covered),
        "busy_tests_left_out": sum(item.busy for item in valid),
    }  # fmt: skip


def _counted(items: Iterable[Candidate[Any]]) -> dict[str, int]:
    return dict(sorted(Counter(item.dropped for item in items if item.dropped).items()))

"""Validate functions as tasks: tests must pass with the original body, and fail with a masked body and most mutants.

The procedure is the same for every language. The modules of a language supply the functions, the tests that call each
function, and (in `TaskValidator`) the programs that replace a function during grading.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

from pydantic import model_validator

from alignment.evaluation.answer_forms import AnswerForm
from alignment.grading import Grader, Limits, SandboxSettings, Verdict
from alignment.grading.verdict import verdict_of
from alignment.settings import Count, Positive, Settings, Share
from data_builders.tasks.body_copies import copies
from data_builders.tasks.task_rows import contains_secret
from data_builders.tasks.task_tiers import apart_reason

TRIVIAL = "trivial_body_passes"
"""Reason of functions whose tests pass with a trivial body."""
ENDS_ALL = ("timeout", "died", "memory")
"""Reasons of verdicts in which the end of the program ended all tests."""
REPEATS = 3
"""Number of runs in which the original body must pass the tests. This excludes functions with unstable tests."""


class TaskSettings(Settings):
    """Conditions that a function must meet to become a task."""

    min_tests: Positive = 2
    """Minimum number of tests that call the function."""
    max_tests: Positive = 40
    """Maximum number of tests per function. If more tests call the function, tests are drawn at random."""
    max_messages: Positive = 5000
    """Maximum number of calls from the tests to the function in one grading. Each call is a message to another process.
    A test that makes more calls is left out. If all tests together make more calls, the tests with the most calls are
    left out until `min_tests` tests remain."""
    mutants: Count = 6
    """Maximum number of mutants (versions of the function with one error) with which the tests are run."""
    min_mutation_score: Share = 0.5
    """Minimum share of the mutants that must fail the tests. Besides, every trivial body (that does nothing, returns a
    constant or an argument, or raises an exception) must fail the tests."""
    hidden_share: Share = 0.5
    """Share of the tests that the prompt does not show. At least one test is hidden."""
    answer: AnswerForm = "function"
    """What the model writes, and to which prompt. `function`: the whole function in a code block, as an answer in a chat.
    `body`: only the statements of the body in a code block, as an answer in a chat. `continuation`: the body, as the
    continuation of the code before it. `fim`: the body, between the code before and after it (fill-in-the-middle).
    Training and evaluation use the form of the rows. The last two forms show no tests."""
    max_body_characters: Count = 4000
    """Maximum length of the function's body in characters."""
    forgeable_share: Share = 0.3
    """Maximum share of forgeable tasks (tier B) among all rows. The tests of a forgeable task run in the process of
    the graded program, which could forge the result."""

    @model_validator(mode="after")
    def _check_tests(self) -> Self:
        if self.max_tests < self.min_tests:
            raise ValueError("max_tests must be at least min_tests")
        return self


class Maskable(Protocol):
    """A function in any language, with the properties that validation needs."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def start(self) -> int:
        """Offset of the first character of the body."""
        ...

    @property
    def end(self) -> int:
        """Offset after the last character of the body."""
        ...

    @property
    def plain(self) -> bool:
        """Whether the function can run in a different process than its tests (tier A)."""
        ...

    def target(self) -> dict[str, Any]:
        """Return the location of the function, in the form that the grader needs."""
        ...


F = TypeVar("F", bound=Maskable)


@dataclass
class Candidate(Generic[F]):
    """A function that may become a task."""

    function: F
    covering: list[str]
    """Names of the tests that call the function."""
    copies: list[str] = field(default_factory=list)
    """Other files that contain a copy of the function's body. These files are hidden during grading."""
    tier: str = ""
    """`A` if the function runs in a different process than its tests. `B` if the function runs in the same process,
    so that a program can forge the result. "" if the function is not valid."""
    tests: list[str] = field(default_factory=list)
    """Tests that pass with the original body and fail with the masked body."""
    easy: list[str] = field(default_factory=list)
    """Tests that at least one trivial body passes."""
    score: float = 0.0
    """Mutation score: the share of mutants that fail the tests."""
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of each grading of the original body, except the first grading."""
    apart: str = ""
    """Key of `task_tiers.APART_REASONS`: why the function is not of tier A. "" if tier A was not tried, or succeeded."""
    dropped: str = ""
    """Reason why the function can't become a task, or ""."""
    detail: str = ""
    """Why the original body failed a test in the last attempt, or ""."""
    busy: int = 0
    """Number of tests that were left out because they make too many calls (`TaskSettings.max_messages`)."""


def make_candidate(
    function: F, covering: Sequence[str], flat_texts: Mapping[str, str], body: str, settings: TaskSettings,
    problem: str = "",
) -> Candidate[F]:  # fmt: skip
    """Make a candidate. If the function cannot become a task, the field `dropped` of the candidate holds the reason.

    Args:
        function: a function of any language.
        covering: names of the tests that call the function.
        flat_texts: maps the path of each file that may contain a copy of the body to its text, simplified by `flat`.
        body: body of the function, as written in its file.
        settings: conditions that a function must meet to become a task.
        problem: reason why a rule of the language excludes the function, or "".
    """
    item = Candidate(function, [name for name in dict.fromkeys(covering) if not contains_secret(name)])
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


@dataclass(frozen=True)
class TaskValidator(Generic[F]):
    """Validates functions of one language against the tests of one repository."""

    suite: str
    """Id of the snapshot of the repository."""
    kind: str
    """Kind of the task rows, which selects the grader: `pytest`, `node` or `project`."""
    language: str
    original: Callable[[F], str]
    """Takes a function of the repository and returns its original code, in the form of a model's answer."""
    masked: Callable[[F], str]
    """Takes a function of the repository and returns code with the same header, whose body only raises an error."""
    wrong: Callable[[F, int], list[str]]
    """Function that takes a function and a number n. It returns at most n mutants of the function."""
    trivial: Callable[[F], list[str]]
    """Function that returns versions of its argument with trivial bodies."""
    limits: Limits
    variants: Callable[[F], list[str]] | None = None
    """For kind `project`: function that returns all wrong programs that will be graded, so that the grader compiles them
    together. Tests and program then run in one process, and each function has only one tier."""

    def validate(
        self, candidates: Sequence[Candidate[F]], settings: TaskSettings, workers: int, sandbox: SandboxSettings
    ) -> None:
        """Decide which candidates are valid, and store the decisions in the candidates.

        A valid candidate gets a `tier`: A if possible, otherwise B. Any other candidate gets a reason in `dropped`.

        Args:
            candidates: the functions. Candidates that already have a reason in `dropped` are skipped.
            settings: conditions that a function must meet to become a task.
            workers: number of grading processes.
            sandbox: settings of the sandbox, of which only `allow_weaker` is used.
        """
        waiting = [item for item in candidates if not item.dropped]
        with Grader(workers, self.limits, allow_weaker=sandbox.allow_weaker) as grader:
            for tier in ("A", "B"):
                chosen = [item for item in waiting if tier == "B" or item.function.plain]
                self._try_tier(chosen, tier, settings, grader)
                if tier == "A":
                    for item in waiting:
                        item.apart = _why_not_apart(item)
                tried = {id(item) for item in chosen} if self.variants is not None else set()
                waiting = [
                    item for item in waiting if not item.tier and item.dropped != TRIVIAL and id(item) not in tried
                ]

    def _try_tier(self, items: Sequence[Candidate[F]], tier: str, settings: TaskSettings, grader: Grader) -> None:
        first = self._grade(
            items, [item.covering for item in items], tier, grader, self.original, settings.max_messages
        )
        first = self._repeat_one_by_one(items, first, tier, grader, settings.max_messages)
        passing = [tests_with_result(item.covering, verdict, True) for item, verdict in zip(items, first, strict=True)]
        masked = self._grade(items, passing, tier, grader, self.masked)
        left: list[tuple[Candidate[F], list[str]]] = []
        for item, original_verdict, names, masked_verdict in zip(items, first, passing, masked, strict=True):
            failing = tests_with_result(names, masked_verdict, False)
            tests = _affordable(item, original_verdict, failing, settings)
            item.detail = original_verdict.detail if len(names) < len(item.covering) else ""
            if original_verdict.status == "error":
                item.dropped = f"not_graded: {original_verdict.reason}"
            elif not names:
                item.dropped = f"original_fails: {original_verdict.reason}"
            elif masked_verdict.status == "error":
                item.dropped = f"not_graded: {masked_verdict.reason}"
            elif not tests:
                item.dropped = "passes_when_masked"
            else:
                left.append((item, tests))
        for _ in range(REPEATS - 1):
            again = self._grade([item for item, _ in left], [names for _, names in left], tier, grader, self.original)
            for (item, _), verdict in zip(left, again, strict=True):
                item.cpu.append(verdict.cpu_seconds)
                if verdict.status != "passed":
                    item.dropped = "unstable"
            left = [pair for pair, verdict in zip(left, again, strict=True) if verdict.status == "passed"]
        self._set_scores(left, tier, settings, grader)

    def _repeat_one_by_one(
        self, items: Sequence[Candidate[F]], verdicts: Sequence[Verdict], tier: str, grader: Grader, max_messages: int
    ) -> list[Verdict]:
        """Run the tests one by one if together they ended the program, because one test may have ended the others.

        Only done for tier A, where some tests, for example with threads, cannot run.
        """
        ended = [
            item for item, verdict in zip(items, verdicts, strict=True) if tier == "A" and verdict.reason in ENDS_ALL
        ]
        jobs = [
            (self._row(item, [name], tier, max_messages), self.original(item.function))
            for item in ended for name in item.covering
        ]  # fmt: skip
        single = iter(grader.grade_many(jobs))
        repeated = {id(item): [next(single) for _ in item.covering] for item in ended}
        combined = []
        for item, verdict in zip(items, verdicts, strict=True):
            results = [one.tests[0] for one in repeated.get(id(item), []) if one.tests]
            combined.append(verdict_of(results) if results and len(results) == len(item.covering) else verdict)
        return combined

    def _set_scores(
        self, pairs: Sequence[tuple[Candidate[F], list[str]]], tier: str, settings: TaskSettings, grader: Grader
    ) -> None:
        """Run the tests on wrong bodies of each candidate.

        Set the candidate's `tier` if the tests fail with them, otherwise set `dropped`.
        """
        mutants = self._grade_several(pairs, tier, grader, lambda function: self.wrong(function, settings.mutants))
        strong = []
        for (item, names), verdicts in zip(pairs, mutants, strict=True):
            ran = [verdict for verdict in verdicts if verdict.reason != "compile"]
            item.score = statistics.mean(verdict.status == "failed" for verdict in ran) if ran else 1.0
            if item.score < settings.min_mutation_score:
                item.dropped = "weak_tests"
            else:
                strong.append((item, names))
        for (item, names), verdicts in zip(
            strong, self._grade_several(strong, tier, grader, self.trivial), strict=True
        ):
            if any(verdict.status == "passed" for verdict in verdicts):
                item.dropped = TRIVIAL
            else:
                easy = {name for verdict in verdicts for name in tests_with_result(names, verdict, True)}
                item.easy = [name for name in names if name in easy]
                item.tier, item.tests, item.dropped = tier, names, ""

    def _grade_several(
        self,
        pairs: Sequence[tuple[Candidate[F], list[str]]],
        tier: str,
        grader: Grader,
        programs: Callable[[F], list[str]],
    ) -> list[list[Verdict]]:
        """Return the verdicts on several programs for each candidate."""
        made = [programs(item.function) for item, _ in pairs]
        jobs = [
            (self._row(item, names, tier), program)
            for (item, names), texts in zip(pairs, made, strict=True)
            for program in texts
        ]
        verdicts = iter(grader.grade_many(jobs))
        return [[next(verdicts) for _ in texts] for texts in made]

    def _grade(
        self, items: Sequence[Candidate[F]], names: Sequence[Sequence[str]], tier: str, grader: Grader,
        program: Callable[[F], str], max_messages: int | None = None,
    ) -> list[Verdict]:  # fmt: skip
        """Return the verdict on one program per candidate. Candidates without tests get the verdict `failed`."""
        jobs = [
            (self._row(item, tests, tier, max_messages), program(item.function))
            for item, tests in zip(items, names, strict=True) if tests
        ]  # fmt: skip
        verdicts = iter(grader.grade_many(jobs))
        return [next(verdicts) if tests else Verdict("failed", "no_tests") for tests in names]

    def _row(
        self, item: Candidate[F], names: Sequence[str], tier: str, max_messages: int | None = None
    ) -> dict[str, Any]:
        """Make a task row for grading programs. All tests of the row are hidden tests."""
        tests = tests_of(self.suite, item, tier, [], names) | {"most_messages": max_messages}
        if self.variants is not None:
            tests["variants"] = self.variants(item.function)
        return {"kind": self.kind, "language": self.language, "entry_point": item.function.name, "tests": tests}


def _why_not_apart(item: Candidate[Any]) -> str:
    if item.tier:
        return ""
    return apart_reason(item.dropped, item.detail) if item.function.plain else "not_tried"


def tests_of(
    suite: str, item: Candidate[Any], tier: str, visible: Sequence[str], hidden: Sequence[str]
) -> dict[str, Any]:
    """Return the value of the column `tests` of a task row, see `alignment.grading.task.RepositoryTests`."""
    return {"suite": suite, "tier": tier, "target": item.function.target(), "visible": list(visible), "hidden": list(hidden),
            "easy": item.easy, "copies": item.copies}  # fmt: skip


def _affordable(item: Candidate[Any], verdict: Verdict, names: Sequence[str], settings: TaskSettings) -> list[str]:
    """Select tests that together make at most `max_messages` calls.

    The tests with the most calls are left out first, until the limit is met or `min_tests` tests remain.

    Args:
        item: the candidate. Its field `busy` is set to the number of omitted tests.
        verdict: results of all tests that call the function. Each test was stopped after `max_messages` calls. Stopped
            tests are always left out.
        names: the tests to select from.
        settings: the limits `max_messages` and `min_tests`.
    """
    messages = {name: result.messages for name, result in zip(item.covering, verdict.tests, strict=False)}
    ended = {name for name, count in messages.items() if count >= settings.max_messages}
    busiest = sorted((name for name in names if name not in ended), key=lambda name: -messages[name])
    total = sum(messages[name] for name in busiest)
    item.busy = len(ended)
    while total > settings.max_messages and len(busiest) > settings.min_tests:
        total -= messages[busiest.pop(0)]
        item.busy += 1
    affordable = set(busiest)
    return [name for name in names if name in affordable]


def tests_with_result(names: Sequence[str], verdict: Verdict, passed: bool) -> list[str]:
    """Return the tests that passed or, if `passed` is false, the tests that failed.

    Return an empty list if the verdict has no result for each test.
    """
    if len(verdict.tests) != len(names):
        return []
    return [name for name, result in zip(names, verdict.tests, strict=True) if result.passed == passed]


def account(candidates: Iterable[Candidate[Any]]) -> dict[str, Any]:
    """Count functions for the build report: functions with tests, valid functions by tier (A or B), and dropped
    functions by reason.
    """
    items = list(candidates)
    covered = [item for item in items if len(item.covering) >= 2]
    valid = [item for item in items if item.tier]
    cpu = [seconds for item in valid for seconds in item.cpu[-2:]]
    return {
        "functions": len(items), "covered_by_two": len(covered), "valid": len(valid),
        "tier_a": sum(item.tier == "A" for item in valid), "tier_b": sum(item.tier == "B" for item in valid),
        "median_cpu_ms": round(1000 * statistics.median(cpu), 1) if cpu else 0.0,
        "dropped": _dropped_counts(items), "dropped_of_covered": _dropped_counts(covered),
        "tier_b_reasons": dict(sorted(Counter(item.apart for item in valid if item.tier == "B").items())),
        "busy_tests_left_out": sum(item.busy for item in valid),
    }  # fmt: skip


def _dropped_counts(items: Iterable[Candidate[Any]]) -> dict[str, int]:
    return dict(sorted(Counter(item.dropped for item in items if item.dropped).items()))

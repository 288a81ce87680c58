"""Executable tasks from a JavaScript or TypeScript repository's own tests, through the same steps as for Python."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.grading import Grader, Limits, Verdict
from alignment.grading.node_syntax import TYPESCRIPT
from alignment.sandbox.languages import NoToolchain
from alignment.sandbox.slot import SandboxUnavailable
from data_builders.held_out import COLUMN
from data_builders.javascript import JsFunction, definition, js_mutants
from data_builders.javascript_map import JsCoverage, js_advice, js_coverage
from data_builders.javascript_suite import Prepared, prepare
from data_builders.secrets import redact
from data_builders.sources import Repository
from data_builders.validation import REPEATS, TaskSettings, flat, split_names, with_result

LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
MASK = ' throw new Error("not implemented"); '


@dataclass
class JsCandidate:
    """A function on its way to become a task."""

    function: JsFunction
    covering: list[str]
    copies: list[str] = field(default_factory=list)
    tier: str = ""
    tests: list[str] = field(default_factory=list)
    """Those that pass with the original and fail without it."""
    score: float = 0.0
    cpu: list[float] = field(default_factory=list)
    dropped: str = ""
    runs_at_load: bool = False


@dataclass
class JsFound:
    """A repository's functions after validation."""

    repository: Repository
    prepared: Prepared | None
    candidates: list[JsCandidate]
    coverage: JsCoverage
    advice: list[str]
    hidden_share: float
    left_out: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        covered = [item for item in self.candidates if len(item.covering) >= 2]
        valid = [item for item in self.candidates if item.tier]
        cpu = [seconds for item in valid for seconds in item.cpu[-2:]]
        return {
            "functions": len(self.candidates), "covered_by_two": len(covered), "valid": len(valid),
            "tier_a": sum(item.tier == "A" for item in valid), "tier_b": sum(item.tier == "B" for item in valid),
            "median_cpu_ms": round(1000 * statistics.median(cpu), 1) if cpu else 0.0,
            "dropped": _counted(self.candidates), "dropped_of_covered": _counted(covered),
            "tests": sum(self.coverage.outcomes.values()), "outcomes": dict(sorted(self.coverage.outcomes.items())),
            "map_seconds": self.coverage.seconds, "left_out": dict(self.left_out), "advice": self.advice,
        }  # fmt: skip

    def rows(self, part: str, characters: int) -> list[dict[str, Any]]:
        """Task rows."""
        made = []
        for item in self.candidates:
            if item.tier:
                row = self._row(item, part, characters)
                if redact(row["prompt"], row["language"]).counts:
                    self.left_out["secret_in_context"] += 1
                else:
                    made.append(row)
        return made

    def _row(self, item: JsCandidate, part: str, characters: int) -> dict[str, Any]:
        assert self.prepared is not None
        function = item.function
        text = self.prepared.texts[function.file]
        language = "typescript" if function.file.endswith(TYPESCRIPT) else "javascript"
        visible, hidden = split_names(f"{function.file}:{function.name}", item.tests, self.hidden_share)
        tests = {"suite": self.prepared.id, "tier": item.tier, "target": function.target(), "visible": visible, "hidden": hidden,
                 "copies": item.copies}  # fmt: skip
        before = text[max(0, function.start - characters * 2 // 3) : function.start]
        after = text[function.end : function.end + characters // 3]
        ask = (
            f"Write the body of `{function.name}` in `{function.file}` of the repository `{self.repository.name}`. Keep its "
            f"signature. Answer with the whole function in one {'TypeScript' if language == 'typescript' else 'JavaScript'} block."
        )
        shown = f"{ask}\n\n`{function.file}`:\n\n```{language}\n{before}\n  // write this body\n{after}\n```"
        row = {
            "id": f"{self.repository.name}/{function.file}:{function.line}:{function.name}", "prompt": shown,
            "language": language, "kind": "node", "tests": json.dumps(tests), "entry_point": function.name.rpartition(".")[2],
            "source": f"{self.repository.name}@{self.repository.commit[:12]}", "split": part, "forgeable": item.tier == "B",
            "mutation_score": round(item.score, 3),
        }  # fmt: skip
        if part == "heldout":
            return row | {COLUMN: text[function.start : function.end]}
        return row | {"reference": definition(text, function)}


def _counted(items: Sequence[JsCandidate]) -> dict[str, int]:
    return dict(sorted(Counter(item.dropped for item in items if item.dropped).items()))


def js_repository_tasks(
    repository: Repository,
    settings: TaskSettings,
    *,
    workers: int = 1,
    only: Any = None,
    paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    budget_seconds: float = 600.0,
) -> JsFound:
    """Map, mask and validate one repository. `only(function, text)` says which functions are of interest."""
    empty = JsCoverage({}, Counter(), [], set(), 0.0)
    try:
        prepared = prepare(repository, paths, environment)
    except NoToolchain as error:
        return JsFound(repository, None, [], empty, [f"JavaScript: {error}"], settings.hidden_share)
    try:
        coverage = js_coverage(prepared, budget_seconds)
        candidates = [
            _candidate(prepared, coverage, number, item, settings) for number, item in enumerate(prepared.functions)
            if only is None or only(item, prepared.texts[item.file])
        ]  # fmt: skip
        with Grader(workers, LIMITS) as grader:
            waiting = [item for item in candidates if not item.dropped]
            for tier in ("A", "B"):
                _Trial(prepared, tier, settings, grader).run(
                    [item for item in waiting if tier == "B" or item.function.plain]
                )
                waiting = [item for item in waiting if not item.tier]
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return JsFound(repository, prepared, candidates, coverage, js_advice(prepared, coverage), settings.hidden_share)


def _may_be_plain(_: Prepared, item: JsCandidate) -> bool:
    return item.function.plain


def _may_share(prepared: Prepared, item: JsCandidate) -> bool:
    """Whether nothing of the candidate's runs before the tests' files are gone from the disk, or it is dropped."""
    early = item.runs_at_load and not {name.partition("::")[0] for name in item.covering}.isdisjoint(
        prepared.snapshot.data["esm"]
    )
    if early:
        item.dropped = "runs_while_its_tests_load"
    return not early


def _candidate(
    prepared: Prepared, coverage: JsCoverage, number: int, function: JsFunction, settings: TaskSettings
) -> JsCandidate:
    covering = list(dict.fromkeys(coverage.covering.get(number, [])))
    item = JsCandidate(function, covering, runs_at_load=number in coverage.loaded)
    if not covering:
        item.dropped = "runs_at_import_only" if number in coverage.loaded else "not_covered"
    elif len(covering) < settings.min_tests:
        item.dropped = "too_few_tests"
    elif function.end - function.start > settings.max_body_characters:
        item.dropped = "body_too_long"
    else:
        if len(covering) > settings.max_tests:
            drawn = random.Random(f"{function.file}:{function.name}").sample(range(len(covering)), settings.max_tests)
            item.covering = [covering[place] for place in sorted(drawn)]
        item.copies = _copies(prepared, function)
    return item


def _copies(prepared: Prepared, function: JsFunction) -> list[str]:
    """Other files that hold the same body: they are hidden with it."""
    body = flat(prepared.texts[function.file][function.start : function.end])
    if body.count("\n") < 2:
        return []
    return [path for path, text in prepared.flat.items() if path != function.file and body in text]


@dataclass
class _Trial:
    """Validation in one tier: the original passes, three times; the masked function fails; most mutants are noticed."""

    prepared: Prepared
    tier: str
    settings: TaskSettings
    grader: Grader

    def grade(
        self, items: Sequence[JsCandidate], names: Sequence[Sequence[str]], made: Callable[[JsFunction], str]
    ) -> list[Verdict]:
        """One verdict per candidate; without tests a failed one."""
        jobs = [self._job(item, own, made(item.function)) for item, own in zip(items, names, strict=True) if own]
        verdicts = iter(self.grader.grade_many(jobs))
        return [next(verdicts) if own else Verdict("failed", "no_tests") for own in names]

    def _job(self, item: JsCandidate, names: Sequence[str], program: str) -> tuple[dict[str, Any], str]:
        tests = {"suite": self.prepared.id, "tier": self.tier, "target": item.function.target(), "visible": [], "hidden": list(names),
                 "copies": item.copies}  # fmt: skip
        return {"kind": "node", "language": "javascript", "entry_point": item.function.name, "tests": tests}, program

    def original(self, function: JsFunction) -> str:
        return definition(self.prepared.texts[function.file], function)

    def masked(self, function: JsFunction) -> str:
        return definition(self.prepared.texts[function.file], function, MASK)

    def run(self, tried: Sequence[JsCandidate]) -> None:
        """Give the tier to those that are valid in it; the others get `dropped`."""
        restored = self.grade(tried, [item.covering for item in tried], self.original)
        green = [with_result(item.covering, verdict, True) for item, verdict in zip(tried, restored, strict=True)]
        masked = self.grade(tried, green, self.masked)
        left: list[tuple[JsCandidate, list[str]]] = []
        for item, first, passing, verdict in zip(tried, restored, green, masked, strict=True):
            failing = with_result(passing, verdict, False)
            if first.status == "error" or (passing and verdict.status == "error"):
                item.dropped = f"not_graded: {first.reason if first.status == 'error' else verdict.reason}"
            elif not passing:
                item.dropped = f"original_fails: {first.reason}"
            elif not failing:
                item.dropped = "passes_when_masked"
            else:
                left.append((item, failing))
        for _ in range(REPEATS - 1):
            again = self.grade([item for item, _ in left], [names for _, names in left], self.original)
            for (item, _), verdict in zip(left, again, strict=True):
                item.cpu.append(verdict.cpu_seconds)
                if verdict.status != "passed":
                    item.dropped = "unstable"
            left = [pair for pair, verdict in zip(left, again, strict=True) if verdict.status == "passed"]
        self._score(left)

    def _score(self, left: Sequence[tuple[JsCandidate, list[str]]]) -> None:
        texts = self.prepared.texts
        wrong = [
            js_mutants(texts[item.function.file], item.function, self.settings.mutants) if self.settings.mutants else []
            for item, _ in left
        ]
        jobs = [self._job(item, names, text) for (item, names), own in zip(left, wrong, strict=True) for text in own]
        verdicts = iter(self.grader.grade_many(jobs))
        for (item, names), own in zip(left, wrong, strict=True):
            noticed = [next(verdicts).status == "failed" for _ in own]
            item.score = statistics.mean(noticed) if noticed else 1.0
            if item.score < self.settings.min_mutation_score:
                item.dropped = "weak_tests"
            else:
                item.tier, item.tests, item.dropped = self.tier, names, ""

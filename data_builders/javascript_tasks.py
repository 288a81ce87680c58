"""Executable tasks from a JavaScript repository's own tests: node's test runner, through the same steps as for Python."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.grading import Grader, Limits, Verdict
from alignment.grading.node_programs import TESTER
from alignment.grading.nodejs import SOURCES, NodeSnapshot, NodeSuite, messages
from alignment.grading.repository import store
from alignment.sandbox.languages import NoToolchain, toolchain
from alignment.sandbox.slot import SandboxError, SandboxUnavailable
from data_builders.coverage_map import FAST_SECONDS
from data_builders.held_out import COLUMN
from data_builders.javascript import JsFunction, js_functions, js_mutants
from data_builders.secrets import redact
from data_builders.sources import Repository, texts_of
from data_builders.validation import REPEATS, TaskSettings, split_names

VERSION = 1
MAX_BYTES = 16 << 20
LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
MAP_LIMITS = Limits(cpu_seconds=60, wall_seconds=60)
TEST_NAMES = (
    "*.test.js",
    "*.test.cjs",
    "*.test.mjs",
    "*-test.js",
    "*_test.js",
    "test.js",
    "test-*.js",
    "*.spec.js",
    "*.spec.mjs",
)
FOREIGN = ("vitest", "jest", "mocha", "ava", "tape")
MASK = 'throw new Error("not implemented");'


@dataclass
class JsCandidate:
    """A function on its way to become a task."""

    function: JsFunction
    covering: list[str]
    tests: list[str] = field(default_factory=list)
    score: float = 0.0
    cpu: list[float] = field(default_factory=list)
    dropped: str = ""


@dataclass
class JsFound:
    """A repository's functions after validation."""

    repository: Repository
    identifier: str
    texts: dict[str, str]
    candidates: list[JsCandidate]
    outcomes: Counter[str]
    advice: list[str]
    hidden_share: float
    left_out: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        covered = [item for item in self.candidates if len(item.covering) >= 2]
        valid = [item for item in self.candidates if item.tests]
        cpu = [seconds for item in valid for seconds in item.cpu]
        return {
            "functions": len(self.candidates), "covered_by_two": len(covered), "valid": len(valid), "tier_a": len(valid),
            "tier_b": 0, "median_cpu_ms": round(1000 * statistics.median(cpu), 1) if cpu else 0.0,
            "dropped": _counted(self.candidates), "dropped_of_covered": _counted(covered),
            "tests": sum(self.outcomes.values()), "outcomes": dict(sorted(self.outcomes.items())),
            "left_out": dict(self.left_out), "advice": self.advice,
        }  # fmt: skip

    def rows(self, part: str, characters: int) -> list[dict[str, Any]]:
        """Task rows."""
        made = []
        for item in self.candidates:
            if not item.tests:
                continue
            row = self._row(item, part, characters)
            if redact(row["prompt"], "javascript").counts:
                self.left_out["secret_in_context"] += 1
            else:
                made.append(row)
        return made

    def _row(self, item: JsCandidate, part: str, characters: int) -> dict[str, Any]:
        function = item.function
        text = self.texts[function.file]
        visible, hidden = split_names(f"{function.file}:{function.name}", item.tests, self.hidden_share)
        tests = {"suite": self.identifier, "target": function.target(), "visible": visible, "hidden": hidden}
        before = text[max(0, function.start - characters * 2 // 3) : function.start]
        after = text[function.end : function.end + characters // 3]
        ask = (
            f"Write the body of `{function.name}` in `{function.file}` of the repository `{self.repository.name}`. Keep its "
            "signature. Answer with the whole function in one JavaScript block."
        )
        shown = f"{ask}\n\n`{function.file}`:\n\n```javascript\n{before}\n  // write this body\n{after}\n```"
        row = {
            "id": f"{self.repository.name}/{function.file}:{function.line}:{function.name}", "prompt": shown,
            "language": "javascript", "kind": "node", "tests": json.dumps(tests), "entry_point": function.name,
            "source": f"{self.repository.name}@{self.repository.commit[:12]}", "split": part, "forgeable": False,
            "mutation_score": round(item.score, 3),
        }  # fmt: skip
        body = text[function.start : function.end]
        return row | ({COLUMN: body} if part == "heldout" else {"reference": f"{function.header} {{{body}}}"})


def _counted(items: Sequence[JsCandidate]) -> dict[str, int]:
    return dict(sorted(Counter(item.dropped for item in items if item.dropped).items()))


def has_javascript(paths: Collection[str]) -> bool:
    """Whether a repository is one of node's: a package.json at its root."""
    return "package.json" in paths


def is_js_test(path: str) -> bool:
    *folders, name = path.split("/")
    return any(fnmatch.fnmatch(name, pattern) for pattern in TEST_NAMES) or (
        any(folder in ("test", "tests", "__tests__") for folder in folders) and name.endswith((".js", ".cjs", ".mjs"))
    )


def prepare(repository: Repository, texts: dict[str, str]) -> tuple[NodeSnapshot, str]:
    """The snapshot of a repository's JavaScript, kept by its content."""
    kept = {path: text for path, text in texts.items() if path.endswith(SOURCES) and "node_modules/" not in f"/{path}"}
    if sum(map(len, kept.values())) > MAX_BYTES:
        raise ValueError(f"{repository.name} has more than {MAX_BYTES >> 20} MB of JavaScript: name a part of it")
    installed = repository.path / "node_modules"
    if repository.is_git and not installed.is_dir():
        installed = repository.path.parent / "node_modules"
    modules = str(installed.resolve()) if installed.is_dir() else ""
    identity = [VERSION, sorted(kept.items()), modules, toolchain("javascript").version]
    identifier = hashlib.sha256(json.dumps(identity).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    folder = store() / identifier
    folder.mkdir(exist_ok=True)
    tests = sorted(path for path in kept if is_js_test(path))
    typescript = any(path.endswith((".test.ts", ".spec.ts", ".test.mts")) for path in texts)
    data = {"name": repository.name, "texts": kept, "tests": tests, "modules": modules, "typescript": typescript}
    (folder / "suite.json").write_text(json.dumps(data), encoding="utf-8")
    return NodeSnapshot.open(folder), identifier


def js_repository_tasks(
    repository: Repository, settings: TaskSettings, *, workers: int = 1, only: Any = None
) -> JsFound:
    """Map, mask and validate one repository. `only(function, text)` says which functions are of interest."""
    texts = texts_of(repository)
    try:
        snapshot, identifier = prepare(repository, texts)
    except NoToolchain as error:
        return JsFound(repository, "", texts, [], Counter(), [f"JavaScript: {error}"], 0.5)
    functions = [
        item for path in sorted(snapshot.texts) if path not in snapshot.tests and not path.endswith(".json")
        for item in js_functions(path, snapshot.texts[path])
    ]  # fmt: skip
    try:
        covering, outcomes, advice = coverage(snapshot, functions)
        chosen = [item for item in functions if only is None or only(item, snapshot.texts[item.file])]
        candidates = [_candidate(item, covering.get(number_of(functions, item), []), settings) for item in chosen]
        with Grader(workers, LIMITS) as grader:
            _validate(snapshot, identifier, [item for item in candidates if not item.dropped], settings, grader)
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return JsFound(repository, identifier, texts, candidates, outcomes, advice, settings.hidden_share)


def number_of(functions: Sequence[JsFunction], item: JsFunction) -> int:
    return next(number for number, other in enumerate(functions) if other is item)


def coverage(
    snapshot: NodeSnapshot, functions: Sequence[JsFunction]
) -> tuple[dict[int, list[str]], Counter[str], list[str]]:
    """Each test file runs once, with a mark at the head of every function: number of function -> tests that call it."""
    marked = dict(snapshot.texts)
    for number, item in reversed(list(enumerate(functions))):  # from the end, so that offsets stay right
        text = marked[item.file]
        marked[item.file] = f"{text[: item.start]}globalThis.__align_hit?.({number});{text[item.start :]}"
    covering: dict[int, list[str]] = {}
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    suite = NodeSuite(snapshot)
    nonce = "align:"
    try:
        for path in sorted(snapshot.tests):
            if path.endswith(".json"):
                continue
            asked = {"mode": "trace", "nonce": nonce, "tests": [], "files": [path]}
            try:
                (run,) = suite.tester.run([suite.job(TESTER, asked, snapshot.files(False, marked), MAP_LIMITS)])
            except SandboxError:
                outcomes["ends_the_process_or_hangs"] += 1
                continue
            said = messages(run, nonce)
            problems += [f"{path}: {item['detail']}{_hint(item['detail'])}" for item in said if "problem" in item]
            if run.stop is not None:
                outcomes["ends_the_process_or_hangs"] += 1
            for told in said:
                if "test" in told:
                    outcome = _outcome(told)
                    outcomes[outcome] += 1
                    for number in told["hits"] if outcome == "passed" else []:
                        covering.setdefault(number, []).append(told["test"])
    finally:
        suite.close()
    distinct = {number: list(dict.fromkeys(names)) for number, names in covering.items()}
    return distinct, outcomes, _advice(snapshot, problems, outcomes)


def _outcome(item: dict[str, Any]) -> str:
    if item["passed"]:
        return "passed" if max(item["cpu"], min(item["seconds"], 10 * item["cpu"])) <= FAST_SECONDS else "slow"
    network = re.search(r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|fetch failed|EPERM", item["detail"])
    return "needs_network_or_database" if network else "failed"


def _advice(snapshot: NodeSnapshot, problems: list[str], outcomes: Counter[str]) -> list[str]:
    said = problems[:5]
    package = snapshot.texts.get("package.json", "")
    foreign = [name for name in FOREIGN if re.search(rf'"{name}"\s*:', package)]
    if not outcomes and foreign:
        said.append(f"its tests are for {', '.join(foreign)}: only node's own test runner (node:test) is supported")
    elif not outcomes and snapshot.typescript:
        said.append(
            "its tests are in TypeScript: build them to JavaScript first, and name the folder of the build as a source"
        )
    elif not outcomes:
        said.append("no test of node's test runner was found: files like *.test.js, or below test/")
    for key, text in (
        ("failed", "tests fail as the repository is"), ("slow", "tests are too slow to grade by"),
        ("needs_network_or_database", "tests need the network or a database: there is none in the sandbox"),
        ("ends_the_process_or_hangs", "test files end their process or hang"),
    ):  # fmt: skip
        if outcomes[key]:
            said.append(f"{outcomes[key]} {text}")
    return said


def _hint(detail: str) -> str:
    if "Cannot find package" in detail or "Cannot find module" in detail:
        return " (install it beside the repository: npm install)"
    return ""


def _candidate(function: JsFunction, covering: list[str], settings: TaskSettings) -> JsCandidate:
    item = JsCandidate(function, covering[: settings.max_tests])
    if not function.plain:
        item.dropped = "generator"
    elif not covering:
        item.dropped = "not_covered"
    elif len(covering) < settings.min_tests:
        item.dropped = "too_few_tests"
    elif function.end - function.start > settings.max_body_characters:
        item.dropped = "body_too_long"
    return item


def _validate(
    snapshot: NodeSnapshot, identifier: str, items: list[JsCandidate], settings: TaskSettings, grader: Grader
) -> None:
    """The original passes, three times; the masked function fails; most mutants are noticed."""

    def graded(asked: Sequence[JsCandidate], names: Sequence[list[str]], texts: Sequence[str]) -> list[Verdict]:
        rows = [
            {"kind": "node", "language": "javascript", "entry_point": item.function.name,
             "tests": {"suite": identifier, "target": item.function.target(), "visible": [], "hidden": own}}
            for item, own in zip(asked, names, strict=True)
        ]  # fmt: skip
        return grader.grade_many(list(zip(rows, texts, strict=True)))

    def original(item: JsCandidate) -> str:
        body = snapshot.texts[item.function.file][item.function.start : item.function.end]
        return f"{item.function.header} {{{body}}}"

    def passing(verdict: Verdict, names: list[str], passed: bool) -> list[str]:
        if len(verdict.tests) != len(names):
            return []
        return [name for name, result in zip(names, verdict.tests, strict=True) if result.passed == passed]

    first = graded(items, [item.covering for item in items], [original(item) for item in items])
    green = [passing(verdict, item.covering, True) for item, verdict in zip(items, first, strict=True)]
    left = [(item, names) for item, names in zip(items, green, strict=True) if names]
    for item, names, verdict in zip(items, green, first, strict=True):
        if not names:
            item.dropped = f"not_graded: {verdict.reason}" if verdict.status == "error" else "no_plain_data"
    masked = graded(
        [item for item, _ in left], [names for _, names in left],
        [f"{item.function.header} {{ {MASK} }}" for item, _ in left],
    )  # fmt: skip
    kept: list[tuple[JsCandidate, list[str]]] = []
    for (item, names), verdict in zip(left, masked, strict=True):
        failing = passing(verdict, names, False)
        if failing:
            kept.append((item, failing))
        else:
            item.dropped = "passes_when_masked"
    for _ in range(REPEATS - 1):
        again = graded([item for item, _ in kept], [names for _, names in kept], [original(item) for item, _ in kept])
        for (item, _), verdict in zip(kept, again, strict=True):
            item.cpu.append(verdict.cpu_seconds)
            if verdict.status != "passed":
                item.dropped = "unstable"
        kept = [(item, names) for (item, names), verdict in zip(kept, again, strict=True) if verdict.status == "passed"]
    for item, names in kept:
        wrong = (
            js_mutants(snapshot.texts[item.function.file], item.function, settings.mutants) if settings.mutants else []
        )
        verdicts = graded([item] * len(wrong), [names] * len(wrong), wrong)
        noticed = [verdict.status == "failed" for verdict in verdicts]
        item.score = statistics.mean(noticed) if noticed else 1.0
        if item.score < settings.min_mutation_score:
            item.dropped = "weak_tests"
        else:
            item.tests = names

"""Grades functions by the tests of a repository in a compiled language (kind `project`).

The answer replaces the function in the repository, the tests are compiled with it in one sandbox, and the test program
runs in another sandbox, without the sources. Tests and answer share a process, therefore:

- The language refuses answers that name something by which they could reach the tests (`ProjectLanguage.refusals`).
- Each test reports its begin and its result on lines that begin with a random text (the nonce). The nonce is different
  for each run, and the test program has read it before it runs code of the repository.
- A test passes only if it was reported exactly once as begun and once as passed, and if the program then ended with exit
  code 0 or because another test failed. Missing tests fail, and so do all tests of a program that ends early.

If the program dies, the tests without a result are run again, each in a separate process.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.grading.projects.project_language import (
    CACHE,
    MODULES,
    ROOT,
    FunctionAnswer,
    ProjectLanguage,
    SandboxStep,
)
from alignment.grading.projects.project_languages import PROJECT_LANGUAGES
from alignment.grading.python import check_began
from alignment.grading.task import RepositoryTests
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, verdict_of
from alignment.sandbox.compiled import Compiled, build
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun, parsed_object
from alignment.sandbox.slot import Slot
from alignment.sandbox.toolchains import NoToolchain, toolchain

MAX_LINE = 1 << 16
"""Largest number of bytes of a report of a test."""
DETAIL = 300


@dataclass(frozen=True)
class ProjectSnapshot:
    """A repository in a compiled language that is prepared for grading."""

    folder: Path
    data: dict[str, Any]
    """The content of the file `suite.json` in the folder."""

    @staticmethod
    def open(folder: Path) -> ProjectSnapshot:
        """Read the snapshot in a folder."""
        return ProjectSnapshot(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8")))

    @property
    def language(self) -> ProjectLanguage:
        return PROJECT_LANGUAGES[self.data["language"]]

    def text(self, file: str) -> str:
        """Return the text of a source file. Raises ValueError if the file does not exist."""
        return _text(self.folder / "tree" / file)

    def settings(self, role: str, allow_weaker: bool = False) -> LauncherSettings:
        """Return the launcher settings for a role: `builder` sees all sources and the build cache, `runner` no sources."""
        tree = (str(self.folder / ("tree" if role == "builder" else "bare")), ROOT)
        if role == "runner":
            return LauncherSettings(True, allow_weaker, tuple(self.data["runtime"]), mounts=(tree,))
        mounts = [tree, (str(self.folder / "cache"), CACHE)]
        mounts += [(path, MODULES) for path in self.data["modules"]]
        return LauncherSettings(True, allow_weaker, toolchain(self.data["language"]).shown, mounts=tuple(mounts))

    def check_toolchain(self) -> None:
        """Raise NoToolchain if the toolchain is missing, or differs from the one that the snapshot was made with."""
        version = toolchain(self.data["language"]).version
        if version != self.data["toolchain"]:
            raise NoToolchain(
                f"the tasks of {self.data['name']} were made with {self.data['toolchain']}, but this machine has {version}: install the "
                "former, or run the stage that builds the tasks again"
            )


@lru_cache(maxsize=64)
def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"the snapshot has no source file {path.name}") from None


class ProjectSuite:
    """A snapshot with two launchers: one for compilers, one for test programs. Only one thread at a time may use it."""

    def __init__(self, snapshot: ProjectSnapshot, allow_weaker: bool = False) -> None:
        snapshot.check_toolchain()
        self.snapshot = snapshot
        self.builder = Slot(snapshot.settings("builder", allow_weaker))
        self.runner = Slot(snapshot.settings("runner", allow_weaker))

    def close(self) -> None:
        """End both launchers."""
        self.builder.close()
        self.runner.close()

    def compiled(self, unit: str, changed: Mapping[str, str], cache: Path | None) -> Compiled:
        """Compile the test program of a unit with changed files, or read the program from the cache."""
        step = self.snapshot.language.build(unit)
        texts = list(changed.values())
        files = {f".replaced/{number}": text.encode("utf-8", "surrogatepass") for number, text in enumerate(texts)}
        program = step_program(replace(step, files=files), self.snapshot.data["environment"])
        program.replace = tuple(f"{ROOT}/{path}" for path in changed)
        identity = [
            self.snapshot.folder.name,
            self.snapshot.data["token"],
            unit,
            toolchain(self.snapshot.data["language"]).identity,
            step.script,
            sorted(changed),
        ]
        return build(
            self.builder,
            program,
            hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
            posixpath.basename(next(iter(changed))),
            cache,
        )


def step_program(
    step: SandboxStep, environment: Mapping[str, str], stdin: bytes = b"", reserved_bytes: int = 2 << 30
) -> Program:
    """Return the sandbox program that runs a step."""
    files = [(name, data) for name, data in step.files.items()]
    size = sum(len(data) for _, data in files)
    limits = step.limits.at_least(file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20))
    header: dict[str, Any] = {
        "files": [[name, len(data)] for name, data in files], "command": ["/bin/sh", "-c", step.script],
        "environment": {**environment, **step.environment}, "collect": list(step.collect),
    }  # fmt: skip
    body = b"".join(data for _, data in files)
    return Program("command", header, body, stdin, limits, address_space=False, reserved_bytes=reserved_bytes)


def grade(suite: ProjectSuite, tests: RepositoryTests, program: str, limits: Limits, cache: Path | None) -> Verdict:
    """Grade a function's body by the tests of its repository.

    Args:
        suite: the repository.
        tests: the tests to run and the function to replace, see `RepositoryTests`.
        program: the body, or code that contains the function.
        limits: limits of one run of the test program. The compiler has its own limits.
        cache: folder of compiled programs. With None, nothing is stored.

    Raises:
        KeyError, ValueError: the tests are not in the format of `RepositoryTests`.
        SandboxError: a process could not be started.
    """
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    data, target, language = suite.snapshot.data, tests["target"], suite.snapshot.language
    missing = [name for name in names if name not in data["tests"]]
    units = {data["tests"][name] for name in names if name not in missing}
    if missing or len(units) != 1:
        return error(
            "invalid_task", f"the snapshot has no test {missing[0]}" if missing else "the tests are of several units"
        )
    if "\0" in program:
        return failed("syntax", "a null character", len(names))
    text, facts = suite.snapshot.text(target["file"]), data["facts"].get(target["unit"], {})
    if program in tests.get("variants", ()):
        return _grade_variant(suite, tests, units.pop(), program, limits, cache)
    answer = language.read_answer(program, target)
    new = language.replaced(text, target, answer, facts) if answer is not None else None
    if new is None:
        return failed("syntax", "the answer is neither the function nor its body, or does not parse", len(names))
    refused = language.refusals(text, new, target, facts)
    if refused:
        return failed("forbidden", f"{refused[0]} may not be used in one process with the tests", len(names))
    (unit,) = units
    compiled = suite.compiled(unit, {target["file"]: new}, cache)
    if compiled.reason:
        detail = compiled.problem.replace(f"{ROOT}/", "")
        if compiled.reason == "compile" and posixpath.basename(target["file"]) not in detail:
            return error("toolchain", f"the compiler fails for a reason that is not in the answer: {detail}")
        return failed(compiled.reason, detail, len(names), compiled.cpu_seconds)
    verdict = _run_tests(suite, unit, names, compiled, limits)
    return replace(verdict, cpu_seconds=verdict.cpu_seconds + compiled.cpu_seconds)


def _grade_variant(
    suite: ProjectSuite, tests: RepositoryTests, unit: str, program: str, limits: Limits, cache: Path | None
) -> Verdict:
    """Grade a program that is one of the `variants` of a task. All variants are compiled to one test program.

    Variants that do not compile are left out, and the others compiled again. If that does not help, the program is
    graded alone.
    """
    names, target, language = [*tests["visible"], *tests["hidden"]], tests["target"], suite.snapshot.language
    text, facts = suite.snapshot.text(target["file"]), suite.snapshot.data["facts"].get(target["unit"], {})
    kept = list(dict.fromkeys(tests["variants"]))
    compiled = Compiled()
    while program in kept:
        answers = [language.read_answer(item, target) or FunctionAnswer("") for item in kept]
        new, lines = language.combined(text, target, answers, facts, suite.snapshot.data["token"])
        compiled = suite.compiled(unit, {target["file"]: new}, cache)
        if not compiled.reason:
            verdict = _run_tests(suite, unit, names, compiled, limits, kept.index(program) + 1)
            return replace(verdict, cpu_seconds=verdict.cpu_seconds + compiled.cpu_seconds)
        wrong = language.error_lines(compiled.problem, target["file"])
        bad = {
            item
            for item, (first, last) in zip(kept, lines, strict=True)
            if any(first <= line <= last for line in wrong)
        }
        if compiled.reason != "compile" or not bad:
            return grade(suite, {**tests, "variants": []}, program, limits, cache)
        kept = [item for item in kept if item not in bad]
    return failed("compile", compiled.problem, len(names))


def _run_tests(
    suite: ProjectSuite, unit: str, names: Sequence[str], compiled: Compiled, limits: Limits, variant: int = 0
) -> Verdict:
    """Run the tests with a compiled program, first together, then those without a result each alone."""
    short = {name.partition("::")[2]: name for name in names}
    results: dict[str, TestResult] = {}
    cpu = 0.0
    groups = [list(short)]
    while groups:
        group = groups.pop(0)
        nonce = secrets.token_hex(16)
        step = suite.snapshot.language.run(unit, group)
        step = replace(
            step,
            files={**step.files, **dict(compiled.files)},
            limits=limits.at_least(files=256, processes=256, output_bytes=4 << 20),
        )
        (run,) = suite.runner.run(
            [step_program(step, suite.snapshot.data["environment"], f"{nonce}\n{variant}\n".encode())]
        )
        check_began(run)
        cpu += run.cpu_seconds
        outcomes = read_reports(run, nonce, group)
        is_alone = len(group) == 1
        for name, result in outcomes.items():
            if result.reason != "died" or is_alone or run.stop is not None:
                results[name] = result
        if run.stop is None:
            groups += [[name] for name in group if name not in results]
        else:
            waiting = [name for item in groups for name in item]
            results.update({name: TestResult(run.stop) for name in waiting})
            groups = []
    return verdict_of([replace(results[name], detail=f"{short[name]}: {results[name].detail}" if results[name].detail else "")
                       for name in short], cpu)  # fmt: skip


def read_reports(run: ProgramRun, nonce: str, names: Sequence[str]) -> dict[str, TestResult]:
    """Return the result of each test from the output of a test program.

    A test that was not reported exactly once, or by a program that ended in an unexpected way, has the reason `died`, or
    the limit at which the program was killed.
    """
    begun: dict[str, int] = {}
    ended: dict[str, list[str]] = {}
    printed: list[bytes] = []
    for line in run.stdout.split(b"\n"):
        if not line.startswith(nonce.encode()):
            printed.append(line)
            continue
        message = parsed_object(line[len(nonce) :]) if len(line) <= MAX_LINE else None
        if message is None:
            continue
        if isinstance(message.get("begin"), str):
            begun[message["begin"]] = begun.get(message["begin"], 0) + 1
        elif isinstance(message.get("end"), str):
            ended.setdefault(message["end"], []).append(str(message.get("outcome")))
    text = b"\n".join(line for line in [*printed, run.stderr] if line.strip()).decode("utf-8", "replace").strip()
    detail = text[-DETAIL:].strip()
    unexpected = not set(ended) <= set(names)
    outcomes = {name: ended[name][0] for name in names if begun.get(name) == 1 and len(ended.get(name, [])) == 1}
    normal = run.stop is None and not unexpected
    normal = normal and (run.code == 0 or (len(outcomes) == len(names) and "failed" in outcomes.values()))
    results = {}
    for name in names:
        outcome = outcomes.get(name)
        if outcome == "passed" and normal:
            results[name] = TestResult(PASSED)
        elif outcome in ("failed", "skipped"):
            results[name] = TestResult("wrong_answer", detail or f"the test was {outcome}")
        else:
            results[name] = TestResult(run.stop or "died", detail or "the program ended before its tests did")
    return results

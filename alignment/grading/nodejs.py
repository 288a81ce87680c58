"""Grading by a JavaScript repository's own tests (kind ``node``): one small runner for the tests of many frameworks.

Two tiers, as for Python (`alignment.grading.repository`):

A  the tests' process holds the repository, with the function under test replaced by a stub that asks over descriptor 4;
   the candidate's process holds the repository without tests, with the answer in the function's place. Only plain data
   crosses (`node/wire.cjs`), so the verdict is computed where no untrusted code ever ran.
B  functions that exchange anything else run with the tests in one process. Forgeable, and marked as such: the files of
   the tests are empty before any of them runs, words by which a verdict could be forged are refused (`node_guard`), no
   code can be made from strings, and what judges is watched (`node/guard.cjs`).

Either way the original body is in no file that the candidate can read.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.grading import node_guard
from alignment.grading.node_syntax import Answer, read_answer
from alignment.grading.python import check
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, of_tests
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import Slot, run_across
from alignment.sandbox.toolchains import LANGUAGES, toolchain

ROOT, COMPILED = "/repository", "/compiled"
"""Where the sandbox shows the repository, and what was made of its source beforehand."""
PROGRAMS = Path(__file__).parent / "node"
STRICT = "'use strict';"
COMPILING = Limits(cpu_seconds=30, wall_seconds=30)
STUBS = 256  # transformed files that one thread keeps of a repository
_IMPORT = re.compile(
    r"""(\bfrom\s*|\bimport\s*\(?\s*)(['"])(node:test|test|tape|tap|uvu|vitest|@jest/globals|mocha)\2"""
)
_NAMES = ("test", "it", "describe", "suite", "before", "after", "beforeEach", "afterEach", "beforeAll", "afterAll", "mock", "skip",
          "todo", "only", "expect", "vi", "jest", "assert", "run", "specify", "context")  # fmt: skip


@dataclass(frozen=True)
class NodeSnapshot:
    """A prepared repository; `data` is its ``suite.json``, `tests` has the text of its test files by path."""

    folder: Path
    data: dict[str, Any]

    @staticmethod
    def open(folder: Path) -> NodeSnapshot:
        return NodeSnapshot(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8")))

    @property
    def tests(self) -> dict[str, str]:
        tests: dict[str, str] = self.data["tests"]
        return tests

    def text(self, file: str) -> str:
        """Of a source file. Raises ValueError where there is none."""
        return _text(self.folder / "tree" / file)

    def settings(self, role: str, allow_weaker: bool = False) -> LauncherSettings:
        """Of the launcher of a role: ``tester``, ``candidate``, or ``tracer`` for the tests with marks in each function."""
        shown, made = {
            "tester": ("tree", "compiled"),
            "candidate": ("bare", "compiled"),
            "tracer": ("marked", "marked-compiled"),
        }[role]
        mounts = [(str(self.folder / shown), ROOT), (str(self.folder / made), COMPILED)]
        mounts += [(source, f"{ROOT}/{place}") for source, place in self.data["modules"]]
        readable = (*toolchain("javascript").shown, *filter(None, [self.data["typescript"]]))
        return LauncherSettings(True, allow_weaker, readable, (), tuple(self.data["hidden"]), mounts=tuple(mounts))


@lru_cache(maxsize=64)
def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"the snapshot has no source file {path.name}") from None


class NodeSuite:
    """One repository's two launchers: for its tests, and for candidates."""

    def __init__(self, snapshot: NodeSnapshot, allow_weaker: bool = False) -> None:
        self.snapshot = snapshot
        self.tester = Slot(snapshot.settings("tester", allow_weaker))
        self.candidate = Slot(snapshot.settings("candidate", allow_weaker))

        self.stubs: dict[tuple[str, int], str] = {}

    def stub(self, text: str, target: Mapping[str, Any]) -> str:
        """The target's file with a stub in the function's place, as the loader wants it: made once for many answers."""
        key = (target["file"], target["start"])
        if key not in self.stubs:
            made = stubbed(text, target)
            if self.snapshot.data["transform"]:
                job = self.job("compile", {"sources": [[target["file"], made]], "nonce": "align:"}, {}, COMPILING)
                told = messages(self.tester.run([job])[0], "align:")
                made = next((item["text"] for item in told if "text" in item), made)
            while len(self.stubs) >= STUBS:
                del self.stubs[next(iter(self.stubs))]
            self.stubs[key] = made
        return self.stubs[key]

    def close(self) -> None:
        self.tester.close()
        self.candidate.close()

    def job(
        self, program: str, asked: Mapping[str, Any], changed: Mapping[str, str], limits: Limits, *,
        cover: tuple[str, ...] = (), flags: tuple[str, ...] = (), peer: bool = False,
    ) -> Program:  # fmt: skip
        """node with one of our programs; `changed` are the texts that it finds in files of the repository."""
        data = self.snapshot.data
        header = {"root": ROOT, "compiled": COMPILED, **{key: data[key] for key in ("transform", "aliases", "library", "setup", "typescript", "esm")}, **asked,
                  "secret": {path: f"/tmp/.replaced/{number}" for number, path in enumerate(changed) if path in self.snapshot.tests}}  # fmt: skip
        files = [("align.json", json.dumps(header).encode()), *_programs(),
                 *((f".replaced/{number}", text.encode("utf-8", "surrogatepass")) for number, text in enumerate(changed.values()))]  # fmt: skip
        size = sum(len(content) for _, content in files)
        limits = limits.at_least(
            memory_bytes=LANGUAGES["javascript"].memory_bytes, file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20),
            files=256, output_bytes=64 << 20,
        )  # fmt: skip
        sent: dict[str, Any] = {
            "files": [[name, len(content)] for name, content in files], "environment": {"NODE_ENV": "test", **data["environment"]}, "collect": [], "peer": peer,
            "command": [toolchain("javascript").tool, "--no-warnings", *data["flags"], *flags, f"{program}.cjs"],
        }  # fmt: skip
        places = tuple(f"{ROOT}/{path}" for path in changed)
        body = b"".join(content for _, content in files)
        return Program("command", sent, body, limits=limits, address_space=False, cover=cover, replace=places)


@lru_cache(maxsize=1)
def _programs() -> tuple[tuple[str, bytes], ...]:
    """Our programs, and what test files that are ES modules import instead of their framework."""
    shims = []
    for name in ("node:test", "test", "tape", "tap", "uvu", "vitest", "@jest/globals", "mocha"):
        text = f"module.exports = globalThis.__align_frameworks[{name!r}];\n"
        text += "".join(f"module.exports.{own} = module.exports.{own};\n" for own in _NAMES)
        shims.append((f"shims/{_file(name)}", text.encode()))
    return (*((path.name, path.read_bytes()) for path in sorted(PROGRAMS.glob("*.cjs"))), *shims)


def _file(framework: str) -> str:
    return f"{re.sub('[^a-z]', '-', framework)}.cjs"


def with_our_runner(text: str) -> str:
    """A test file that is an ES module, with its framework's imports turned to ours."""
    return _IMPORT.sub(lambda found: f"{found[1]}{found[2]}file:///tmp/shims/{_file(found[3])}{found[2]}", text)


def masked(text: str, target: Mapping[str, Any], parameters: str, body: str, before: str = "", after: str = "") -> str:
    """The file with other parameters and another body in the function's place; `before` and `after` go around it."""
    head, middle = text[: target["first"]], text[target["first"] : target["opening"]]
    if target["kind"] == "unnamed":
        middle += " align_target"
    return f"{head}{before}{middle}{parameters}{text[target['closing'] : target['start']]}{body}}}{after}{text[target['end'] + 1 :]}"


def stubbed(text: str, target: Mapping[str, Any]) -> str:
    """The file whose function asks another process."""
    if target["simple"]:
        own = text[target["opening"] : target["closing"]]
        return masked(text, target, own, " return globalThis.__align_call([...arguments]); ")
    return masked(text, target, "(...__a)", " return globalThis.__align_call(__a); ")


def exposed(text: str, target: Mapping[str, Any], answer: Answer) -> str:
    """The file with the answer, whose function can be called from outside."""
    parameters, body = _parts(text, target, answer)
    if target["kind"] == "expression":
        return masked(text, target, parameters, body, "(globalThis.__align_target = ", ")")
    name = "align_target" if target["kind"] == "unnamed" else target["name"].rpartition(".")[2]
    made = masked(text, target, parameters, body)
    place = target["last"] + len(made) - len(text)  # behind the statement, whose function is declared by then
    return f"{made[:place]}\n;globalThis.__align_target = {name};{made[place:]}"


def _parts(text: str, target: Mapping[str, Any], answer: Answer) -> tuple[str, str]:
    parameters = text[target["opening"] : target["closing"]] if answer.parameters is None else answer.parameters
    return parameters, f"{answer.body}\n"


def grade(suite: NodeSuite, tests: dict[str, Any], program: str, limits: Limits) -> Verdict:
    """``{"suite": id, "tier": "A", "target": {...}, "visible": [test ids], "hidden": [...], "copies": [files]}``; a test's
    id is ``file::suite > name``. ``most_messages``, where it is there, ends a test of tier A that sends more."""
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    target, snapshot = tests["target"], suite.snapshot
    file = target["file"]
    text = snapshot.text(file)
    files = sorted({name.partition("::")[0] for name in names})
    missing = [name for name in files if name not in snapshot.tests]
    if missing:
        return error("invalid_task", f"the snapshot has no test file {missing[0]}")
    if "\0" in program:
        return failed("syntax", "a null character", len(names))
    answer = read_answer(program, target)
    if answer is None:
        return failed("syntax", "neither the function nor its body, as far as it can be parsed", len(names))
    nonce = secrets.token_hex(16)
    own = {name: snapshot.tests[name] for name in files}
    limit, most = round(1000 * limits.wall_seconds), tests.get("most_messages")
    asked = {"nonce": nonce, "tests": names, "files": files, "limit": limit, "most": most}
    compiled = _there(snapshot, "compiled", COMPILED, [file])
    outer = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
    if tests.get("tier", "A") == "A":
        proxied = {**asked, "mode": "proxied"}
        hidden = compiled + _copies(snapshot, "bare", tests)
        tester, candidate = run_across([
            (suite.tester, suite.job("tester", proxied, {**own, file: suite.stub(text, target)}, outer, cover=compiled, peer=True)),
            (suite.candidate, suite.job("candidate", {"file": file}, {file: exposed(text, target, answer)}, limits, cover=hidden, peer=True)),
        ])  # fmt: skip
        cpu = tester.cpu_seconds + candidate.cpu_seconds
        check(candidate)
        if candidate.stop is not None and candidate.stop != "finished":
            return failed(candidate.stop, "", len(names), cpu)
        return _verdict(tester, candidate.stderr, nonce, names, cpu, True)
    before = node_guard.words(text[target["start"] : target["end"]], file)
    refused = sorted(node_guard.words(f"{answer.parameters or ''};{answer.body}", file) - before)
    if refused:
        said = f"{refused[0]!r} is not for a body that shares a process with its tests"
        return failed("forbidden", said, len(names))
    parameters, body = _parts(text, target, answer)
    whole = masked(text, target, parameters, body)
    whole = whole if whole.startswith(("#!", STRICT)) else STRICT + whole
    changed = {**own, file: whole}
    cover = compiled + _copies(snapshot, "tree", tests)
    flags = ("--disallow-code-generation-from-strings", "--disable-proto=delete")
    (run,) = suite.tester.run(
        [suite.job("tester", {**asked, "mode": "whole"}, changed, limits, cover=cover, flags=flags)]
    )
    return _verdict(run, run.stderr, nonce, names, run.cpu_seconds, False)


def _copies(snapshot: NodeSnapshot, shown: str, tests: Mapping[str, Any]) -> tuple[str, ...]:
    """The other files that hold the original body, as far as this tree has them."""
    names = tests.get("copies", ())
    return _there(snapshot, shown, ROOT, names) + _there(snapshot, "compiled", COMPILED, names)


def _there(snapshot: NodeSnapshot, shown: str, place: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{place}/{name}" for name in names if (snapshot.folder / shown / name).is_file())


def _verdict(run: ProgramRun, stderr: bytes, nonce: str, names: list[str], cpu: float, apart: bool) -> Verdict:
    """What the process that ran the tests says; anything but a full account of every test is a failure."""
    check(run)
    told = [message for message in messages(run, nonce) if message.get("done")]
    said = stderr.decode(errors="replace").strip()
    if run.stop is not None or len(told) != 1:
        return failed(run.stop or "died", said[-300:] or "the program ended before its tests did", len(names), cpu)
    (done,) = told
    problem = next((detail for _, detail in done["problems"]), "")
    if done["gone"] or done["changed"] or (problem and not apart):
        said = problem or said
        if done["changed"]:
            return failed("forbidden", "what judges was changed", len(names), cpu)
        reason = (
            "syntax" if "SyntaxError" in said or "Transform failed" in said else "died" if done["gone"] else "exception"
        )
        return failed(reason, said[-300:] or "the program ended, or spoke out of turn", len(names), cpu)
    found = {name: rest for name, *rest in done["results"]}
    outcomes = []
    for name in names:
        outcome, detail, sent = found.get(name, ("missing", problem, 0))
        if outcome == "missing" and apart:
            return error("invalid_task", f"the snapshot has no test {name}: {problem}")
        outcomes.append(
            TestResult(PASSED, messages=sent)
            if outcome == "passed"
            else TestResult("wrong_answer", f"{name}: {detail}", sent)
        )
    return of_tests(outcomes, cpu)


def messages(run: ProgramRun, nonce: str) -> list[dict[str, Any]]:
    """What our program in the tester's process said, among what tests printed."""
    found = []
    for line in run.stdout.decode("utf-8", "replace").split("\n"):
        if line.startswith(nonce):
            try:
                message = json.loads(line[len(nonce) :])
            except ValueError:
                continue
            if isinstance(message, dict):
                found.append(message)
    return found

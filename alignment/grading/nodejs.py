"""Grades functions by the tests of their JavaScript repository (kind `node`), with one runner for many test frameworks.

There are two tiers, as for Python (`alignment.grading.repository`):

A  The process that runs the tests loads the repository with a stub in place of the function. The stub sends each call
   over descriptor 4. The candidate's process loads the repository without tests, with the model's answer in place of
   the function. The processes exchange only plain data (`node/wire.cjs`), so that the verdict is computed in a process
   that has run no untrusted code.
B  Functions that exchange other values run in one process with the tests. A program can forge the verdict, so these
   tasks are marked as forgeable. Test files are emptied before any test runs, words that are known to help forgery are
   refused (`node_guard`), strings cannot be run as code, and the objects with which tests compare values are monitored
   for changes (`node/guard.cjs`).

In both tiers, no file that the candidate can read contains the original body.
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
from alignment.grading.python import MESSAGE_BYTES, check_began
from alignment.grading.task import RepositoryTests
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, verdict_of
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun, parsed_object
from alignment.sandbox.slot import Slot, run_across
from alignment.sandbox.toolchains import LANGUAGES, toolchain

ROOT, COMPILED = "/repository", "/compiled"
"""Paths in the sandbox: of the repository, and of its source files in the compiled form that the loader runs."""
SCRIPTS = Path(__file__).parent / "node"
STRICT = "'use strict';"
COMPILE_LIMITS = Limits(cpu_seconds=30, wall_seconds=30)
RESULT_BYTES = 1 << 13
"""Largest number of bytes that the result of one test takes in the report of all tests, with the test's name."""
MAX_STUBS = 256
"""Maximum number of transformed files of one repository that a thread keeps in memory."""
TIER_B_FLAGS = ("--disallow-code-generation-from-strings", "--disable-proto=delete")
_IMPORT = re.compile(
    r"""(\bfrom\s*|\bimport\s*\(?\s*)(['"])(node:test|test|tape|tap|uvu|vitest|@jest/globals|mocha)\2"""
)
_FRAMEWORKS = ("node:test", "test", "tape", "tap", "uvu", "vitest", "@jest/globals", "mocha")
_NAMES = ("test", "it", "describe", "suite", "before", "after", "beforeEach", "afterEach", "beforeAll", "afterAll", "mock", "skip",
          "todo", "only", "expect", "vi", "jest", "assert", "run", "specify", "context")  # fmt: skip
"""Names of the functions that ES modules may import from a test framework."""


@dataclass(frozen=True)
class NodeSnapshot:
    """A JavaScript repository that is prepared for grading."""

    folder: Path
    data: dict[str, Any]
    """The content of the file `suite.json` in the folder."""

    @staticmethod
    def open(folder: Path) -> NodeSnapshot:
        """Read the snapshot in a folder."""
        return NodeSnapshot(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8")))

    @property
    def tests(self) -> dict[str, str]:
        """Return the text of each test file, keyed by path."""
        tests: dict[str, str] = self.data["tests"]
        return tests

    def text(self, file: str) -> str:
        """Return the text of a source file. Raises ValueError if the file does not exist."""
        return _text(self.folder / "tree" / file)

    def settings(self, role: str, allow_weaker: bool = False) -> LauncherSettings:
        """Return the launcher settings for a role: `tester`, `candidate` or `tracer`.

        The `tracer` runs the tests on a repository in which each function records that it was called.
        """
        shown, compiled = {
            "tester": ("tree", "compiled"),
            "candidate": ("bare", "compiled"),
            "tracer": ("marked", "marked-compiled"),
        }[role]
        mounts = [(str(self.folder / shown), ROOT), (str(self.folder / compiled), COMPILED)]
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
    """A snapshot with two launchers: one for tests, one for candidates. Only one thread at a time may use it."""

    def __init__(self, snapshot: NodeSnapshot, allow_weaker: bool = False) -> None:
        self.snapshot = snapshot
        self.tester = Slot(snapshot.settings("tester", allow_weaker))
        self.candidate = Slot(snapshot.settings("candidate", allow_weaker))
        self.stubs: dict[tuple[str, int], str] = {}

    def stub(self, text: str, target: Mapping[str, Any]) -> str:
        """Return a function's file with a stub in place of the function, transformed for the loader.

        The result is cached, because all answers for the same function use the same file.
        """
        key = (target["file"], target["start"])
        if key not in self.stubs:
            stub = stubbed(text, target)
            if self.snapshot.data["transform"]:
                request = {"sources": [[target["file"], stub]], "nonce": "align:"}
                (run,) = self.tester.run([self.program("compile", request, {}, COMPILE_LIMITS)])
                stub = next((item["text"] for item in messages(run, "align:") if "text" in item), stub)
            while len(self.stubs) >= MAX_STUBS:
                del self.stubs[next(iter(self.stubs))]
            self.stubs[key] = stub
        return self.stubs[key]

    def close(self) -> None:
        """End both launchers."""
        self.tester.close()
        self.candidate.close()

    def program(
        self, script: str, request: Mapping[str, Any], changed: Mapping[str, str], limits: Limits, *,
        cover: tuple[str, ...] = (), flags: tuple[str, ...] = (), peer: bool = False,
    ) -> Program:  # fmt: skip
        """Return the sandbox program that runs node with one of the scripts in `node/`.

        Args:
            script: the name of the script, without the suffix.
            request: fields of `align.json`, in addition to the fields that describe the repository.
            changed: new text of changed files of the repository, keyed by path.
            limits: limits of the process. Sizes of files and output are raised to the values that node needs.
            cover: files that the script sees as empty.
            flags: command-line flags of node.
            peer: whether descriptor 4 is a connection to the other process of the run.
        """
        data = self.snapshot.data
        settings = {key: data[key] for key in ("transform", "aliases", "library", "setup", "typescript", "esm")}
        secret = {
            path: f"/tmp/.replaced/{number}" for number, path in enumerate(changed) if path in self.snapshot.tests
        }
        message = {"root": ROOT, "compiled": COMPILED, **settings, **request, "secret": secret}
        files = [("align.json", json.dumps(message).encode()), *_scripts(),
                 *((f".replaced/{number}", text.encode("utf-8", "surrogatepass")) for number, text in enumerate(changed.values()))]  # fmt: skip
        size = sum(len(content) for _, content in files)
        limits = limits.at_least(
            file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20), files=256, output_bytes=64 << 20,
        )  # fmt: skip
        header: dict[str, Any] = {
            "files": [[name, len(content)] for name, content in files], "environment": {"NODE_ENV": "test", **data["environment"]}, "collect": [], "peer": peer,
            "command": [toolchain("javascript").tool, "--no-warnings", *data["flags"], *flags, f"{script}.cjs"],
        }  # fmt: skip
        places = tuple(f"{ROOT}/{path}" for path in changed)
        body = b"".join(content for _, content in files)
        return Program(
            "command", header, body, limits=limits, address_space=False, cover=cover, replace=places,
            reserved_bytes=LANGUAGES["javascript"].reserved_bytes,
        )  # fmt: skip


@lru_cache(maxsize=1)
def _scripts() -> tuple[tuple[str, bytes], ...]:
    """Return name and content of each script in `node/`, and of each module (shim) that replaces a test framework."""
    shims = []
    for framework in _FRAMEWORKS:
        text = f"module.exports = globalThis.__align_frameworks[{framework!r}];\n"
        text += "".join(f"module.exports.{name} = module.exports.{name};\n" for name in _NAMES)
        shims.append((f"shims/{_shim_file(framework)}", text.encode()))
    return (*((path.name, path.read_bytes()) for path in sorted(SCRIPTS.glob("*.cjs"))), *shims)


def _shim_file(framework: str) -> str:
    return f"{re.sub('[^a-z]', '-', framework)}.cjs"


def with_shims(text: str) -> str:
    """Return the text of an ES module test file with imports of the test framework replaced by this runner's shims."""
    return _IMPORT.sub(lambda match: f"{match[1]}{match[2]}file:///tmp/shims/{_shim_file(match[3])}{match[2]}", text)


def masked(text: str, target: Mapping[str, Any], parameters: str, body: str, before: str = "", after: str = "") -> str:
    """Return the text of a file in which parameters and body of one function are replaced.

    Args:
        text: the text of the file.
        target: fields that locate the function in its file: the result of `JsFunction.target()`.
        parameters: the new parameters, including the parentheses.
        body: the new body, without the braces.
        before: text to insert before the function.
        after: text to insert after the function.
    """
    head, opening = text[: target["first"]], text[target["first"] : target["opening"]]
    if target["kind"] == "unnamed":
        opening += " align_target"
    between, tail = text[target["closing"] : target["start"]], text[target["end"] + 1 :]
    return f"{head}{before}{opening}{parameters}{between}{body}}}{after}{tail}"


def stubbed(text: str, target: Mapping[str, Any]) -> str:
    """Return the text of a file in which the function under test sends its calls to the other process."""
    if target["simple"]:
        parameters = text[target["opening"] : target["closing"]]
        return masked(text, target, parameters, " return globalThis.__align_call([...arguments]); ")
    return masked(text, target, "(...__a)", " return globalThis.__align_call(__a); ")


def exposed(text: str, target: Mapping[str, Any], answer: Answer) -> str:
    """Return the text of a file in which the answer replaces the function and is set as `globalThis.__align_target`."""
    parameters, body = _parts(text, target, answer)
    if target["kind"] == "expression":
        return masked(text, target, parameters, body, "(globalThis.__align_target = ", ")")
    name = "align_target" if target["kind"] == "unnamed" else target["name"].rpartition(".")[2]
    file = masked(text, target, parameters, body)
    place = target["last"] + len(file) - len(text)  # after the statement, when the function is declared
    return f"{file[:place]}\n;globalThis.__align_target = {name};{file[place:]}"


def _parts(text: str, target: Mapping[str, Any], answer: Answer) -> tuple[str, str]:
    parameters = text[target["opening"] : target["closing"]] if answer.parameters is None else answer.parameters
    return parameters, f"{answer.body}\n"


def grade(suite: NodeSuite, tests: RepositoryTests, program: str, limits: Limits) -> Verdict:
    """Grade a function's body by the tests of its repository.

    Args:
        suite: the repository.
        tests: the tests to run and the function to replace, see `RepositoryTests`. The identifier of a test is
            `file::suite > name`.
        program: the body, or code that contains the function.
        limits: limits of the program.

    Raises:
        KeyError, ValueError: the tests are not in the format of `RepositoryTests`.
        SandboxError: a process could not be started.
    """
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    target, snapshot = tests["target"], suite.snapshot
    text = snapshot.text(target["file"])
    files = sorted({name.partition("::")[0] for name in names})
    missing = [name for name in files if name not in snapshot.tests]
    if missing:
        return error("invalid_task", f"the snapshot has no test file {missing[0]}")
    if "\0" in program:
        return failed("syntax", "a null character", len(names))
    answer = read_answer(program, target)
    if answer is None:
        return failed("syntax", "the answer is neither the function nor its body, or does not parse", len(names))
    request = {
        "nonce": secrets.token_hex(16), "tests": names, "files": files,
        "limit": round(1000 * limits.wall_seconds), "most": tests.get("most_messages"),
    }  # fmt: skip
    if tests.get("tier", "A") == "A":
        return _grade_apart(suite, tests, text, answer, request, limits)
    return _grade_together(suite, tests, text, answer, request, limits)


def _grade_apart(
    suite: NodeSuite, tests: RepositoryTests, text: str, answer: Answer, request: dict[str, Any], limits: Limits
) -> Verdict:
    """Grade an answer with the tests and the candidate in two processes (tier A)."""
    snapshot, target, file = suite.snapshot, tests["target"], tests["target"]["file"]
    compiled = _existing(snapshot, "compiled", COMPILED, [file])
    test_files = {name: snapshot.tests[name] for name in request["files"]} | {file: suite.stub(text, target)}
    # The tester gets more time than the program, so that the program reaches its limit first.
    tester_limits = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
    tester, candidate = run_across([
        (suite.tester, suite.program(
            "tester", {**request, "mode": "proxied"}, test_files, tester_limits, cover=compiled, peer=True,
        )),
        (suite.candidate, suite.program(
            "candidate", {"file": file}, {file: exposed(text, target, answer)}, limits,
            cover=compiled + _copies(snapshot, "bare", tests), peer=True,
        )),
    ])  # fmt: skip
    cpu, names = tester.cpu_seconds + candidate.cpu_seconds, request["tests"]
    check_began(candidate)
    if candidate.stop is not None and candidate.stop != "finished":
        return failed(candidate.stop, "", len(names), cpu)
    return _verdict(tester, candidate.stderr, request["nonce"], names, cpu, apart=True)


def _grade_together(
    suite: NodeSuite, tests: RepositoryTests, text: str, answer: Answer, request: dict[str, Any], limits: Limits
) -> Verdict:
    """Grade an answer with the tests and the candidate in one process (tier B)."""
    snapshot, target, file = suite.snapshot, tests["target"], tests["target"]["file"]
    names = request["tests"]
    allowed = node_guard.restricted_words(text[target["start"] : target["end"]], file)
    refused = sorted(node_guard.restricted_words(f"{answer.parameters or ''};{answer.body}", file) - allowed)
    if refused:
        return failed("forbidden", f"{refused[0]!r} may not be used in one process with the tests", len(names))
    parameters, body = _parts(text, target, answer)
    source = masked(text, target, parameters, body)
    source = source if source.startswith(("#!", STRICT)) else STRICT + source
    changed = {name: snapshot.tests[name] for name in request["files"]} | {file: source}
    cover = _existing(snapshot, "compiled", COMPILED, [file]) + _copies(snapshot, "tree", tests)
    tester = suite.program("tester", {**request, "mode": "whole"}, changed, limits, cover=cover, flags=TIER_B_FLAGS)
    (run,) = suite.tester.run([tester])
    return _verdict(run, run.stderr, request["nonce"], names, run.cpu_seconds, apart=False)


def _copies(snapshot: NodeSnapshot, tree: str, tests: RepositoryTests) -> tuple[str, ...]:
    """Return the sandbox paths of all files listed in `copies` (copies of the original body) that exist in a tree."""
    names = tests.get("copies", ())
    return _existing(snapshot, tree, ROOT, names) + _existing(snapshot, "compiled", COMPILED, names)


def _existing(snapshot: NodeSnapshot, tree: str, place: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{place}/{name}" for name in names if (snapshot.folder / tree / name).is_file())


def _verdict(run: ProgramRun, stderr: bytes, nonce: str, names: list[str], cpu: float, *, apart: bool) -> Verdict:
    """Return the verdict from the report of the process that ran the tests. A missing test result is a failure."""
    check_began(run)
    # In tier B the process has run the program, so its output is not trusted.
    largest = MESSAGE_BYTES + len(names) * RESULT_BYTES
    reports = [message for message in messages(run, nonce, 1000, largest) if message.get("done")]
    printed = stderr.decode(errors="replace").strip()
    if run.stop is not None or len(reports) != 1:
        detail = printed[-300:] or "the program ended before its tests did"
        return failed(run.stop or "died", detail, len(names), cpu)
    (report,) = reports
    problem = next((detail for _, detail in report["problems"]), "")
    if report["changed"]:
        return failed("forbidden", "the program changed objects that the tests judge by", len(names), cpu)
    if report["gone"] or (problem and not apart):
        text = problem or printed
        is_syntax = "SyntaxError" in text or "Transform failed" in text
        reason = "syntax" if is_syntax else "died" if report["gone"] else "exception"
        return failed(reason, text[-300:] or "the program ended, or sent something out of turn", len(names), cpu)
    results = {name: rest for name, *rest in report["results"]}
    outcomes = []
    for name in names:
        outcome, detail, sent = results.get(name, ("missing", problem, 0))
        if outcome == "missing" and apart:
            return error("invalid_task", f"the snapshot has no test {name}: {problem}")
        outcomes.append(
            TestResult(PASSED, messages=sent)
            if outcome == "passed"
            else TestResult("wrong_answer", f"{name}: {detail}", sent)
        )
    return verdict_of(outcomes, cpu)


def messages(run: ProgramRun, nonce: str, most: int | None = None, largest: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of a script in `node/`: the lines of stdout that begin with the nonce.

    Args:
        run: the run of the script.
        nonce: random text that the script received.
        most: how many messages are returned at most.
        largest: largest number of bytes of a message. Larger messages are left out.
    """
    parsed: list[dict[str, Any]] = []
    output, beginning = b"\n" + run.stdout, b"\n" + nonce.encode()
    position = output.find(beginning)
    while position >= 0 and (most is None or len(parsed) < most):
        start = position + len(beginning)
        end = output.find(b"\n", start)
        end = len(output) if end < 0 else end
        message = None if largest is not None and end - start > largest else parsed_object(output[start:end])
        if message is not None:
            parsed.append(message)
        position = output.find(beginning, end)
    return parsed

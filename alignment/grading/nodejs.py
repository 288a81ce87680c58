"""Grading by a JavaScript repository's own tests (kind ``node``): node's test runner, candidate and tests apart.

The tester's process holds the tests and the whole repository, with the function under test replaced by a stub that asks
over descriptor 4; the candidate's process holds the repository without tests, with the answer in the function's place.
Only plain data crosses: what JSON has, and undefined, NaN, infinities, -0, big integers and errors. So a verdict is computed
where no untrusted code ever ran (tier A); functions that exchange anything else don't become tasks.
"""

from __future__ import annotations

import json
import posixpath
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.grading.node_programs import CANDIDATE, SHIM, TESTER
from alignment.grading.python import check
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, of_tests
from alignment.sandbox.languages import LANGUAGES, toolchain
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import WALL_GRACE, Job, Run, Settings, Slot, run_across

MODULES = "/modules/node_modules"
"""Where the sandbox shows the packages that the repository has installed."""
_RUNNER = re.compile(r"""(\b(?:from|require\(|import\(|import)\s*)(['"])node:test\2""")
SHIM_FILE = "align_test_shim.cjs"
SOURCES = (".js", ".cjs", ".mjs", ".json")


@dataclass(frozen=True)
class NodeSnapshot:
    """A repository's JavaScript, by path; `tests` are the paths of its test files."""

    folder: Path
    texts: dict[str, str]
    tests: frozenset[str]
    modules: str
    typescript: bool = False
    """Whether there are tests that node can't run as they are."""

    @staticmethod
    def open(folder: Path) -> NodeSnapshot:
        data = json.loads((folder / "suite.json").read_text(encoding="utf-8"))
        return NodeSnapshot(folder, data["texts"], frozenset(data["tests"]), data["modules"], data["typescript"])

    def files(self, bare: bool, changed: Mapping[str, str]) -> list[tuple[str, bytes]]:
        shown = {**self.texts, **changed}
        if not bare:
            shown[SHIM_FILE] = SHIM
            for path in self.tests:
                near = posixpath.relpath(SHIM_FILE, posixpath.dirname(path) or ".")
                there = near if near.startswith(".") else f"./{near}"
                shown[path] = _RUNNER.sub(rf"\g<1>'{there}'", shown[path])
        return [(path, text.encode("utf-8", "surrogatepass")) for path, text in shown.items() if not (bare and path in self.tests)]  # fmt: skip


class NodeSuite:
    """One repository's two launchers: for its tests, and for candidates."""

    def __init__(self, snapshot: NodeSnapshot, fallback: bool = False) -> None:
        self.snapshot = snapshot
        tools = toolchain("javascript")
        mounts = ((snapshot.modules, MODULES),) if snapshot.modules else ()
        settings = Settings(True, fallback, tools.shown, (), mounts=mounts)
        self.tester, self.candidate = Slot(settings), Slot(settings)

    def close(self) -> None:
        self.tester.close()
        self.candidate.close()

    def job(self, program: str, header: dict[str, Any], files: list[tuple[str, bytes]], limits: Limits) -> Job:
        """node with one of our programs; the repository lies in its working folder."""
        asked = {**header, "modules": MODULES if self.snapshot.modules else ""}
        files = [("align.cjs", program.encode()), ("align.json", json.dumps(asked).encode()),
                 *((f"repository/{path}", content) for path, content in files)]  # fmt: skip
        size = sum(len(content) for _, content in files)
        language = LANGUAGES["javascript"]
        limits = limits.at_least(
            memory_bytes=language.memory_bytes, file_bytes=size + (1 << 20), tmp_bytes=2 * size + (32 << 20), files=256,
            output_bytes=16 << 20,
        )  # fmt: skip
        sent: dict[str, Any] = {
            "files": [[name, len(content)] for name, content in files], "environment": {}, "collect": [], "peer": header.get("mode") != "trace",
            "command": [toolchain("javascript").tool, "--no-warnings", "align.cjs"],
        }  # fmt: skip
        return Job("command", sent, b"".join(content for _, content in files), limits=limits, address_space=False)


def replaced(text: str, target: Mapping[str, Any], definition: str) -> str:
    """The file with another definition of the function in its place, exported as the original is."""
    name, export = target["name"], target["export"]
    tail = {"named": f"\nexport {{ {name} }};", "default": f"\nexport default {name};"}.get(export, "")
    return f"{text[: target['start']]}{definition}\n{text[target['end'] :]}{tail}"


def answer(program: str, target: Mapping[str, Any]) -> str:
    """The definition in what the candidate wrote: code that has the function, or its body alone."""
    name = re.escape(target["name"])
    plain = re.sub(r"^(\s*)export\s+(?:default\s+)?(?=(?:async\s+)?function\b|const\b|let\b|var\b|class\b)", r"\1", program, flags=re.MULTILINE)  # fmt: skip
    if re.search(rf"\bfunction\s*\*?\s*{name}\b|\b(?:const|let|var)\s+{name}\b", plain):
        return plain
    return f"{target['header']} {{\n{program}\n}}"


def grade(suite: NodeSuite, tests: dict[str, Any], program: str, limits: Limits) -> Verdict:
    """``{"suite": id, "target": {...}, "visible": [test ids], "hidden": [test ids]}``; a test's id is ``file::name``."""
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    target, snapshot = tests["target"], suite.snapshot
    file = target["file"]
    if file not in snapshot.texts:
        return error("invalid_task", f"the snapshot has no file {file}")
    text = snapshot.texts[file]
    stub = f"{target['stub']} {{ return globalThis.__align_call(__a); }}"
    module = replaced(text, target, answer(program, target)) + f"\nglobalThis.__align_target = {target['name']};\n"
    nonce = secrets.token_hex(16)
    asked = {
        "mode": "grade",
        "nonce": nonce,
        "tests": names,
        "files": sorted({name.partition("::")[0] for name in names}),
    }
    outer = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
    tester, candidate = run_across([
        (suite.tester, suite.job(TESTER, asked, snapshot.files(False, {file: replaced(text, target, stub)}), outer)),
        (suite.candidate, suite.job(CANDIDATE, {"file": file}, snapshot.files(True, {file: module}), limits)),
    ])  # fmt: skip
    cpu = tester.cpu_seconds + candidate.cpu_seconds
    check(candidate)
    if candidate.stop is not None and candidate.stop != "finished":
        return failed(candidate.stop, "", len(names), cpu)
    return _verdict(tester, candidate, nonce, names, cpu)


def _verdict(tester: Run, candidate: Run, nonce: str, names: list[str], cpu: float) -> Verdict:
    check(tester)
    results = messages(tester, nonce)
    done = next((message for message in results if message.get("done")), None)
    if tester.stop is not None or done is None:
        return failed(tester.stop or "died", tester.stderr.decode(errors="replace")[-300:], len(names), cpu)
    if done["gone"]:
        said = candidate.stderr.decode(errors="replace").strip()
        reason = "syntax" if "SyntaxError" in said else "died"
        return failed(reason, said[-300:] or "the program ended, or spoke out of turn", len(names), cpu)
    found: dict[str, dict[str, Any]] = {}
    for message in results:
        if "test" in message and (message["test"] not in found or message["passed"] is not True):
            found[message["test"]] = message  # of two tests with one name, the one that failed
    outcomes = []
    for name in names:
        if name not in found:
            return error("invalid_task", f"the snapshot has no test {name}")
        detail = str(found[name].get("detail", ""))[:300]
        outcomes.append(TestResult(PASSED) if found[name]["passed"] is True else TestResult("wrong_answer", f"{name}: {detail}"))  # fmt: skip
    return of_tests(outcomes, cpu)


def messages(run: Run, nonce: str) -> list[dict[str, Any]]:
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

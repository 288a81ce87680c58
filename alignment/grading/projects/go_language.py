"""Go: how tests of a module are listed, measured, built and run. See `ProjectLanguage`."""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from alignment.grading.projects.go_guard import go_refusals
from alignment.grading.projects.go_scope import declared_names
from alignment.grading.projects.go_syntax import combine_go_bodies, go_functions, read_go_answer, replace_go_function
from alignment.grading.projects.project_language import (
    CACHE,
    MODULES,
    PROGRAM,
    ROOT,
    FunctionAnswer,
    ProjectFunction,
    SandboxStep,
    Survey,
)
from alignment.grading.source_tree import SourceTree
from alignment.sandbox.limits import COMPILE, Limits
from alignment.sandbox.toolchains import toolchain

_SURVEY_LIMITS = Limits(
    cpu_seconds=3600, wall_seconds=3600, memory_bytes=8 << 30, processes=512, files=1024, file_bytes=256 << 20,
    tmp_bytes=4 << 30, tmp_inodes=1 << 17, output_bytes=16 << 20, reply_bytes=1 << 30,
)  # fmt: skip
_SKIPPED = ("vendor", "testdata")
_BLOCK = re.compile(r"^(.*):(\d+)\.\d+,(\d+)\.\d+ \d+ (\d+)$")
_TEST = re.compile(r"Test(?:[^a-z].*)?$")
_RECORDER = """package {package}

import (
	io_{token} "io"
	os_{token} "os"
	strconv_{token} "strconv"
	strings_{token} "strings"
	testing_{token} "testing"
)

var Record_{token} func(*testing_{token}.T, string)
var Variant_{token} int

func init() {{
	given, _ := io_{token}.ReadAll(os_{token}.Stdin)
	lines := strings_{token}.SplitN(string(given)+"\\n", "\\n", 3)
	nonce := lines[0]
	Variant_{token}, _ = strconv_{token}.Atoi(lines[1])
	out := os_{token}.Stdout
	Record_{token} = func(t *testing_{token}.T, name string) {{
		quoted := strconv_{token}.Quote(name)
		out.WriteString("\\n" + nonce + "{{\\"begin\\": " + quoted + "}}\\n")
		t.Cleanup(func() {{
			outcome := "passed"
			if t.Failed() {{
				outcome = "failed"
			}} else if t.Skipped() {{
				outcome = "skipped"
			}}
			out.WriteString("\\n" + nonce + "{{\\"end\\": " + quoted + ", \\"outcome\\": \\"" + outcome + "\\"}}\\n")
		}})
	}}
}}
"""
"""File of the tests' package that reads the nonce and reports results. Its cleanup is registered before all others of a
test, so that it runs last: after the subtests, which mark the test as failed when they fail."""
_SURVEY = """
export GOCACHE=/tmp/cache
mkdir -p /tmp/cache /tmp/survey
end=$(( $(date +%s) + {budget} ))
number=0
for unit in {units}; do
  number=$((number + 1)); out=/tmp/survey/$number
  cd {root}/"$unit"
  go test -c -vet=off -gcflags=-e -ldflags='-s -w' -o /tmp/first . >$out.log 2>&1 </dev/null || {{ mv $out.log $out.failed; continue; }}
  go test -c -vet=off -cover -covermode=count -o /tmp/cover . >>$out.log 2>&1 </dev/null || {{ mv $out.log $out.failed; continue; }}
  /tmp/cover -test.list . </dev/null >$out.list 2>/dev/null
  /tmp/cover -test.run '^$' -test.coverprofile=/tmp/profile </dev/null >/dev/null 2>&1
  grep -v ' 0$' /tmp/profile >$out.loading 2>/dev/null; rm -f /tmp/profile
  for name in $(grep '^Test' $out.list); do
    [ $(date +%s) -lt $end ] || {{ echo "$name over_budget" >>$out.tests; continue; }}
    timeout -k 1 {seconds} /tmp/cover -test.run "^$name\\$" -test.coverprofile=/tmp/profile </dev/null >/tmp/printed 2>&1
    code=$?
    echo "$name $code" >>$out.tests
    [ $code = 0 ] && grep -v ' 0$' /tmp/profile >$out.$name.profile
    [ $code = 0 ] || tail -c 600 /tmp/printed >$out.$name.printed
    rm -f /tmp/profile
  done
done
rm -f /tmp/cover /tmp/first
"""


class GoLanguage:
    """Go modules whose tests use the package `testing`."""

    name, title, suffix, comment = "go", "Go", ".go", "//"

    cache_folders = tuple(f"{number:02x}" for number in range(256))
    test_help = "write functions func TestName(t *testing.T) in files *_test.go"

    def hint(self, problem: str) -> str:
        if re.search(
            r"cannot find module|no required module|module lookup disabled|missing go.sum entry|cannot find package",
            problem,
        ):
            return " (download the modules on this machine with `go mod download`, or vendor them with `go mod vendor`)"
        if re.search(r"requires go >=|go\.mod requires|note: module requires Go", problem):
            return f" (this machine has {toolchain('go').version}; install a newer Go)"
        return ""

    def reads(self, path: str) -> bool:
        return path.endswith((".go", "go.mod"))

    def modules(self) -> list[str]:
        folder = go_environment("GOMODCACHE")
        return [folder] if folder and Path(folder).is_dir() else []

    def runtime(self) -> list[str]:
        return []

    def manifest(self, paths: Sequence[str]) -> bool:
        return any(posixpath.basename(path) == "go.mod" and not _is_skipped(path) for path in paths)

    def is_test(self, path: str) -> bool:
        return path.endswith("_test.go") or _is_skipped(path)

    def functions(self, file: str, text: str) -> list[ProjectFunction]:
        return go_functions(file, text)

    def tests(self, sources: Mapping[str, str]) -> dict[str, str]:
        return {
            f"{path}::{name}": posixpath.dirname(path)
            for path, tree in _test_trees(sources)
            for name in _tests_of(tree)
        }

    def instrumented(self, sources: Mapping[str, str], token: str) -> dict[str, str]:
        changed: dict[str, str] = {}
        packages: dict[str, str] = {}
        for path in sorted(sources):
            if path.endswith(self.suffix) and not self.is_test(path):
                packages.setdefault(posixpath.dirname(path), _package(SourceTree(sources[path], "go")))
        for path, tree in _test_trees(sources):
            folder = posixpath.dirname(path)
            inner = packages.setdefault(folder, _package(tree).removesuffix("_test"))
            tests = _tests_of(tree)
            if not tests:
                continue
            external = _package(tree) == f"{inner}_test"
            call = f"inner_{token}.Record_{token}" if external else f"Record_{token}"
            changed[path] = _with_records(tree, tests, call, token)
            if external:
                changed[path] = _with_import(changed[path], f'inner_{token} "{go_import_path(sources, folder)}"')
            changed[posixpath.join(folder, f"align_{token}_test.go")] = _RECORDER.format(package=inner, token=token)
        return changed

    def facts(self, sources: Mapping[str, str]) -> dict[str, Any]:
        facts: dict[str, dict[str, set[str]]] = {}
        for path in sorted(path for path in sources if path.endswith(self.suffix)):
            tree = SourceTree(sources[path], "go")
            unit = facts.setdefault(
                posixpath.dirname(path), {"variables": set(), "declared": set(), "members": set(), "test_names": set(), "test_members": set()}
            )  # fmt: skip
            names = declared_names(tree)
            top = names["variable"] | names["function"] | names["type"] | names["constant"]
            if self.is_test(path):
                if not _package(tree).endswith("_test"):
                    unit["test_names"] |= top
                unit["test_members"] |= names["member"]
            else:
                unit["variables"] |= names["variable"]
                unit["declared"] |= top
                unit["members"] |= names["member"]
        for unit in facts.values():
            unit["test_members"] -= unit.pop("members")
        return {name: {key: sorted(value) for key, value in unit.items()} for name, unit in facts.items()}

    def survey(self, units: Sequence[str], test_seconds: float, budget_seconds: float) -> SandboxStep:
        script = _SURVEY.format(
            units=" ".join(shlex.quote(unit or ".") for unit in units), seconds=test_seconds, budget=int(budget_seconds), root=ROOT
        )  # fmt: skip
        return SandboxStep(script, _environment(), ("survey/*", "cache/*/*", "cache/*.txt"), limits=_SURVEY_LIMITS)

    def read_survey(self, files: Mapping[str, bytes], tests: Mapping[str, str], units: Sequence[str]) -> Survey:
        survey = Survey()
        for number, unit in enumerate(units, 1):
            out = f"survey/{number}"
            known = {name.partition("::")[2]: name for name, place in tests.items() if place == unit}
            if f"{out}.failed" in files:
                survey.problems.append(f"{unit or '.'}: {_text(files[f'{out}.failed'])[-400:]}")
                survey.outcomes.update(dict.fromkeys(known.values(), "does_not_build"))
                continue
            loading = _blocks(files.get(f"{out}.loading", b""), unit)
            survey.loading += _lines(loading)
            for line in _text(files.get(f"{out}.tests", b"")).splitlines():
                short, _, code = line.partition(" ")
                if short in known:
                    survey.outcomes[known[short]] = _outcome(code, _text(files.get(f"{out}.{short}.printed", b"")))
                    counts = _blocks(files.get(f"{out}.{short}.profile", b""), unit)
                    called = {block: count for block, count in counts.items() if count > loading.get(block, 0)}
                    survey.calls[known[short]] = _lines(called)
            for name in known.values():
                survey.outcomes.setdefault(name, "left_out_by_build_constraints")
        return survey

    def read_answer(self, program: str, target: Mapping[str, Any]) -> FunctionAnswer | None:
        return read_go_answer(program, target)

    def replaced(
        self, text: str, target: Mapping[str, Any], answer: FunctionAnswer, facts: Mapping[str, Any]
    ) -> str | None:
        return replace_go_function(text, target, answer, facts)

    def combined(
        self,
        text: str,
        target: Mapping[str, Any],
        answers: Sequence[FunctionAnswer],
        facts: Mapping[str, Any],
        token: str,
    ) -> tuple[str, list[tuple[int, int]]]:
        return combine_go_bodies(text, target, answers, token)

    def error_lines(self, messages: str, file: str) -> set[int]:
        name = re.escape(posixpath.basename(file))
        return {int(line) for line in re.findall(rf"(?:^|[\s/]){name}:(\d+):\d+", messages)}

    def refusals(self, text: str, new: str, target: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
        return go_refusals(text, new, target, facts)

    def build(self, unit: str) -> SandboxStep:
        script = f"cd {ROOT}/{shlex.quote(unit or '.')} && exec go test -c -vet=off -gcflags=-e -ldflags='-s -w' -o /tmp/{PROGRAM} ."
        return SandboxStep(script, {**_environment(), "GOCACHE": CACHE}, (PROGRAM,), limits=COMPILE)

    def run(self, unit: str, names: Sequence[str]) -> SandboxStep:
        pattern = f"^({'|'.join(map(re.escape, names))})$"
        script = f"cd {ROOT}/{shlex.quote(unit or '.')} && exec /tmp/{PROGRAM} -test.run {shlex.quote(pattern)}"
        return SandboxStep(script)


@cache
def go_environment(name: str) -> str:
    """Return the value of a setting of the go command on this machine, such as the folder of downloaded modules."""
    done = subprocess.run([toolchain("go").tool, "env", name], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    """Return the environment variables of the go command: no network, no cgo, no other toolchain."""
    folder = posixpath.dirname(toolchain("go").tool)
    return {
        "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin", "GOPROXY": "off", "GOSUMDB": "off", "GOTOOLCHAIN": "local", "GOTELEMETRY": "off",
        "CGO_ENABLED": "0", "GOMODCACHE": MODULES, "GOPATH": "/tmp/gopath", "GO111MODULE": "on", "GOFLAGS": "",
    }  # fmt: skip


def _is_skipped(path: str) -> bool:
    """Whether the go command ignores a file: folders of other code and data, and names that begin with `_` or `.`."""
    return any(part in _SKIPPED or fnmatch.fnmatch(part, "[_.]*") for part in path.split("/"))


def _test_trees(sources: Mapping[str, str]) -> Iterable[tuple[str, SourceTree]]:
    for path in sorted(sources):
        if path.endswith("_test.go") and not _is_skipped(path):
            tree = SourceTree(sources[path], "go")
            if not tree.root.has_error:
                yield path, tree


def _package(tree: SourceTree) -> str:
    clause = next((node for node in tree.root.children if node.type == "package_clause"), None)
    return tree.text(clause.named_children[0]) if clause is not None else ""


def _tests_of(tree: SourceTree) -> dict[str, Any]:
    """Return the functions `func TestName(t *testing.T)` of a file, keyed by name."""
    tests = {}
    for node in tree.root.children:
        if node.type == "function_declaration" and node.child_by_field_name("result") is None:
            name, parameters = tree.text(node.child_by_field_name("name")), node.child_by_field_name("parameters")
            if (
                _TEST.match(name)
                and len(parameters.named_children) == 1
                and tree.text(parameters).rstrip(",) \n").endswith("testing.T")
            ):
                tests[name] = node
    return tests


def _with_records(tree: SourceTree, tests: Mapping[str, Any], call: str, token: str) -> str:
    """Return the text of a test file in which each test begins with a call that reports the test's begin and end."""
    edits: list[tuple[int, int, str]] = []
    for name, node in tests.items():
        parameter = node.child_by_field_name("parameters").named_children[0]
        names = parameter.children_by_field_name("name")
        known = tree.text(names[0]) if names else "_"
        if known == "_":
            known = f"t_{token}"
            kind = tree.text(parameter.child_by_field_name("type"))
            edits.append((parameter.start_byte, parameter.end_byte, f"{known} {kind}"))
        start = node.child_by_field_name("body").start_byte + 1
        edits.append((start, start, f" {call}({known}, {json.dumps(name)});"))
    raw = tree.raw
    for start, end, new in sorted(edits, reverse=True):
        raw = raw[:start] + new.encode() + raw[end:]
    return raw.decode("utf-8", "surrogatepass")


def _with_import(text: str, spec: str) -> str:
    """Return a file with one more import, in the line of the package clause, so that line numbers stay the same."""
    tree = SourceTree(text, "go")
    clause = next(node for node in tree.root.children if node.type == "package_clause")
    place = tree.character(clause.end_byte)
    return f"{text[:place]}; import {spec}{text[place:]}"


def go_import_path(sources: Mapping[str, str], folder: str) -> str:
    """Return the import path of the package in a folder, from the nearest go.mod above."""
    base = folder
    while True:
        module = re.search(r"^\s*module\s+\"?([^\s\"]+)", sources.get(posixpath.join(base, "go.mod"), ""), re.MULTILINE)
        if module or not base:
            return posixpath.join(
                module[1] if module else "", posixpath.relpath(folder or ".", base or ".")
            ).removesuffix("/.")
        base = posixpath.dirname(base)


def _blocks(profile: bytes, unit: str) -> dict[tuple[str, int, int], int]:
    """Read a coverage profile: how often each block (file, first line, last line) was run."""
    counts: dict[tuple[str, int, int], int] = {}
    for line in _text(profile).splitlines():
        if match := _BLOCK.match(line):
            block = (posixpath.join(unit, posixpath.basename(match[1])), int(match[2]), int(match[3]))
            counts[block] = counts.get(block, 0) + int(match[4])
    return counts


def _lines(blocks: Mapping[tuple[str, int, int], int]) -> list[tuple[str, int, int]]:
    return sorted(blocks)


def _outcome(code: str, printed: str) -> str:
    """Return the outcome of a test from the exit code of its process and from what the process printed."""
    if code == "0":
        return "passed"
    if code in ("124", "137"):
        return "hangs"
    if code == "over_budget":
        return "over_budget"
    if re.search(r"read-only file system|permission denied", printed):
        return "writes_into_the_repository"
    if re.search(r"connection refused|network is unreachable|no such host|dial tcp|lookup .* on", printed):
        return "needs_network_or_database"
    return "failed"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")

"""Prepare a JavaScript repository for grading: export it, strip a copy of its tests, transform what node can't load.

The snapshot is named by its content and prepared once per machine; nothing of the repository runs outside the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignment.grading.node_syntax import JsFunction, Tree, js_functions
from alignment.grading.nodejs import NodeSnapshot, NodeSuite, messages, with_shims
from alignment.grading.repository import store
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxError, Slot
from alignment.sandbox.toolchains import NoToolchain, toolchain
from data_builders.repositories.sources import Reader, Repository, list_files
from data_builders.tasks.javascript.javascript_runners import (
    SOURCE,
    TYPED,
    Packages,
    aliases,
    has_tests,
    is_js_test,
    library_of,
    needs_transform,
    packages,
    reached,
    setup_files,
)
from data_builders.tasks.python.python_suite import is_documentation, write_files
from data_builders.tasks.validation import flat

VERSION = 3
MAX_FILE = 4 << 20
MAX_BYTES = 256 << 20
LIMITS = Limits(cpu_seconds=120, wall_seconds=120, memory_bytes=4 << 30)
BATCH = 100  # test files that one program transforms
NOT_SOURCE = (
    ".d.ts",
    ".d.mts",
    ".d.cts",
    ".min.js",
    ".config.js",
    ".config.ts",
    ".config.mjs",
    ".config.cjs",
    ".config.mts",
)
MARK = "globalThis.__align_hit?.({number});"


@dataclass
class JsPreparedSuite:
    """A snapshot with what was found while it was made."""

    snapshot: NodeSnapshot
    packages: Packages
    texts: dict[str, str]
    """Of the files whose functions may become tasks."""
    functions: list[JsFunction]
    source: dict[str, str]
    """Of all files in these languages but the tests."""
    problems: list[str]
    unparsed: int
    """Files that the grammar can't read."""

    @cached_property
    def flat(self) -> dict[str, str]:
        """All source but the tests, without indentation and blank lines: for finding copies of a body."""
        return {path: flat(text) for path, text in self.source.items()}

    @property
    def id(self) -> str:
        return self.snapshot.folder.name


def has_javascript(paths: Mapping[str, Any] | set[str]) -> bool:
    """Whether a repository is one of node's: a package.json at its root."""
    return "package.json" in paths


def prepare_js_suite(
    repository: Repository,
    paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    allow_weaker: bool = False,
) -> JsPreparedSuite:
    """Make (or find) the snapshot of a repository's JavaScript and TypeScript at its commit.

    Args:
        repository: from `data_builders.repositories.sources.resolve`.
        paths: files and folders of the tests, where they aren't all that look like some.
        environment: variables that the tests need.
        allow_weaker: consent to a weaker sandbox.

    Raises NoToolchain without node, ValueError where there is too much of it.
    """
    files = _read(repository)
    texts = {path: text for path, content in files.items() if (text := _decoded(content)) is not None}
    known = packages(texts)
    modules = list(_installed(repository, known))
    digest = hashlib.sha256(
        json.dumps(
            [
                VERSION,
                repository.name,
                modules,
                list(paths),
                sorted((environment or {}).items()),
                toolchain("javascript").version,
            ]
        ).encode()
    )
    for installed, _ in modules:
        lock = Path(installed) / ".package-lock.json"
        digest.update(lock.read_bytes() if lock.is_file() else b"")
    for path in sorted(files):
        digest.update(b"%s\0%d\0" % (os.fsencode(path), len(files[path])) + files[path])
    folder = store() / digest.hexdigest()[:32]
    own = {
        path: text for path, text in texts.items()
        if path.endswith(SOURCE) and not path.endswith(NOT_SOURCE) and not is_js_test(path) and not is_documentation(path)
        and "\r" not in text
    }  # fmt: skip
    functions = [item for path in sorted(own) for item in js_functions(path, own[path])]
    with_functions = {item.file for item in functions}
    unparsed = sum(
        path not in with_functions and "function" in text and _is_broken(path, text) for path, text in own.items()
    )
    if not (folder / "suite.json").is_file():
        data = _make(
            folder, repository, files, texts, known, modules, functions, paths, environment or {}, allow_weaker
        )
        (folder / "suite.json").write_text(json.dumps(data), encoding="utf-8")
    snapshot = NodeSnapshot.open(folder)
    source = {path: text for path, text in texts.items() if path.endswith(SOURCE) and path not in snapshot.tests}
    return JsPreparedSuite(snapshot, known, own, functions, source, list(snapshot.data["problems"]), unparsed)


def _is_broken(path: str, text: str) -> bool:
    return bool(Tree(text, path).root.has_error)


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8") if b"\0" not in content else None
    except UnicodeDecodeError:
        return None


def _read(repository: Repository) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    size = 0
    with Reader(repository) as reader:
        for file in list_files(repository, MAX_FILE):
            parts = file.path.split("/")
            if file.skip or "node_modules" in parts or ".git" in parts or ".." in parts or "\0" in file.path:
                continue
            size += file.size
            if size > MAX_BYTES:
                raise ValueError(f"{repository.name} has more than {MAX_BYTES >> 20} MB of files: name a part of it")
            content = reader.read(file)
            if content is not None:
                files[file.path] = content
    return files


def checkout(repository: Repository) -> Path:
    """The folder where its packages are installed."""
    return repository.path.parent if repository.is_git and repository.path.name == ".git" else repository.path


def _installed(repository: Repository, known: Packages) -> Iterator[tuple[str, str]]:
    """(folder on this machine, place in the repository) of each node_modules."""
    base = checkout(repository)
    for folder in sorted(known.found, key=lambda item: (item.count("/"), item)):
        place = posixpath.join(folder, "node_modules")
        if (base / place).is_dir():
            yield str((base / place).resolve()), place


def _make(
    folder: Path, repository: Repository, files: dict[str, bytes], texts: dict[str, str], known: Packages,
    modules: list[tuple[str, str]], functions: list[JsFunction],
    paths: Sequence[str], environment: Mapping[str, str], allow_weaker: bool,
) -> dict[str, Any]:  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    tests = {path: text for path, text in texts.items() if has_tests(path, text)}
    named = {
        path: text
        for path, text in tests.items()
        if any(path == name.rstrip("/") or path.startswith(f"{name.rstrip('/')}/") for name in paths)
    }
    left = {path: text for path, text in tests.items() if named and path not in named}
    tests = named or tests
    code = {path: text for path, text in texts.items() if path.endswith(SOURCE)}
    library = library_of(known, list(tests.values()))
    version = tuple(int(part) for part in toolchain("javascript").version.lstrip("v").split(".")[:2])
    strips = version >= (22, 6)
    transform = needs_transform(known, {path: code[path] for path in reached(code, tests)}, library, strips)
    blank = {path: b"" for path in (*tests, *left)}
    kept = {path: content for path, content in {**files, **blank}.items() if "__snapshots__" not in path}
    marked = {path: text.encode() for path, text in _marked(texts, functions).items()}
    write_files(folder / "tree", kept)
    write_files(folder / "marked", {**kept, **marked})
    bare = {path: content for path, content in files.items() if not _is_hidden(path)}
    write_files(folder / "bare", bare)
    for shown in ("tree", "marked", "bare"):
        for _, place in modules:
            (folder / shown / place).mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "name": repository.name, "commit": repository.commit, "tests": tests, "library": library, "transform": transform,
        "aliases": aliases(known, texts), "setup": setup_files(known, texts), "modules": modules, "problems": [], "typescript": _typescript(),
        "esm": [] if transform else [path for path in tests if known.module(path) or path.endswith(TYPED)],
        "environment": dict(environment),
        "hidden": [f"/repository/{place}/{name}" for source, place in modules for package in known.found.values()
                   if isinstance(name := package.get("name"), str) and (Path(source) / name).is_dir() and not (Path(source) / name).is_symlink()],
        "flags": ["--experimental-strip-types"] if strips and not transform and any(path.endswith((".ts", ".mts")) for path in code) else [],
    }  # fmt: skip
    for name in ("compiled", "marked-compiled"):
        write_files(folder / name, {})
    if transform:
        _transform(NodeSnapshot(folder, data), code, tests, allow_weaker)
    else:
        data["tests"] = {path: with_shims(text) for path, text in tests.items()}
    return data


def _is_hidden(path: str) -> bool:
    """Whether a candidate may not read a file: tests, what lies with them, and documentation."""
    return is_js_test(path) or is_js_test(f"{posixpath.dirname(path)}/x.js") or is_documentation(path)


def _typescript() -> str:
    """This machine's own TypeScript compiler, for repositories that have installed nothing that transforms."""
    try:
        tool = Path(toolchain("typescript").tool)
    except NoToolchain:
        return ""
    found = tool.parents[1] / "lib" / "typescript.js"
    return str(found) if found.is_file() else ""


def _marked(texts: Mapping[str, str], functions: list[JsFunction]) -> dict[str, str]:
    """The files with a mark at the head of every function: it says when the function is called."""
    marked: dict[str, str] = {}
    for number, item in reversed(list(enumerate(functions))):  # from the end, so that offsets stay right
        text = marked.get(item.file, texts[item.file])
        marked[item.file] = text[: item.start] + MARK.format(number=number) + text[item.start :]
    return marked


def _transform(snapshot: NodeSnapshot, code: Mapping[str, str], tests: dict[str, str], allow_weaker: bool) -> None:
    """Make `compiled` and `marked-compiled`, and the tests' text."""
    data, folder = snapshot.data, snapshot.folder
    sources = [[path, None] for path in code if path not in tests and not path.endswith((".d.ts", ".d.mts", ".d.cts"))]
    made: dict[str, str] = {}
    problems: Counter[str] = Counter()
    for role, target in (("tester", "compiled"), ("tracer", "marked-compiled")):
        slot = Slot(snapshot.settings(role, allow_weaker))
        suite = NodeSuite(snapshot, allow_weaker)
        suite.tester = slot
        listed: list[list[str | None]] = [list(item) for item in sources]
        if role == "tester":
            listed += [[path, text] for path, text in tests.items()]
        try:
            for start in range(0, len(listed), BATCH):
                job = suite.program(
                    "compile", {"sources": listed[start : start + BATCH], "nonce": "align:"}, {}, LIMITS
                )
                (run,) = slot.run([job])
                told = messages(run, "align:")
                if not any("done" in item for item in told):
                    problems[run.stderr.decode(errors="replace").strip()[-300:] or run.stop or "it ended"] += 1
                for item in told:
                    if "problem" in item:
                        problems[f"{item['file']}: {item['problem']}"] += 1
                    elif "text" in item and item["file"] in tests:
                        made[item["file"]] = item["text"]
                    elif "text" in item:
                        path = folder / target / item["file"]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(item["text"], encoding="utf-8")
                        path.chmod(0o644)
        except SandboxError as error:
            problems[f"transforming the source: {error}"] += 1
        finally:
            suite.close()
    data["tests"] = {**tests, **made}
    data["problems"] = [text for text, _ in problems.most_common(5)]
    for path in (folder / "compiled", folder / "marked-compiled"):
        write_files(path, {})  # readable for everybody

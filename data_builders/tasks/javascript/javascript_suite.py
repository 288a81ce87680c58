"""Make snapshots of JavaScript repositories for grading: export and transform the files, and find the tests.

A snapshot contains the repository three times: as `tree` (for the tests), as `bare` (for the graded program, without
tests and documentation) and as `marked` (for the run that finds out which tests call which functions). `compiled` and
`marked-compiled` contain transformed versions of files that node cannot load. The name of a snapshot is a hash of its
content, and each snapshot is made once per machine. The repository's code runs only in the sandbox.
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
from data_builders.repositories.text_decoding import decode, is_plain_path
from data_builders.tasks.body_copies import flat
from data_builders.tasks.javascript.javascript_runners import (
    SOURCE,
    TYPED,
    Packages,
    aliases,
    expect_library,
    has_tests,
    is_js_test,
    needs_transform,
    reachable_files,
    read_packages,
    setup_files,
)
from data_builders.tasks.python.python_suite import is_documentation, write_files

VERSION = 3
"""Version of the snapshot format. If this number is increased, all snapshots are made again."""
MAX_FILE = 4 << 20
"""Maximum size of an exported file in bytes."""
MAX_BYTES = 256 << 20
"""Maximum total size of all exported files in bytes."""
LIMITS = Limits(cpu_seconds=120, wall_seconds=120, memory_bytes=4 << 30)
BATCH = 100
"""Number of files that one program transforms."""
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
"""Code that is inserted at the start of each function's body. It reports the index of the called function."""


@dataclass
class JsPreparedSuite:
    """A snapshot of a JavaScript repository, with the functions that may become tasks."""

    snapshot: NodeSnapshot
    packages: Packages
    texts: dict[str, str]
    """Texts of the files whose functions may become tasks, keyed by path."""
    functions: list[JsFunction]
    source: dict[str, str]
    """Texts of all JavaScript and TypeScript files except tests, keyed by path."""
    problems: list[str]
    """Descriptions of errors while transforming files."""
    unparsed: int
    """Number of files that the grammar cannot parse."""

    @cached_property
    def flat(self) -> dict[str, str]:
        """The texts of `source`, simplified by `validation.flat`.

        Validation searches these texts for copies of a function's body.
        """
        return {path: flat(text) for path, text in self.source.items()}

    @property
    def id(self) -> str:
        """The id of the snapshot. Task rows refer to the snapshot by this id."""
        return self.snapshot.folder.name


def has_javascript(paths: Mapping[str, Any] | set[str]) -> bool:
    """Whether a repository is a Node.js package, that is, has a package.json at its root."""
    return "package.json" in paths


def prepare_js_suite(
    repository: Repository,
    paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    allow_weaker: bool = False,
) -> JsPreparedSuite:
    """Make a snapshot of a JavaScript or TypeScript repository at its commit, or reuse a stored snapshot.

    Args:
        repository: a repository from `data_builders.repositories.sources.resolve`.
        paths: files and folders of the tests. If empty, all files that look like tests are used.
        environment: environment variables that the tests need.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.

    Raises:
        NoToolchain: node is not installed.
        ValueError: the repository has more than `MAX_BYTES` of files.
    """
    files = _read(repository)
    decoded = {path: decode(content) for path, content in files.items() if is_plain_path(path)}
    texts = {path: text for path, (text, problem) in decoded.items() if not problem}
    known = read_packages(texts)
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
    sources = {
        path: text for path, text in texts.items()
        if path.endswith(SOURCE) and not path.endswith(NOT_SOURCE) and not is_js_test(path) and not is_documentation(path)
    }  # fmt: skip
    functions = [item for path in sorted(sources) for item in js_functions(path, sources[path])]
    with_functions = {item.file for item in functions}
    unparsed = sum(
        path not in with_functions and "function" in text and _has_syntax_error(path, text)
        for path, text in sources.items()
    )
    if not (folder / "suite.json").is_file():
        data = _make_snapshot(
            folder, repository, files, texts, known, modules, functions, paths, environment or {}, allow_weaker
        )
        (folder / "suite.json").write_text(json.dumps(data), encoding="utf-8")
    snapshot = NodeSnapshot.open(folder)
    all_source = {path: text for path, text in texts.items() if path.endswith(SOURCE) and path not in snapshot.tests}
    return JsPreparedSuite(snapshot, known, sources, functions, all_source, list(snapshot.data["problems"]), unparsed)


def _has_syntax_error(path: str, text: str) -> bool:
    return bool(Tree(text, path).root.has_error)


def _read(repository: Repository) -> dict[str, bytes]:
    """Read the repository's files, keyed by path. Code is converted to UTF-8 with `\\n` as line ends.

    Offsets in the text of a file are then offsets in the file. node treats the line ends `\\n` and `\\r\\n` alike, also in
    template literals.
    """
    files: dict[str, bytes] = {}
    size = 0
    with Reader(repository) as reader:
        for file in list_files(repository, MAX_FILE):
            parts = file.path.split("/")
            if file.skip or "node_modules" in parts or ".git" in parts or ".." in parts or "\0" in file.path:
                continue
            size += file.size
            if size > MAX_BYTES:
                raise ValueError(
                    f"{repository.name} has more than {MAX_BYTES >> 20} MB of files: name a folder inside it as the source"
                )
            content = reader.read(file)
            if content is not None:
                text, problem = decode(content) if file.path.endswith(SOURCE) else ("", "no code")
                files[file.path] = content if problem else text.encode("utf-8")
    return files


def checkout(repository: Repository) -> Path:
    """Return the folder of the repository's working tree, in which packages are installed (`node_modules`)."""
    return repository.path.parent if repository.is_git and repository.path.name == ".git" else repository.path


def _installed(repository: Repository, known: Packages) -> Iterator[tuple[str, str]]:
    """Yield (folder on this machine, path in the repository) of each folder `node_modules`."""
    base = checkout(repository)
    for folder in sorted(known.by_folder, key=lambda item: (item.count("/"), item)):
        place = posixpath.join(folder, "node_modules")
        if (base / place).is_dir():
            yield str((base / place).resolve()), place


def _make_snapshot(
    folder: Path, repository: Repository, files: dict[str, bytes], texts: dict[str, str], known: Packages,
    modules: list[tuple[str, str]], functions: list[JsFunction],
    paths: Sequence[str], environment: Mapping[str, str], allow_weaker: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write a snapshot into a folder, and return the data for its `suite.json`.

    Args:
        folder: folder of the snapshot. An existing folder is replaced.
        repository: the repository, whose name and commit are written into the data.
        files: content of all files, keyed by path.
        texts: texts of all text files, keyed by path.
        known: the repository's package.json files.
        modules: (folder on this machine, path in the repository) of each folder `node_modules`.
        functions: all functions, in the order of their indices.
        paths: files and folders of the tests. If empty, all files that look like tests are used.
        environment: environment variables of the tests.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    tests = {path: text for path, text in texts.items() if has_tests(path, text)}
    named = {
        path: text
        for path, text in tests.items()
        if any(path == name.rstrip("/") or path.startswith(f"{name.rstrip('/')}/") for name in paths)
    }
    unused = {path: text for path, text in tests.items() if named and path not in named}
    tests = named or tests
    code = {path: text for path, text in texts.items() if path.endswith(SOURCE)}
    library = expect_library(known, list(tests.values()))
    version = tuple(int(part) for part in toolchain("javascript").version.lstrip("v").split(".")[:2])
    strips = version >= (22, 6)  # since then node has --experimental-strip-types
    transform = needs_transform(known, {path: code[path] for path in reachable_files(code, tests)}, library, strips)
    blank = {path: b"" for path in (*tests, *unused)}
    tree = {path: content for path, content in {**files, **blank}.items() if "__snapshots__" not in path}
    marked = {path: text.encode() for path, text in _marked(texts, functions).items()}
    write_files(folder / "tree", tree)
    write_files(folder / "marked", {**tree, **marked})
    bare = {path: content for path, content in files.items() if not _is_hidden(path)}
    write_files(folder / "bare", bare)
    for tree_name in ("tree", "marked", "bare"):
        for _, place in modules:
            (folder / tree_name / place).mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "name": repository.name, "commit": repository.commit, "tests": tests, "library": library, "transform": transform,
        "aliases": aliases(known, texts), "setup": setup_files(known, texts), "modules": modules, "problems": [], "typescript": _typescript(),
        "esm": [] if transform else [path for path in tests if known.is_es_module(path) or path.endswith(TYPED)],
        "environment": dict(environment),
        "hidden": [f"/repository/{place}/{name}" for source, place in modules for package in known.by_folder.values()
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
    """Whether a file is hidden from graded programs. Tests, files in test folders, and documentation are hidden."""
    return is_js_test(path) or is_js_test(f"{posixpath.dirname(path)}/x.js") or is_documentation(path)


def _typescript() -> str:
    """Return the path of the TypeScript compiler on this machine, or "" if no compiler is installed.

    The compiler transforms the files of repositories in which no transformer is installed.
    """
    try:
        tool = Path(toolchain("typescript").tool)
    except NoToolchain:
        return ""
    library = tool.parents[1] / "lib" / "typescript.js"
    return str(library) if library.is_file() else ""


def _marked(texts: Mapping[str, str], functions: list[JsFunction]) -> dict[str, str]:
    """Return the files that contain functions, with `MARK` inserted at the start of every function's body."""
    marked: dict[str, str] = {}
    for number, item in reversed(list(enumerate(functions))):  # from the end, so that offsets stay right
        text = marked.get(item.file, texts[item.file])
        marked[item.file] = text[: item.start] + MARK.format(number=number) + text[item.start :]
    return marked


def _transform(snapshot: NodeSnapshot, code: Mapping[str, str], tests: dict[str, str], allow_weaker: bool) -> None:
    """Transform the files of a snapshot. Write sources to `compiled` and `marked-compiled`, tests to `data`."""
    data, folder = snapshot.data, snapshot.folder
    sources = [[path, None] for path in code if path not in tests and not path.endswith((".d.ts", ".d.mts", ".d.cts"))]
    transformed: dict[str, str] = {}
    problems: Counter[str] = Counter()
    for role, target in (("tester", "compiled"), ("tracer", "marked-compiled")):
        slot = Slot(snapshot.settings(role, allow_weaker))
        suite = NodeSuite(snapshot, allow_weaker)
        suite.tester = slot
        inputs: list[list[str | None]] = [list(item) for item in sources]
        if role == "tester":
            inputs += [[path, text] for path, text in tests.items()]
        try:
            for start in range(0, len(inputs), BATCH):
                job = suite.program(
                    "compile", {"sources": inputs[start : start + BATCH], "nonce": "align:"}, {}, LIMITS
                )
                (run,) = slot.run([job])
                replies = messages(run, "align:")
                if not any("done" in item for item in replies):
                    problems[
                        run.stderr.decode(errors="replace").strip()[-300:] or run.stop or "the transform ended early"
                    ] += 1
                for item in replies:
                    if "problem" in item:
                        problems[f"{item['file']}: {item['problem']}"] += 1
                    elif "text" in item and item["file"] in tests:
                        transformed[item["file"]] = item["text"]
                    elif "text" in item:
                        path = folder / target / item["file"]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(item["text"], encoding="utf-8")
                        path.chmod(0o644)
        except SandboxError as error:
            problems[f"transforming the source: {error}"] += 1
        finally:
            suite.close()
    data["tests"] = {**tests, **transformed}
    data["problems"] = [text for text, _ in problems.most_common(5)]
    for path in (folder / "compiled", folder / "marked-compiled"):
        write_files(path, {})  # makes the folders readable for all users

"""Prepare a repository and its tests for grading: export it, find its environment, collect its tests, strip a copy.

The snapshot is named by its content (files, interpreter, installed packages, pytest's arguments) and prepared once
per machine; see `alignment.grading.repository` for what is done with it. Nothing of the repository runs outside the
sandbox, and nothing in it reaches the network.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import posixpath
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.grading.repository import ROOT, Snapshot, Suite, store
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError
from data_builders.parsing.python_functions import Function, functions
from data_builders.repositories.sources import Reader, Repository, list_files
from data_builders.tasks.python.python_environment import Environment, find_environment

VERSION = 3
MAX_FILE = 16 << 20
TEST_NAMES = ("test_*.py", "*_test.py", "conftest.py", "tests.py")
TEST_FOLDERS = frozenset({"tests", "test"})
SOURCE_FOLDERS = ("src", "lib", "python")
PROJECT_FILES = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
SETTINGS_FILES = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
IMPORTLIB = "--import-mode=importlib"
PROSE_FOLDERS = frozenset({"doc", "docs", "examples", "build", "dist", "node_modules", ".github", "site"})
PROSE = ("*.md", "*.rst", "*.ipynb", "*.pyc", "*.patch", "*.diff", "*.orig", "*.rej")
LIMITS = Limits(cpu_seconds=120, wall_seconds=120, memory_bytes=4 << 30, reply_bytes=256 << 20, files=256)


@dataclass
class PreparedSuite:
    """A snapshot with what was found while it was made."""

    snapshot: Snapshot
    functions: list[Function]
    """Of all files that are neither tests nor documentation."""
    texts: dict[str, str]
    """Of the same files."""
    tests_texts: dict[str, str]
    """Of the tests' files."""

    @property
    def id(self) -> str:
        return self.snapshot.folder.name

    @property
    def tests(self) -> list[str]:
        return [name for name, _ in self.snapshot.data["tests"]]


def prepare_suite(
    repository: Repository,
    *,
    interpreter: str | Path | None = None,
    tests: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    allow_weaker: bool = False,
) -> PreparedSuite:
    """Make (or find) the snapshot of a repository at its commit.

    Args:
        repository: from `data_builders.repositories.sources.resolve`.
        interpreter: Python whose packages the tests need, for example a virtual environment's; by default this one.
        tests: files and folders for pytest, relative to the repository; by default what its own settings say.
        environment: variables that the tests need.
        allow_weaker: consent to a weaker sandbox.

    Raises ValueError for an environment that can't be used and tests that are not there.
    """
    found = find_environment(interpreter)
    files = _read(repository)
    for name in tests:
        if not any(path == name.rstrip("/") or path.startswith(f"{name.rstrip('/')}/") for path in files):
            raise ValueError(f"{repository.name} has no {name!r} to look for tests in")
    identity = [VERSION, found.version, found.distributions, list(tests), environment or {}, repository.name]
    digest = hashlib.sha256(json.dumps(identity).encode())
    for path in sorted(files):
        digest.update(b"%s\0%d\0" % (os.fsencode(path), len(files[path])) + files[path])
    identifier = digest.hexdigest()[:32]
    texts = {
        path: content.decode("utf-8") for path, content in files.items() if path.endswith(".py") and _is_utf8(content)
    }
    folder = store() / identifier
    ready = folder / "suite.json"
    if ready.is_file():
        data = json.loads(ready.read_text(encoding="utf-8"))
    else:
        data = _make(folder, files, texts, found, list(tests), environment or {}, repository, allow_weaker)
        ready.write_text(json.dumps(data), encoding="utf-8")
    own = {path: text for path, text in texts.items() if path in set(data["files"])}
    shown = {path: text for path, text in texts.items() if path in set(data["test_files"])}
    found_functions = [item for path in sorted(own) for item in functions(path, own[path])]
    return PreparedSuite(Snapshot(folder, data), found_functions, own, shown)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\r" not in content  # offsets would not agree with what Python reads


def _read(repository: Repository) -> dict[str, bytes]:
    files = {}
    with Reader(repository) as reader:
        for file in list_files(repository, MAX_FILE):
            if not file.skip and not _is_odd(file.path):
                content = reader.read(file)
                if content is not None:
                    files[file.path] = content
    return files


def _is_odd(path: str) -> bool:
    parts = path.split("/")
    return any(part in (".git", "__pycache__", "..") or part.endswith(".egg-info") for part in parts) or "\0" in path


def is_test_file(path: str) -> bool:
    """Whether a path looks like a test's: by its name, or by a folder ``tests``."""
    *folders, name = path.split("/")
    return any(folder in TEST_FOLDERS for folder in folders) or any(
        fnmatch.fnmatch(name, pattern) for pattern in TEST_NAMES
    )


def is_documentation(path: str) -> bool:
    """Whether a path is documentation, an example or something generated: no place for what a candidate may read."""
    *folders, name = path.split("/")
    return any(folder in PROSE_FOLDERS for folder in folders) or any(
        fnmatch.fnmatch(name, pattern) for pattern in PROSE
    )


def _make(
    folder: Path, files: dict[str, bytes], texts: dict[str, str], found: Environment, tests: list[str],
    variables: dict[str, str], repository: Repository, allow_weaker: bool,
) -> dict[str, Any]:  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    write_files(folder / "tree", files)
    generated = _generated(folder / "tree", files, found)
    sources = [path for path in texts if not is_test_file(path) and not is_documentation(path)]
    places = [[item.file, item.line] for path in sorted(sources) for item in functions(path, texts[path])]
    paths = roots(files)
    mode = import_mode(files)
    roles: dict[str, dict[str, Any]] = {
        role: {"role": role, "root": ROOT, "environment": variables, "places": places, "arguments": [*mode, *tests],
               "paths": [posixpath.join(ROOT, path).rstrip("/") for path in paths], "modules": []}
        for role in ("tester", "candidate")
    }  # fmt: skip
    tops = sorted(
        {
            path.split("/")[0].removesuffix(".py")
            for base in paths
            for path in _below(files, base)
            if path.endswith(".py")
        }
    )
    data: dict[str, Any] = {
        "name": repository.name, "commit": repository.commit, "interpreter": found.executable,
        "readable": [*found.base, *(item for item in found.packages if not item.startswith("/usr"))],
        "packages": list(found.packages),
        "hidden": sorted(
            str(path) for base in found.packages for top in tops
            for path in (Path(base) / top, Path(base) / f"{top}.py") if path.exists()
        ),
        "generated": generated, "test_files": [], "files": sources, "tests": [], "problems": [], "python": found.version,
    }  # fmt: skip
    told = _collected(Snapshot(folder, data), roles["tester"], allow_weaker)
    if not mode and any("unique basename" in problem["why"] for problem in told["problems"]):
        alone = _collected(Snapshot(folder, data), {**roles["tester"], "arguments": [IMPORTLIB, *tests]}, allow_weaker)
        if len(alone["tests"]) > len(told["tests"]):
            told = alone
        else:
            _write(folder, roles["tester"])
    own = {file for _, file in told["tests"]}
    data["tests"] = [[name, file] for name, file in told["tests"]]
    data["problems"], data["threads"] = told["problems"], told["threads"]
    data["test_files"] = sorted(path for path in files if path.endswith(".py") and (path in own or is_test_file(path)))
    hidden = {path for path in files if path in own or is_test_file(path) or is_documentation(path)}
    data["files"] = sorted(path for path in sources if path not in hidden)
    write_files(folder / "bare", {path: content for path, content in files.items() if path not in hidden})
    for path in generated:
        shutil.copy2(folder / "tree" / path, folder / "bare" / path)
    roles["candidate"]["modules"] = [
        name for name, file in told["modules"] if file not in hidden and name != "conftest"
    ]
    _write(folder, roles["candidate"])
    return data


def _write(folder: Path, role: dict[str, Any]) -> None:
    (folder / f"{role['role']}.json").write_text(json.dumps(role), encoding="utf-8")


def _collected(snapshot: Snapshot, role: dict[str, Any], allow_weaker: bool) -> dict[str, Any]:
    """What pytest finds when it is started as the tester's role says."""
    _write(snapshot.folder, role)
    suite = Suite(snapshot, allow_weaker)
    try:
        (run,) = suite.tester.run([Program("suite_describe", {}, limits=LIMITS)])
        return {**run.messages()[0], "threads": suite.tester.suite_state.get("threads", [])}
    except (SandboxError, IndexError) as error:
        why = {"where": "pytest", "why": str(error) or "the tests could not be collected"}
        return {"modules": [], "tests": [], "problems": [why], "threads": []}
    finally:
        suite.close()


def roots(files: Iterable[str]) -> list[str]:
    """Folders that modules are imported from: of the repository, and of each project inside it that names itself so.

    A repository that is not installed keeps its packages there, or in ``src``, ``lib`` or ``python`` below.
    """
    projects = {""} | {
        posixpath.dirname(path) for path in files
        if posixpath.basename(path) in PROJECT_FILES and not is_test_file(path) and not is_documentation(path)
    }  # fmt: skip
    modules = {posixpath.dirname(path) for path in files if path.endswith(".py")}
    bases = [posixpath.join(project, name) for project in sorted(projects) for name in ("", *SOURCE_FOLDERS)]
    bases = [base.rstrip("/") for base in bases]
    return ["", *(base for base in bases if base and any(f"{folder}/".startswith(f"{base}/") for folder in modules))]


def import_mode(files: Mapping[str, bytes]) -> list[str]:
    """The way in which the repository tells pytest to import its tests, the one of ``addopts`` that all tests depend on."""
    for name in SETTINGS_FILES:
        if found := re.search(rb"--import-mode[= ](importlib|append)\b", files.get(name, b"")):
            return [f"--import-mode={found.group(1).decode()}"]
    return []


def _below(files: dict[str, bytes], base: str) -> list[str]:
    return [path[len(base) + 1 :] if base else path for path in files if not base or path.startswith(f"{base}/")]


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Files that everybody may read: programs run as a user of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o644)
    for made in [folder, *(item for item in folder.rglob("*") if item.is_dir())]:
        made.chmod(made.stat().st_mode | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)


def _generated(tree: Path, files: dict[str, bytes], found: Environment) -> list[str]:
    """Files that a build makes (extension modules, a version file), copied from the installed package of the same
    name."""
    copied = []
    for base in roots(files):
        packages = {
            path.split("/")[0] for path in _below(files, base) if path.count("/") == 1 and path.endswith("/__init__.py")
        }
        for name in sorted(packages):
            for installed in (Path(folder) / name for folder in found.packages):
                for source in sorted(installed.rglob("*")) if installed.is_dir() else []:
                    path = posixpath.join(base, name, source.relative_to(installed).as_posix())
                    wanted = source.suffix in (".so", ".pyd") or re.search(r"_?version\w*\.py$", source.name)
                    if wanted and source.is_file() and path not in files and not (tree / path).exists():
                        (tree / path).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(source, tree / path)
                        (tree / path).chmod(0o644)
                        copied.append(path)
    return copied

"""Make snapshots of Python repositories for grading: export the files, find the environment, collect the tests.

A snapshot contains the repository twice: `tree` for the process of the tests, and `bare` (without tests and
documentation) for the process of the graded program. The name of a snapshot is a hash of its content: files,
interpreter, installed packages, arguments of pytest. Each snapshot is made once per machine;
`alignment.grading.repository` uses it for grading. The repository's code runs only in the sandbox, without a network.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import posixpath
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.grading.protected_files import is_test_file
from alignment.grading.repository import ROOT, Snapshot, Suite, store
from alignment.logs import get_logger
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError
from data_builders.parsing.python_functions import Function, functions
from data_builders.repositories.sources import Reader, Repository, list_files
from data_builders.repositories.text_decoding import decode_python, is_plain_path, python_as_utf8
from data_builders.tasks.prepare_commands import prepared_files
from data_builders.tasks.python.generated_files import generated_files, project_version
from data_builders.tasks.python.pytest_settings import selecting_arguments
from data_builders.tasks.python.python_environment import Environment, find_environment

logger = get_logger(__name__)

VERSION = 5
"""Version of the snapshot format. If this number is increased, all snapshots are made again."""
MAX_FILE = 16 << 20
"""Maximum size of an exported file in bytes."""
SOURCE_FOLDERS = ("src", "lib", "python")
PROJECT_FILES = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
IMPORTLIB = "--import-mode=importlib"
DOCUMENTATION_FOLDERS = frozenset({"doc", "docs", "examples", "build", "dist", "node_modules", ".github", "site"})
DOCUMENTATION_NAMES = ("*.md", "*.rst", "*.ipynb", "*.pyc", "*.patch", "*.diff", "*.orig", "*.rej")
VERSION_VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_BYPASS",
)
"""Environment variables with which builds that read the version from git work without a git repository."""
LIMITS = Limits(cpu_seconds=120, wall_seconds=120, memory_bytes=4 << 30, reply_bytes=256 << 20, files=256)


@dataclass
class PreparedSuite:
    """A snapshot of a Python repository, with the functions that may become tasks."""

    snapshot: Snapshot
    functions: list[Function]
    """Functions in all files except tests and documentation."""
    texts: dict[str, str]
    """Texts of the files that contain `functions`, keyed by path."""
    tests_texts: dict[str, str]
    """Texts of the test files, keyed by path."""

    @property
    def id(self) -> str:
        """The id of the snapshot. Task rows refer to the snapshot by this id."""
        return self.snapshot.folder.name

    @property
    def tests(self) -> list[str]:
        """The names of the tests in pytest's notation, in the suite's order."""
        return [name for name, _ in self.snapshot.data["tests"]]


def prepare_suite(
    repository: Repository,
    *,
    interpreter: str | Path | None = None,
    tests: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    prepare: Sequence[str] = (),
    allow_weaker: bool = False,
    changes: Mapping[str, bytes | None] | None = None,
) -> PreparedSuite:
    """Make a snapshot of a repository at its commit, or reuse a stored snapshot.

    Args:
        repository: a repository from `data_builders.repositories.sources.resolve`.
        interpreter: Python interpreter with the packages of the tests, for example of a virtual environment. By
            default, the interpreter of this process is used.
        tests: files and folders for pytest, relative to the repository. If empty, the repository's pytest configuration
            decides.
        environment: environment variables that the tests need.
        prepare: shell commands that make missing files, run in a copy of the repository in the sandbox.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
        changes: content of files that differ from the commit, keyed by path. None stands for a deleted file.

    Raises:
        ValueError: the interpreter cannot be used, `tests` names a file that does not exist, or a command failed.
    """
    python = find_environment(interpreter)
    files = _with_changes(_read(repository), changes or {})
    for name in tests:
        if not any(path == name.rstrip("/") or path.startswith(f"{name.rstrip('/')}/") for path in files):
            raise ValueError(f"{repository.name} has no file or folder {name!r}, which `tests.paths` names")
    generated = generated_files(repository, files, roots(files), python)
    identity = [
        VERSION,
        python.version,
        python.distributions,
        list(tests),
        environment or {},
        repository.name,
        list(prepare),
    ]
    digest = hashlib.sha256(json.dumps(identity).encode())
    for path, content in sorted({**generated, **files}.items()):
        digest.update(b"%s\0%d\0" % (os.fsencode(path), len(content)) + content)
    identifier = digest.hexdigest()[:32]
    texts = {
        path: text
        for path, content in files.items()
        if path.endswith(".py") and (text := decode_python(content)) is not None
    }
    folder = store() / identifier
    ready = folder / "suite.json"
    if ready.is_file():
        data = json.loads(ready.read_text(encoding="utf-8"))
    else:
        request = _Request(repository, python, list(tests), environment or {}, list(prepare), allow_weaker)
        data = _make_snapshot(folder, files, generated, texts, request)
        ready.write_text(json.dumps(data), encoding="utf-8")
    sources = {path: text for path, text in texts.items() if path in set(data["files"])}
    tests_texts = {path: text for path, text in texts.items() if path in set(data["test_files"])}
    source_functions = [item for path in sorted(sources) for item in functions(path, sources[path])]
    return PreparedSuite(Snapshot(folder, data), source_functions, sources, tests_texts)


def _read(repository: Repository) -> dict[str, bytes]:
    """Read the repository's files, keyed by path.

    Source files are converted to UTF-8 with `\\n` as line ends, so that offsets in their text are offsets in the file.
    Python runs them as before. Tests may read their own files and are not changed.
    """
    files = {}
    with Reader(repository) as reader:
        for file in list_files(repository, MAX_FILE):
            if not file.skip and not _is_excluded(file.path):
                content = reader.read(file)
                if content is not None:
                    files[file.path] = python_as_utf8(content) if is_source(file.path) else content
    return files


def _with_changes(files: dict[str, bytes], changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Return files with changes, see `prepare_suite`. Source files are converted as in `_read`."""
    changed = dict(files)
    for path, content in changes.items():
        if content is None:
            changed.pop(path, None)
        elif not _is_excluded(path):
            changed[path] = python_as_utf8(content) if is_source(path) else content
    return changed


def is_source(path: str) -> bool:
    """Whether functions of a file may become tasks, judged by the file's path."""
    return path.endswith(".py") and is_plain_path(path) and not is_test_file(path) and not is_documentation(path)


def _is_excluded(path: str) -> bool:
    """Whether a path is unsafe, belongs to git, or was generated by Python."""
    parts = path.split("/")
    return any(part in (".git", "__pycache__", "..") or part.endswith(".egg-info") for part in parts) or "\0" in path


def is_documentation(path: str) -> bool:
    """Whether a path is documentation, an example or a generated file.

    These files give no tasks, and the process that runs a graded program does not see them.
    """
    *folders, name = path.split("/")
    return any(folder in DOCUMENTATION_FOLDERS for folder in folders) or any(
        fnmatch.fnmatch(name, pattern) for pattern in DOCUMENTATION_NAMES
    )


@dataclass(frozen=True)
class _Request:
    """What a snapshot is made of, besides the files of the repository."""

    repository: Repository
    python: Environment
    tests: list[str]
    """Files and folders for pytest. If empty, the repository's pytest configuration decides."""
    variables: dict[str, str]
    """Environment variables of the tests."""
    prepare: list[str]
    """Shell commands that make missing files."""
    allow_weaker: bool


def _make_snapshot(
    folder: Path, files: dict[str, bytes], generated: dict[str, bytes], texts: dict[str, str], request: _Request
) -> dict[str, Any]:
    """Write a snapshot into a folder, and return the data for its `suite.json`.

    Args:
        folder: folder of the snapshot. An existing folder is replaced.
        files: content of all files of the commit, keyed by path.
        generated: content of files that the commit lacks, keyed by path.
        texts: texts of the Python files of the commit, keyed by path.
        request: the repository and its environment.
    """
    repository, python = request.repository, request.python
    logger.info("%s: collecting the tests", repository.name)
    shutil.rmtree(folder, ignore_errors=True)
    write_files(folder / "tree", {**generated, **files})
    readable = [*python.base, *(item for item in python.packages if not item.startswith("/usr"))]
    if request.prepare:
        settings = LauncherSettings(
            allow_weaker=request.allow_weaker, readable=tuple(readable), packages=python.packages,
            mounts=((str(folder / "tree"), ROOT),), interpreter=python.executable,
        )  # fmt: skip
        logger.info("%s: running the commands of `tests.prepare`", repository.name)
        version = project_version(repository, files, python)
        variables = {name: version for name in VERSION_VARIABLES} | request.variables
        made = prepared_files(repository.name, folder / "tree", request.prepare, settings, variables)
        write_files(folder / "tree", made)
        generated = {**generated, **made}
    sources = [path for path in texts if is_source(path)]
    places = [[item.file, item.line] for path in sorted(sources) for item in functions(path, texts[path])]
    paths = roots(files)
    arguments = [*selecting_arguments(files, paths=not request.tests), *request.tests]
    roles: dict[str, dict[str, Any]] = {
        role: {"role": role, "root": ROOT, "environment": request.variables, "places": places, "arguments": arguments,
               "paths": [posixpath.join(ROOT, path).rstrip("/") for path in paths], "modules": []}
        for role in ("tester", "candidate")
    }  # fmt: skip
    top_names = sorted(
        {
            path.split("/")[0].removesuffix(".py")
            for base in paths
            for path in _below(files, base)
            if path.endswith(".py")
        }
    )
    data: dict[str, Any] = {
        "name": repository.name, "commit": repository.commit, "interpreter": python.executable,
        "readable": readable,
        "packages": list(python.packages),
        "hidden": sorted(
            str(path) for base in python.packages for top in top_names
            for path in (Path(base) / top, Path(base) / f"{top}.py") if path.exists()
        ),
        "generated": sorted(generated), "test_files": [], "files": sources, "tests": [], "problems": [], "python": python.version,
    }  # fmt: skip
    collection = _collect_best(Snapshot(folder, data), roles["tester"], request)
    collected = {file for _, file in collection["tests"]}
    data["tests"] = [[name, file] for name, file in collection["tests"]]
    data["problems"], data["threads"] = collection["problems"], collection["threads"]
    data["test_files"] = sorted(
        path for path in files if path.endswith(".py") and (path in collected or is_test_file(path))
    )
    hidden = {path for path in files if path in collected or is_test_file(path) or is_documentation(path)}
    data["files"] = sorted(path for path in sources if path not in hidden)
    write_files(folder / "bare", {path: content for path, content in files.items() if path not in hidden})
    shown = {
        path: content for path, content in generated.items() if not is_test_file(path) and not is_documentation(path)
    }
    write_files(folder / "bare", shown)
    roles["candidate"]["modules"] = [
        name for name, file in collection["modules"] if file not in hidden and name != "conftest"
    ]
    _write_role(folder, roles["candidate"])
    role = json.loads((folder / "tester.json").read_text(encoding="utf-8"))
    _write_role(folder, role | {"modules": roles["candidate"]["modules"]})
    return data


def _write_role(folder: Path, role: dict[str, Any]) -> None:
    (folder / f"{role['role']}.json").write_text(json.dumps(role), encoding="utf-8")


def _collect_best(snapshot: Snapshot, role: dict[str, Any], request: _Request) -> dict[str, Any]:
    """Collect the tests with the repository's options, or, if this fails, with other options that find more tests.

    Test files of the same name need another import mode. If pytest refuses an option, it is run without all of them.
    """
    best = _collect(snapshot, role, request.allow_weaker)
    others: list[list[str]] = []
    same_names = any("unique basename" in problem["why"] for problem in best["problems"])
    if same_names and not any(argument.startswith("--import-mode") for argument in role["arguments"]):
        others.append([IMPORTLIB, *role["arguments"]])
    if (
        not best["tests"]
        and role["arguments"] != request.tests
        and any(item["where"] == "pytest" for item in best["problems"])
    ):
        others.append(request.tests)
    for arguments in others:
        other_role = {**role, "arguments": arguments}
        other = _collect(snapshot, other_role, request.allow_weaker)
        if len(other["tests"]) > len(best["tests"]):
            best, role = other, other_role
    _write_role(snapshot.folder, role)
    return best


def _collect(snapshot: Snapshot, role: dict[str, Any], allow_weaker: bool) -> dict[str, Any]:
    """Collect the tests with pytest in the sandbox. Return the tests, imported modules, problems and threads."""
    _write_role(snapshot.folder, role)
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
    """Return the folders from which modules are imported, the repository's root first.

    The root and each folder with a project file (`PROJECT_FILES`) are project folders, except folders of tests and
    documentation. The result has the project folders and their subfolders `src`, `lib` and `python`, if they contain
    Python files. The root is always included.
    """
    projects = {""} | {
        posixpath.dirname(path) for path in files
        if posixpath.basename(path) in PROJECT_FILES and not is_test_file(path) and not is_documentation(path)
    }  # fmt: skip
    modules = {posixpath.dirname(path) for path in files if path.endswith(".py")}
    bases = [posixpath.join(project, name) for project in sorted(projects) for name in ("", *SOURCE_FOLDERS)]
    bases = [base.rstrip("/") for base in bases]
    return ["", *(base for base in bases if base and any(f"{folder}/".startswith(f"{base}/") for folder in modules))]


def _below(files: dict[str, bytes], base: str) -> list[str]:
    """Return the paths below the folder `base`, relative to `base`."""
    return [path[len(base) + 1 :] if base else path for path in files if not base or path.startswith(f"{base}/")]


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files that every user may read, because programs in the sandbox run as another user."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o644)
    for directory in [folder, *(item for item in folder.rglob("*") if item.is_dir())]:
        directory.chmod(directory.stat().st_mode | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)

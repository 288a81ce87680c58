"""Make snapshots of repositories in compiled languages: export the files, build them, and run each test once.

A snapshot contains the repository twice: as `tree` (for the compiler, with tests that report their results) and as `bare`
(for the running test program, without sources and documentation). `cache` is the build cache that the first build fills. The
name of a snapshot is a hash of its content, and each snapshot is made once per machine. Code of the repository and its
compiler run only in the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from alignment.grading.projects.project import ProjectSnapshot, step_program
from alignment.grading.projects.project_language import ProjectFunction, ProjectLanguage, Survey
from alignment.grading.repository import store
from alignment.logs import get_logger
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot
from alignment.sandbox.toolchains import toolchain
from data_builders.repositories.sources import Reader, Repository, list_files
from data_builders.repositories.text_decoding import decode, is_plain_path
from data_builders.tasks.body_copies import flat
from data_builders.tasks.python.python_suite import is_documentation, write_files

logger = get_logger(__name__)

VERSION = 1
"""Version of the snapshot format. If this number is increased, all snapshots are made again."""
MAX_FILE = 4 << 20
"""Maximum size of an exported file in bytes."""
MAX_BYTES = 256 << 20
"""Maximum total size of all exported files in bytes."""


@dataclass
class PreparedProject:
    """A snapshot of a repository, with the functions that may become tasks."""

    snapshot: ProjectSnapshot
    functions: list[ProjectFunction]
    sources: dict[str, str]
    """Texts of the language's files, with tests as they are in the repository, keyed by path."""
    survey: Survey

    @property
    def id(self) -> str:
        """The id of the snapshot. Task rows refer to the snapshot by this id."""
        return self.snapshot.folder.name

    @cached_property
    def flat(self) -> dict[str, str]:
        """The texts of the files without tests, simplified by `body_copies.flat`, to search for copies of a body."""
        language = self.snapshot.language
        return {path: flat(text) for path, text in self.sources.items() if not language.is_test(path)}


def prepare_project(
    language: ProjectLanguage,
    repository: Repository,
    paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    *,
    test_seconds: float,
    budget_seconds: float,
    allow_weaker: bool = False,
) -> PreparedProject:
    """Make a snapshot of a repository at its commit, or reuse a stored snapshot.

    Args:
        language: the language of the tests.
        repository: a repository from `data_builders.repositories.sources.resolve`.
        paths: files and folders of the tests. If no test is below them, all tests are used.
        environment: environment variables that builds and tests need.
        test_seconds: time limit of one test while each test runs once.
        budget_seconds: time limit of the run of all tests.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.

    Raises:
        NoToolchain: the toolchain of the language is not installed.
        ValueError: the repository has more than `MAX_BYTES` of files, or the build cannot be run.
    """
    tools = toolchain(language.name)
    files = _read(repository)
    decoded = {path: decode(content) for path, content in files.items() if is_plain_path(path) and language.reads(path)}
    sources = {path: text for path, (text, problem) in decoded.items() if not problem}
    modules = language.modules()
    identity = [
        VERSION,
        language.name,
        repository.name,
        tools.identity,
        list(paths),
        sorted((environment or {}).items()),
        modules,
    ]
    digest = hashlib.sha256(json.dumps(identity).encode())
    for path in sorted(files):
        digest.update(b"%s\0%d\0" % (os.fsencode(path), len(files[path])) + files[path])
    folder = store() / digest.hexdigest()[:32]
    if not (folder / "suite.json").is_file():
        tests = _selected(language.tests(sources), paths)
        token = secrets.token_hex(8)
        changed = language.instrumented(sources, token)
        shutil.rmtree(folder, ignore_errors=True)
        write_files(folder / "tree", {**files, **{path: text.encode() for path, text in changed.items()}})
        bare = {
            path: data for path, data in files.items() if not _is_source(language, path) and not is_documentation(path)
        }
        write_files(folder / "bare", bare)
        for unit in {*tests.values(), *(path.rpartition("/")[0] for path in sources)}:
            (folder / "bare" / unit).mkdir(parents=True, exist_ok=True)
        write_files(folder / "bare", {})
        write_files(folder / "cache", {})
        data: dict[str, Any] = {
            "kind": "project", "language": language.name, "name": repository.name, "commit": repository.commit, "token": token,
            "toolchain": tools.version, "environment": dict(environment or {}), "modules": modules, "runtime": language.runtime(),
            "tests": tests, "facts": language.facts({**sources, **changed}),
        }  # fmt: skip
        survey = _survey(language, ProjectSnapshot(folder, data), test_seconds, budget_seconds, allow_weaker)
        (folder / "survey.json").write_text(json.dumps(asdict(survey)), encoding="utf-8")
        (folder / "suite.json").write_text(json.dumps(data), encoding="utf-8")
    survey = Survey(**json.loads((folder / "survey.json").read_text(encoding="utf-8")))
    functions = [
        item for path in sorted(sources)
        if path.endswith(language.suffix) and not language.is_test(path) and not is_documentation(path)
        for item in language.functions(path, sources[path])
    ]  # fmt: skip
    return PreparedProject(ProjectSnapshot.open(folder), functions, sources, survey)


def _is_source(language: ProjectLanguage, path: str) -> bool:
    """Whether a running test program must not see a file. Test data with the suffix of the language stays."""
    return path.endswith(language.suffix) and not any(part in ("testdata", "fixtures") for part in path.split("/"))


def _selected(tests: dict[str, str], paths: Sequence[str]) -> dict[str, str]:
    """Return the tests below the given files and folders, or all tests if there are none."""
    below = [path.rstrip("/") for path in paths]
    named = {
        name: unit for name, unit in tests.items()
        if any(name.startswith((f"{path}/", f"{path}::")) for path in below)
    }  # fmt: skip
    return named or tests


def _read(repository: Repository) -> dict[str, bytes]:
    """Read the repository's files, keyed by path. Text is converted to UTF-8 with `\\n` as line ends."""
    files: dict[str, bytes] = {}
    size = 0
    with Reader(repository) as reader:
        for file in list_files(repository, MAX_FILE):
            parts = file.path.split("/")
            if file.skip or ".git" in parts or ".." in parts or "\0" in file.path:
                continue
            size += file.size
            if size > MAX_BYTES:
                raise ValueError(
                    f"{repository.name} has more than {MAX_BYTES >> 20} MB of files: name a folder inside it as the source"
                )
            content = reader.read(file)
            if content is not None:
                files[file.path] = (
                    content.replace(b"\r\n", b"\n") if file.path.endswith((".go", ".rs", ".java")) else content
                )
    return files


def _survey(
    language: ProjectLanguage, snapshot: ProjectSnapshot, test_seconds: float, budget_seconds: float, allow_weaker: bool
) -> Survey:
    """Build the repository in the sandbox, store the build cache in the snapshot, and return what the tests did."""
    tests = snapshot.data["tests"]
    units = sorted(set(tests.values()))
    logger.info(
        "%s: building %d packages with tests and running %d tests once", snapshot.data["name"], len(units), len(tests)
    )
    if not units:
        return Survey()
    slot = Slot(snapshot.settings("builder", allow_weaker))
    try:
        (run,) = slot.run(
            [step_program(language.survey(units, test_seconds, budget_seconds), snapshot.data["environment"])]
        )
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    except SandboxError as error:
        raise ValueError(f"{snapshot.data['name']}: the build could not be run: {error}") from None
    finally:
        slot.close()
    if run.stop is not None or run.code != 0:
        text = (run.stderr or run.stdout).decode(errors="replace").strip()
        raise ValueError(
            f"{snapshot.data['name']}: the build failed ({run.stop or f'exit code {run.code}'}): {text[-600:]}"
        )
    head, _, body = run.reply.partition(b"\n")
    files: dict[str, bytes] = {}
    position = 0
    for name, size in json.loads(head)["files"]:
        files[str(name)] = body[position : position + size]
        position += size
    cache = {name.removeprefix("cache/"): data for name, data in files.items() if _is_inside(name, "cache/")}
    for name in language.cache_folders:
        (snapshot.folder / "cache" / name).mkdir(parents=True, exist_ok=True)
    write_files(snapshot.folder / "cache", cache)
    return language.read_survey(
        {name: data for name, data in files.items() if _is_inside(name, "survey/")}, tests, units
    )


def _is_inside(name: str, folder: str) -> bool:
    return name.startswith(folder) and not {"", ".", ".."} & set(name.split("/"))

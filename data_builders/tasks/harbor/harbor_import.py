"""Read Harbor task folders as repair tasks: tasks of a Python repository that need no image of their own.

The tests of such a task are named in `tests/config.json` as `FAIL_TO_PASS` and `PASS_TO_PASS`, in the form of SWE-bench. The
repository is the folder that the Dockerfile copies into the container.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.repositories.sources import Repository
from data_builders.tasks.build_tasks import write_rows
from data_builders.tasks.harbor.harbor_files import (
    DOCKERFILE,
    INSTRUCTION,
    PATCH,
    SOLVE_SCRIPT,
    TASK_FILE,
    TEST_CONFIG,
    TEST_FILES,
    NotConvertible,
)
from data_builders.tasks.python.python_suite import is_test_file, prepare_suite
from data_builders.tasks.task_rows import split_names

COMPOSE = ("environment/docker-compose.yaml", "environment/docker-compose.yml", "environment/compose.yaml")
HIDDEN_SHARE = 0.5
_PYTHON = re.compile(r"(?:docker\.io/)?(?:library/)?python(?::[\w.-]+)?(?:@sha256:\w+)?")
_INSTALLS = re.compile(
    r"(?:python3? -m )?(?:pip3?|uv pip) install\b|apt(?:-get)? (?:update|install|clean)\b|rm -rf /var/lib/apt|mkdir\b|true$|"
    r"git (?:config|init|add|commit)\b"
)
"""Steps of a Dockerfile that install packages, which an interpreter on this machine has instead, or change no file of the
repository."""


def import_tasks(
    folder: Path, out: Path, interpreter: Path | None = None, *, allow_weaker: bool = False
) -> tuple[int, dict[str, str]]:
    """Write one row for each Harbor task folder.

    Args:
        folder: a task folder, or a folder of task folders.
        out: the JSONL file to write.
        interpreter: Python interpreter with the packages of the tests. By default the interpreter of this process.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.

    Returns:
        The number of rows, and the reason for each folder that has none, keyed by its name.

    Raises:
        ValueError: there is no task folder, or no task can be read. The message has the reasons.
    """
    folders = task_folders(folder)
    rows, refused = [], {}
    for task in folders:
        try:
            rows.append(_row(task, interpreter, allow_weaker))
        except NotConvertible as error:
            refused[task.name] = str(error)
    if not rows:
        raise ValueError("no task can be read: " + "; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    write_rows(out, rows)
    return len(rows), refused


def task_folders(folder: Path) -> list[Path]:
    """Return the task folders in a folder, or the folder itself. Raises ValueError if there is none."""
    folders = (
        [folder] if (folder / TASK_FILE).is_file() else sorted(path.parent for path in folder.glob(f"*/{TASK_FILE}"))
    )
    if not folders:
        raise ValueError(f"{folder} has no Harbor task: a task is a folder with {TASK_FILE} and {INSTRUCTION}")
    return folders


def _row(folder: Path, interpreter: Path | None, allow_weaker: bool) -> dict[str, Any]:
    settings = _settings(folder)
    recipe = Container.of(folder, settings)
    config = _config(folder)
    names = {key: _names(config, key) for key in ("FAIL_TO_PASS", "PASS_TO_PASS")}
    if not names["FAIL_TO_PASS"]:
        raise NotConvertible(f"{TEST_CONFIG} names no tests in FAIL_TO_PASS")
    identifier = str(config.get("instance_id") or folder.name)
    changes: dict[str, bytes | None] = {}
    for path in sorted((folder / TEST_FILES).rglob("*")):
        if path.is_file():
            changes[str(path.relative_to(folder / TEST_FILES))] = path.read_bytes()
    files = sorted({name.partition("::")[0] for part in names.values() for name in part})
    missing = [file for file in files if file not in changes and not (recipe.repository / file).is_file()]
    if missing:
        raise NotConvertible(f"there is no test file {missing[0]} in {TEST_FILES} or in the repository")
    named = settings.get("metadata", {})
    source = str(named.get("source") or config.get("source") or identifier)
    repository = Repository(source.partition("@")[0], recipe.repository.resolve(), "", str(named.get("license") or ""))
    try:
        suite = prepare_suite(
            repository, interpreter=interpreter, tests=[file for file in files if is_test_file(file)], changes=changes,
            environment=recipe.environment, allow_weaker=allow_weaker,
        )  # fmt: skip
    except ValueError as error:
        raise NotConvertible(str(error)) from None
    visible, hidden = _parts(identifier, names, config.get("visible"))
    tests = {"suite": suite.id, "visible": visible, "hidden": hidden, "fail_to_pass": names["FAIL_TO_PASS"]}
    row: dict[str, Any] = {
        "id": identifier, "prompt": (folder / INSTRUCTION).read_text(encoding="utf-8").strip(), "language": "python",
        "kind": "repository", "tests": json.dumps(tests), "split": str(named.get("split") or "train"), "source": source,
        "license": str(named.get("license") or ""), "origin": "harbor",
    }  # fmt: skip
    reference = _reference(folder)
    return row | ({"reference": reference} if reference else {})


def _settings(folder: Path) -> dict[str, Any]:
    for name in (TASK_FILE, INSTRUCTION):
        if not (folder / name).is_file():
            raise NotConvertible(f"{name} is missing")
    try:
        return tomllib.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NotConvertible(f"{TASK_FILE} is not valid: {error}") from None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / TEST_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConvertible(
            f"{TEST_CONFIG} with FAIL_TO_PASS is missing: only tasks that are graded by named pytest tests can be read"
        ) from None
    except ValueError as error:
        raise NotConvertible(f"{TEST_CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise NotConvertible(f"{TEST_CONFIG} must be a JSON object")
    return config


def _names(config: Mapping[str, Any], key: str) -> list[str]:
    """Return the tests of a key. SWE-bench writes lists as JSON strings."""
    value = config.get(key) or []
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(name, str) and "::" in name for name in value):
        raise NotConvertible(
            f"{key} in {TEST_CONFIG} must be a list of pytest's names, such as tests/test_a.py::test_b"
        )
    return list(dict.fromkeys(value))


def _parts(identifier: str, names: Mapping[str, list[str]], shown: Any) -> tuple[list[str], list[str]]:
    """Return the visible and the hidden tests: as the folder names them, or split by the id of the task."""
    everything = [*names["FAIL_TO_PASS"], *names["PASS_TO_PASS"]]
    if isinstance(shown, list):
        return [name for name in everything if name in shown], [name for name in everything if name not in shown]
    visible: list[str] = []
    hidden: list[str] = []
    for part in names.values():
        if part:
            split = split_names(identifier, part, HIDDEN_SHARE, divide=False)
            visible += split[0]
            hidden += split[1]
    return visible, hidden


def _reference(folder: Path) -> str:
    """Return the reference patch of a task: a patch file, or the text between `<<` marks of the script. "" without one."""
    if (folder / PATCH).is_file():
        return (folder / PATCH).read_text(encoding="utf-8")
    for path in sorted((folder / "solution").glob("*")):
        if path.suffix in (".patch", ".diff"):
            return path.read_text(encoding="utf-8")
    script = folder / SOLVE_SCRIPT
    text = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    inline = re.search(r"<<-?\s*(['\"]?)(\w+)\1[^\n]*\n(diff --git .*?\n)\2\s*$", text, re.DOTALL | re.MULTILINE)
    return inline[3] if inline else ""


@dataclass(frozen=True)
class Container:
    """What a Dockerfile does: the repository that it copies, and the environment variables that it sets."""

    repository: Path
    environment: dict[str, str]

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Any]) -> Container:
        """Read the container of a task. Raises NotConvertible if the task needs an image of its own."""
        image = (settings.get("environment") or {}).get("docker_image")
        if image:
            raise NotConvertible(f"the task needs the image {image} (docker_image in {TASK_FILE})")
        for name in COMPOSE:
            if (folder / name).is_file():
                raise NotConvertible(f"the task needs several containers ({name})")
        if not (folder / DOCKERFILE).is_file():
            raise NotConvertible(f"{DOCKERFILE} is missing")
        workdir, copies = "/", list[tuple[str, str, str]]()
        environment: dict[str, str] = {}
        for keyword, rest in instructions((folder / DOCKERFILE).read_text(encoding="utf-8", errors="replace")):
            if keyword == "FROM" and not _PYTHON.fullmatch(rest.split()[0]):
                raise NotConvertible(
                    f"the task needs the image {rest.split()[0]}: only images of python are known to be replaceable"
                )
            if keyword == "WORKDIR":
                workdir = posixpath.join(workdir, rest)
            elif keyword == "COPY":
                copies.append((*_copied(rest), workdir))
            elif keyword == "ENV":
                environment |= _variables(rest)
            elif keyword == "RUN" and (step := _other_step(rest)):
                raise NotConvertible(f"the task needs an image of its own: its Dockerfile runs `{step[:80]}`")
            elif keyword in ("ADD", "USER", "VOLUME", "ONBUILD", "SHELL"):
                raise NotConvertible(f"the task needs an image of its own: its Dockerfile has {keyword}")
        return cls(_repository(folder, copies, workdir), environment)


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield (keyword, rest) for each instruction of a Dockerfile. Continued lines are joined, comments left out."""
    lines = [line for line in dockerfile.split("\n") if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\s*\n", " ", "\n".join(lines)).split("\n"):
        keyword, _, rest = line.strip().partition(" ")
        if keyword:
            yield keyword.upper(), rest.strip()


def _other_step(command: str) -> str:
    """Return the first part of a RUN command that does more than install packages, or ""."""
    parts = (part.strip() for part in re.split(r"&&|;|\|\|", command))
    return next((part for part in parts if part and not _INSTALLS.match(part)), "")


def _copied(rest: str) -> tuple[str, str]:
    try:
        words = [word for word in shlex.split(rest) if not word.startswith("--")]
    except ValueError:
        words = []
    if len(words) != 2:
        raise NotConvertible(f"`COPY {rest}` in the Dockerfile can't be read")
    return words[0], words[1]


def _variables(rest: str) -> dict[str, str]:
    try:
        words = shlex.split(rest)
    except ValueError:
        words = []
    if all("=" in word for word in words) and words:
        return {name: value for name, _, value in (word.partition("=") for word in words)}
    if len(words) >= 2:
        return {words[0]: " ".join(words[1:])}
    raise NotConvertible(f"`ENV {rest}` in the Dockerfile can't be read")


def _repository(folder: Path, copies: list[tuple[str, str, str]], workdir: str) -> Path:
    """Return the folder that becomes the working folder of the container."""
    context = (folder / DOCKERFILE).parent
    for source, target, current in copies:
        place = context / source
        if place.is_dir() and posixpath.normpath(posixpath.join(current, target)) == posixpath.normpath(workdir):
            if not place.resolve().is_relative_to(context.resolve()):
                raise NotConvertible(f"`COPY {source}` in the Dockerfile leads out of its folder")
            return place
    raise NotConvertible("the Dockerfile copies no folder into its working folder: the repository is in an image")

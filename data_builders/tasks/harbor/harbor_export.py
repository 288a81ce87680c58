"""Write repair tasks (kind `repository`) as Harbor task folders."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignment.grading.repository import ROOT, Snapshot, open_snapshot
from alignment.grading.withheld_tests import withheld_by_file, without_tests
from alignment.rows.reading import read_rows
from data_builders.tasks.harbor.harbor_files import (
    DOCKERFILE,
    INSTRUCTION,
    PATCH,
    REPOSITORY,
    SOLVE_SCRIPT,
    TASK_FILE,
    TEST_CONFIG,
    TEST_FILES,
    TEST_SCRIPT,
    WORKSPACE,
    NotConvertible,
)
from data_builders.tasks.python.python_suite import write_files

AGENT_SECONDS, VERIFIER_SECONDS, BUILD_SECONDS = 1800.0, 600.0, 1200.0
"""Time limits in `task.toml`."""
_VERSION = re.compile(r"(\d+\.\d+)")
_TEST_SCRIPT = """#!/bin/bash
# Puts the tests of the change into place, runs them, and writes the reward: 1 if all pass, else 0.
cd {workspace}
cp -r /tests/files/. .
export PYTHONPATH={paths}
mkdir -p /logs/verifier
mapfile -t names < <(python -c 'import json; c = json.load(open("/tests/config.json")); print("\\n".join(c["FAIL_TO_PASS"] + c["PASS_TO_PASS"]))')
if python -m pytest -q -p no:cacheprovider {arguments} "${{names[@]}}"; then
  echo 1 > /logs/verifier/reward.txt
else
  echo 0 > /logs/verifier/reward.txt
fi
"""
_SOLVE_SCRIPT = """#!/bin/bash
cd {workspace} && git apply /solution/reference.patch
"""
_DOCKERFILE = """FROM python:{version}-slim
RUN apt-get update && apt-get install -y --no-install-recommends git patch && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir -r /requirements.txt
WORKDIR {workspace}
COPY repository/ {workspace}/
{environment}"""


def export_tasks(rows: str | Path, out: Path, requirements: Path | None = None) -> tuple[int, dict[str, str]]:
    """Write one Harbor task folder for each repair task of a file.

    Args:
        rows: the rows of the tasks. Their snapshots must be on this machine.
        out: the folder for the task folders. It must not exist, or be empty.
        requirements: the packages that the tests need, as a file for pip. By default only pytest is installed.

    Returns:
        The number of folders, and the reason for each row that has none, keyed by the row's id.

    Raises:
        ValueError: `out` has files.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name another folder")
    needed = "pytest\n" if requirements is None else requirements.read_text(encoding="utf-8")
    refused: dict[str, str] = {}
    count = 0
    for number, row in enumerate(read_rows(rows), 1):
        identifier = str(row.get("id", number))
        folder = out / folder_name(identifier)
        try:
            if folder.exists():
                raise NotConvertible(f"another task has the folder name {folder.name} too")
            files = _files(row, needed)
            write_files(folder, files)
            for script in (TEST_SCRIPT, SOLVE_SCRIPT):
                if script in files:
                    (folder / script).chmod(0o755)
            count += 1
        except NotConvertible as error:
            refused[identifier] = str(error)
    return count, refused


def folder_name(identifier: str) -> str:
    """Return the name of a task's folder: the id with `-` in place of characters that Harbor does not allow."""
    return re.sub(r"[^a-z0-9.]+", "-", identifier.lower()).strip("-.") or "task"


def _files(row: Mapping[str, Any], requirements: str) -> dict[str, bytes]:
    """Return the content of a task folder, keyed by path."""
    if row.get("kind") != "repository":
        raise NotConvertible(f"a task of kind {row.get('kind')!r} has no repository: only `repository` can be exported")
    tests = json.loads(row["tests"]) if isinstance(row["tests"], str) else row["tests"]
    try:
        snapshot = open_snapshot(tests["suite"])
    except ValueError as error:
        raise NotConvertible(str(error)) from None
    role = json.loads((snapshot.folder / "tester.json").read_text(encoding="utf-8"))
    version = _VERSION.search(snapshot.data["python"])
    failing = set(tests.get("fail_to_pass", tests["hidden"]))
    names = [*tests["visible"], *tests["hidden"]]
    config = {
        "instance_id": str(row["id"]), "FAIL_TO_PASS": [name for name in names if name in failing],
        "PASS_TO_PASS": [name for name in names if name not in failing], "visible": tests["visible"],
        "source": row.get("source", ""), "license": row.get("license", ""),
    }  # fmt: skip
    texts = {
        INSTRUCTION: f"{row['prompt']}\n\nThe repository is in `{WORKSPACE}`. Change its code; do not change its tests.\n",
        TASK_FILE: _task_toml(row),
        DOCKERFILE: _DOCKERFILE.format(
            version=version[1] if version else "3.11", workspace=WORKSPACE, environment=_environment(role["environment"])
        ),
        "environment/requirements.txt": requirements,
        TEST_SCRIPT: _TEST_SCRIPT.format(
            workspace=WORKSPACE, paths=shlex.quote(":".join(_in_container(path) for path in role["paths"])),
            arguments=" ".join(map(shlex.quote, _options(snapshot, role["arguments"]))),
        ),
        TEST_CONFIG: json.dumps(config, indent=1),
    }  # fmt: skip
    if row.get("reference"):
        texts |= {PATCH: row["reference"], SOLVE_SCRIPT: _SOLVE_SCRIPT.format(workspace=WORKSPACE)}
    files = {path: text.encode() for path, text in texts.items()}
    files |= {f"{REPOSITORY}/{path}": content for path, content in _shown_files(snapshot, tests).items()}
    for path in _test_files(snapshot, names):
        files[f"{TEST_FILES}/{path}"] = (snapshot.tree / path).read_bytes()
    return files


def _in_container(path: str) -> str:
    return WORKSPACE + path.removeprefix(ROOT)


def _options(snapshot: Snapshot, arguments: Iterable[str]) -> list[str]:
    """Return the arguments of pytest without the paths of tests."""
    return [item for item in arguments if not (snapshot.tree / item).exists()]


def _test_files(snapshot: Snapshot, names: Iterable[str]) -> list[str]:
    """Return the files that the tests need besides the code: test files, and files in their folders."""
    files = {name.partition("::")[0] for name in names} | set(snapshot.data["test_files"])
    return sorted(path for path in files if (snapshot.tree / path).is_file())


def _shown_files(snapshot: Snapshot, tests: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of the repository without the hidden tests."""
    withheld = withheld_by_file(tests["hidden"], tests["visible"])
    files = {}
    for path in sorted(snapshot.tree.rglob("*")):
        if not path.is_file():
            continue
        name, content = str(path.relative_to(snapshot.tree)), path.read_bytes()
        if name in withheld:
            source = content.decode("utf-8", "surrogateescape")
            content = without_tests(source, withheld[name]).encode("utf-8", "surrogateescape")
        files[name] = content
    return files


def _environment(variables: Mapping[str, str]) -> str:
    return "".join(f"ENV {name}={json.dumps(value)}\n" for name, value in variables.items())


def _task_toml(row: Mapping[str, Any]) -> str:
    """Return the text of `task.toml`. JSON strings are valid TOML strings."""
    metadata = {name: str(row[name]) for name in ("source", "license", "origin", "split") if row.get(name)}
    lines = [
        'version = "1.0"', "", "[metadata]", 'category = "programming"', 'tags = ["python", "repair"]',
        *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.items()),
        "", "[agent]", f"timeout_sec = {AGENT_SECONDS}", "", "[verifier]", f"timeout_sec = {VERIFIER_SECONDS}",
        "", "[environment]", f"build_timeout_sec = {BUILD_SECONDS}", "cpus = 1", "memory_mb = 4096",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"

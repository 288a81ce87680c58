"""Files of a repository that a patch may not change, because they decide which tests run and how they are judged."""

from __future__ import annotations

import configparser
import fnmatch
import sys
import tomllib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

TEST_NAMES = ("test_*.py", "*_test.py", "conftest.py", "tests.py")
TEST_FOLDERS = frozenset({"tests", "test"})
PROTECTED_NAMES = frozenset(
    ["conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "sitecustomize.py", "usercustomize.py",
     ".coveragerc", "noxfile.py"]
)  # fmt: skip
PROTECTED_SUFFIXES = (".pth", ".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".egg-link")
PROTECTED_FOLDERS = (".git", "__pycache__", "*.dist-info", "*.egg-info")
SETTINGS_FILES = frozenset({"pyproject.toml", "setup.cfg", "tox.ini"})
"""Files with settings of pytest and of other tools. A patch may change only the settings of other tools."""
LONGEST_PATH = 300


def is_test_file(path: str) -> bool:
    """Whether a path looks like a test file, judged by the file name and by folders named `tests` or `test`."""
    *folders, name = path.split("/")
    return any(folder in TEST_FOLDERS for folder in folders) or any(
        fnmatch.fnmatch(name, pattern) for pattern in TEST_NAMES
    )


def path_problem(tree: Path, path: str) -> str | None:
    """Return why a path is not a path of a file inside a repository, or None.

    Args:
        tree: folder of the repository. The path may not lead through a symbolic link of this folder.
        path: path relative to the folder.
    """
    parts = path.split("/")
    if not path or len(path) > LONGEST_PATH or not path.isprintable():
        return f"a path has 1 to {LONGEST_PATH} printable characters"
    if path.startswith(("/", "~")) or ".." in parts or "" in parts or "." in parts:
        return "a path is relative to the repository, without `..`, `.` and empty parts"
    if "\\" in path:
        return "a path has `/` between folders"
    place = tree
    for part in parts[:-1]:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return f"{place.relative_to(tree)} is not a folder"
    place /= parts[-1]
    if place.is_symlink():
        return "it is a symbolic link"
    return "it is not a file" if place.exists() and not place.is_file() else None


def change_problem(
    tree: Path,
    path: str,
    content: bytes | None,
    tests: Collection[str],
    roots: Sequence[str],
    packages: Iterable[str],
) -> str | None:
    """Return why a patch may not change a file, or None.

    Args:
        tree: folder of the repository.
        path: path of the file.
        content: the new content. None: the file is deleted.
        tests: paths of all files with tests.
        roots: folders of the repository from which modules are imported, the empty text for the repository itself.
        packages: folders of installed packages.
    """
    if problem := path_problem(tree, path):
        return problem
    *folders, name = path.split("/")
    if path in tests or is_test_file(path):
        return "test files can't be changed"
    if name in PROTECTED_NAMES or name.endswith(PROTECTED_SUFFIXES):
        return "this file decides how tests run, and can't be changed"
    if any(fnmatch.fnmatch(folder, pattern) for folder in folders for pattern in PROTECTED_FOLDERS):
        return "files in this folder can't be changed"
    before = (tree / path).read_bytes() if (tree / path).is_file() else None
    if name in SETTINGS_FILES:
        try:
            if _pytest_settings(name, before) != _pytest_settings(name, content):
                return "the settings of pytest can't be changed"
        except (ValueError, configparser.Error) as error:
            return f"the file can't be read: {error}"
    if before is None and (module := _shadowed(tree, path, roots, packages)):
        return f"a module named {module!r} is installed already, and would be replaced by this file"
    return None


def _pytest_settings(name: str, content: bytes | None) -> Any:
    text = (content or b"").decode("utf-8")
    if name == "pyproject.toml":
        return tomllib.loads(text).get("tool", {}).get("pytest")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    return dict(parser[section]) if parser.has_section(section) else None


def _shadowed(tree: Path, path: str, roots: Sequence[str], packages: Iterable[str]) -> str | None:
    """Return the name of a module of Python or of an installed package that a new file would replace, or None."""
    for root in roots:
        if root and not path.startswith(f"{root}/"):
            continue
        top = path.removeprefix(f"{root}/" if root else "").split("/")[0]
        if (tree / root / top).exists():
            continue
        module = top.partition(".")[0]
        if module in sys.stdlib_module_names:
            return module
        if any((Path(folder) / name).exists() for folder in packages for name in (module, f"{module}.py")):
            return module
    return None

"""Read the `addopts` of a repository's pytest settings, and keep the options that decide which tests are collected.

pytest runs without the repository's `addopts`, because they often name plugins that are not installed (`--cov`, `-n auto`)
and change only the output. Options that select tests must have their effect, however: without `-m "not slow"` or
`--ignore=fuzz`, a suite can have a hundred times as many tests as its authors run. All other settings of the file
(`testpaths`, `python_files`, `norecursedirs`, ...) are read by pytest itself.
"""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from data_builders.repositories.text_decoding import decode

_VALUED = frozenset({"-m", "-k", "--ignore", "--ignore-glob", "--deselect", "--import-mode"})
_FLAGS = frozenset({"--pyargs", "--noconftest", "--collect-in-virtualenv", "--keep-duplicates"})
_AS_INI = {"--asyncio-mode": "asyncio_mode", "--ds": "DJANGO_SETTINGS_MODULE"}
"""Options of plugins, with the setting that has the same effect. pytest refuses an option of a plugin that is not installed,
but only warns about a setting."""
_NO_VALUE = frozenset(
    ["--strict", "--strict-markers", "--strict-config", "--doctest-modules", "--showlocals", "--verbose", "--quiet",
     "--exitfirst", "--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--sw", "--stepwise", "--runxfail", "--no-header",
     "--no-summary", "--disable-warnings", "--cache-clear", "--full-trace", "--setup-show", "--no-cov", "--no-migrations",
     "--reuse-db", "--create-db", "--benchmark-disable", "--benchmark-skip", "--random-order"]
)  # fmt: skip
"""Options without a value, so that a word after them is a path. A word after any other option is the option's value."""


def selecting_arguments(files: Mapping[str, bytes], *, paths: bool = True) -> list[str]:
    """Return the options in `addopts` that select tests, as arguments of pytest.

    Kept are expressions (`-m`, `-k`), excluded files and tests (`--ignore`, `--ignore-glob`, `--deselect`), the import mode,
    plugins (`-p`) that are modules of the repository, options that a conftest of the repository defines, and, if `paths` is
    true, the paths of tests.

    Args:
        files: content of the repository's files, keyed by path.
        paths: whether to keep paths of tests. They are not kept if the user names other paths.
    """
    words = addopts(files)
    arguments: list[str] = []
    own = _own_options(files)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name[:2] in ("-m", "-k", "-p") and not name.startswith("--") and len(word) > 2:
            words.insert(0, word[2:].removeprefix("="))
            word = name = word[:2]
            equals = ""
        if name in _VALUED or name in _AS_INI or name == "-p" or own.get(name) is True:
            if not equals:
                value = words.pop(0) if words else ""
            arguments += _with_value(name, value, files)
        elif name in _FLAGS or own.get(name) is False:
            arguments.append(name)
        elif name.startswith("--"):
            if not equals and name not in _NO_VALUE and words and not words[0].startswith("-"):
                words.pop(0)
        elif word.startswith("-"):
            if word in ("-n", "-c", "-o", "-r", "-W") and words:
                words.pop(0)
        elif paths and _is_path(word, files):
            arguments.append(word)
    return arguments


def addopts(files: Mapping[str, bytes]) -> list[str]:
    """Return the words of `addopts` in the settings file that pytest uses: the first file with a section for pytest."""
    for name in ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        if name not in files:
            continue
        text, _ = decode(files[name])
        section = _toml_section(text, name) if name.endswith(".toml") else _ini_section(text, name)
        if section is not None:
            value = section.get("addopts", "")
            if isinstance(value, list):
                return [str(word) for word in value]
            try:
                return shlex.split(str(value))
            except ValueError:  # an open quote: pytest refuses the file, and the advice says so
                return []
    return []


def _toml_section(text: str, name: str) -> Mapping[str, Any] | None:
    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    keys = ("tool", "pytest") if name == "pyproject.toml" else ("pytest",)
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    if isinstance(table, dict) and isinstance(old := table.get("ini_options"), dict):
        return old
    return table if isinstance(table, dict) else None


def _ini_section(text: str, name: str) -> Mapping[str, Any] | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=", ":"))
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    if parser.has_section(section):
        return parser[section]
    return {} if name in ("pytest.ini", ".pytest.ini") else None  # pytest uses these files even without a section


def _with_value(name: str, value: str, files: Mapping[str, bytes]) -> Iterator[str]:
    if not value or (name == "-p" and not value.startswith("no:") and not _has_module(value, files)):
        return
    if name in _AS_INI:
        yield from ("-o", f"{_AS_INI[name]}={value}")
    elif name.startswith("--"):
        yield f"{name}={value}"
    else:
        yield from (name, value)


def _has_module(name: str, files: Collection[str]) -> bool:
    path = name.replace(".", "/")
    return any(f"/{file}".endswith((f"/{path}.py", f"/{path}/__init__.py")) for file in files)


def _is_path(word: str, files: Collection[str]) -> bool:
    path = word.partition("::")[0].removeprefix("./").rstrip("/")
    return any(file == path or file.startswith(f"{path}/") for file in files)


def _own_options(files: Mapping[str, bytes]) -> dict[str, bool]:
    """Return the options that conftest files define where pytest reads them early; maps each to whether it has a value."""
    options = {}
    for path, content in files.items():
        if re.fullmatch(r"(?:(?:test\w*|src)/)?conftest\.py", path):
            for match in re.finditer(rb"addoption\(\s*['\"](--[\w-]+)['\"]([^)]{0,400})", content):
                options[match.group(1).decode()] = b"store_true" not in match[2] and b"store_false" not in match[2]
    return options

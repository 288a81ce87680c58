"""Add files to a snapshot that a build writes and git ignores: version files, extension modules, generated modules, data.

A commit holds only the sources of such files. They are taken, in this order, from the package as it is installed in the
interpreter, from the working tree of the repository, or, for a module that only holds the version, written anew. Modules
are added only if the repository imports them, because an installed package may be of another version than the commit.
Files that another commit holds are not generated: to add one would put the answer of a task into its repository.
"""

from __future__ import annotations

import ast
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_builders.parsing.python_functions import parse
from data_builders.repositories import history
from data_builders.repositories.git import describe
from data_builders.repositories.sources import Repository
from data_builders.repositories.text_decoding import decode, decode_python
from data_builders.tasks.python.python_environment import Environment

MAX_FILE, MAX_BYTES = 64 << 20, 512 << 20
"""Maximum size of an added file, and of all added files together, in bytes."""
_EXTENSIONS = (".so", ".pyd")
_NOT_DATA = (".py", ".pyi", ".pyc", ".pyx", ".pxd", ".c", ".h", ".cpp")
_VERSION_MODULE = re.compile(r"_{0,2}(?:\w+_)?version(?:_\w+)?_{0,2}")
_VERSION_FILE_KEYS = (
    ("tool", "setuptools_scm", "write_to"), ("tool", "setuptools_scm", "version_file"), ("tool", "pdm", "version", "write_to"),
    ("tool", "hatch", "build", "hooks", "vcs", "version-file"), ("tool", "hatch", "build", "hooks", "version", "path"),
    ("tool", "versioningit", "write", "file"), ("tool", "flit_scm", "write_to"),
)  # fmt: skip
"""Settings in pyproject.toml that name the version file which a build writes."""


def generated_files(
    repository: Repository, files: Mapping[str, bytes], bases: Iterable[str], python: Environment
) -> dict[str, bytes]:
    """Return the content of missing generated files, keyed by path.

    Args:
        repository: the repository. Its working tree, if there is one, may hold generated files.
        files: content of the files of the commit, keyed by path.
        bases: the folders from which modules are imported, see `python_suite.roots`.
        python: the environment in which the package may be installed.
    """
    added: dict[str, bytes] = {}
    tracked = history.added_paths(repository.path) if repository.is_git else frozenset[str]()
    imports = dict(_missing_modules(files))
    for base in bases:
        for name in sorted(_packages(files, base)):
            for folder, is_installed in _built_packages(name, base, repository, python):
                for path, source in _needed(folder, posixpath.join(base, name), files, imports, is_installed):
                    if path in tracked and not _VERSION_MODULE.fullmatch(posixpath.basename(path).removesuffix(".py")):
                        continue
                    if path not in added and sum(map(len, added.values())) + source.stat().st_size <= MAX_BYTES:
                        added[path] = source.read_bytes()
    version = project_version(repository, files, python)
    for path, names in {**{path: set[str]() for path in _named_version_files(files)}, **imports}.items():
        stem = posixpath.basename(path).removesuffix(".py")
        if path not in files and path not in added and path.endswith(".py") and _VERSION_MODULE.fullmatch(stem):
            added[path] = version_module(version, names)
    for path, content in _metadata(files, python, version):
        added.setdefault(path, content)
    return added


def project_version(repository: Repository, files: Mapping[str, bytes], python: Environment) -> str:
    """Return the version of a project: as installed, as declared, as the last tag says, or `0.0.0`."""
    name = _normal(str(_project(files).get("name", "")))
    for distribution in python.distributions:
        installed, _, version = distribution.partition("==")
        if name and version and _normal(installed) == name:
            return version
    declared = _project(files).get("version")
    if isinstance(declared, str):
        return declared
    tag = re.search(r"\d+(?:\.\d+)+", describe(repository.path, repository.commit)) if repository.is_git else None
    return tag.group(0) if tag else "0.0.0"


def version_module(version: str, names: Iterable[str] = ()) -> bytes:
    """Return a module with the version, under the names of setuptools_scm and hatch-vcs and under further names."""
    numbers = [int(part) if part.isdigit() else part for part in re.split(r"[.+]", version)]
    pairs = {"__version__": version, "version": version, "__version_tuple__": tuple(numbers), "version_tuple": tuple(numbers),
             "__commit_id__": None, "commit_id": None}  # fmt: skip
    pairs |= {name: version for name in sorted(names) if name.isidentifier() and name not in pairs}
    return "".join(f"{name} = {value!r}\n" for name, value in pairs.items()).encode()


def _packages(files: Mapping[str, bytes], base: str) -> set[str]:
    start = f"{base}/" if base else ""
    return {
        path[len(start) :].split("/")[0] for path in files
        if path.startswith(start) and path.endswith("/__init__.py") and path[len(start) :].count("/") == 1
    }  # fmt: skip


def _built_packages(name: str, base: str, repository: Repository, python: Environment) -> Iterator[tuple[Path, bool]]:
    """Yield the folders that may hold the built package, each with whether it is a complete installation.

    Otherwise the folder is a working tree: that of a package installed as editable, or that of the repository.
    """
    trees = [Path(folder) / name for folder in python.paths]
    trees += [Path(project) / base / name for project in python.editable]
    if repository.is_git and repository.path.name == ".git":
        trees.append(repository.path.parent / base / name)
    places = [(Path(folder) / name, True) for folder in python.packages] + [(tree, False) for tree in trees]
    yield from (place for place in places if place[0].is_dir())


def _needed(
    folder: Path, target: str, files: Mapping[str, bytes], imports: Mapping[str, set[str]], data: bool
) -> Iterator[tuple[str, Path]]:
    """Yield (path in the repository, path on this machine) of files of a built package that the commit lacks and needs.

    Args:
        folder: folder of the built package.
        target: path of the package in the repository.
        files: the files of the commit.
        imports: the modules that the commit imports but lacks.
        data: whether to yield all files that are not code, such as compiled translations.
    """
    for source in sorted(folder.rglob("*")):
        path = posixpath.join(target, source.relative_to(folder).as_posix())
        if path in files or "__pycache__" in source.parts or source.is_symlink() or not source.is_file():
            continue
        if source.suffix in _EXTENSIONS:
            # A module that exists as Python too is not replaced: its functions could not be traced or masked.
            module = f"{posixpath.dirname(path)}/{source.name.partition('.')[0]}"
            wanted = f"{module}.py" not in files
        elif source.suffix == ".py":
            wanted = path in imports or any(path.startswith(f"{package}/") for package in imports)
            wanted = wanted or bool(_VERSION_MODULE.fullmatch(source.stem))
        else:
            wanted = data and not source.name.endswith(_NOT_DATA)
        if wanted and source.stat().st_size <= MAX_FILE:
            yield path, source


def _missing_modules(files: Mapping[str, bytes]) -> Iterator[tuple[str, set[str]]]:
    """Yield modules of the repository's packages that files import but the commit lacks.

    Each item has the path that the module would have and the names that are imported from the module. A missing package is
    yielded both as a file and as a folder (without `.py`).
    """
    missing: dict[str, set[str]] = {}
    packages = {posixpath.dirname(path) for path in files if path.endswith("/__init__.py")}
    tops = {package for package in packages if posixpath.dirname(package) not in packages}
    for file, content in files.items():
        text = decode_python(content) if file.endswith(".py") else None
        tree = parse(text) if text and "import" in text else None
        for node in ast.walk(tree) if tree is not None else ():
            for path, names in _imported(node, file, tops):
                folder = posixpath.dirname(path)
                known = f"{path}.py" in files or path in packages or any(item.startswith(f"{path}.") for item in files)
                if not known and folder in packages:
                    for place in (f"{path}.py", path):
                        missing.setdefault(place, set()).update(names)
    yield from missing.items()


def _imported(node: ast.AST, file: str, tops: Iterable[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield (path without `.py`, imported names) of the modules of the repository that an import statement names."""
    if isinstance(node, ast.ImportFrom) and node.level:
        folder = posixpath.dirname(file)
        for _ in range(node.level - 1):
            folder = posixpath.dirname(folder)
        if node.module:
            yield posixpath.join(folder, node.module.replace(".", "/")), {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
        for top in tops:
            if node.module.split(".")[0] == posixpath.basename(top) and "." in node.module:
                path = posixpath.join(posixpath.dirname(top), node.module.replace(".", "/"))
                yield path, {alias.name for alias in node.names}
    elif isinstance(node, ast.Import):
        for alias in node.names:
            for top in tops:
                if alias.name.split(".")[0] == posixpath.basename(top) and "." in alias.name:
                    yield posixpath.join(posixpath.dirname(top), alias.name.replace(".", "/")), set()


def _pyproject(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        return tomllib.loads(decode(files.get("pyproject.toml", b""))[0])
    except tomllib.TOMLDecodeError:
        return {}


def _project(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return name and version from pyproject.toml (or setup.cfg), as far as they are written there."""
    data = _pyproject(files)
    tables = (data.get("project"), data.get("tool", {}).get("poetry") if isinstance(data.get("tool"), dict) else None)
    for table in tables:
        if isinstance(table, dict) and isinstance(table.get("name"), str):
            return table
    match = re.search(
        rb"^\[metadata\][^\[]*?^name\s*=\s*([\w.-]+)", files.get("setup.cfg", b""), re.MULTILINE | re.DOTALL
    )
    match = match or re.search(rb"\bname\s*=\s*['\"]([\w.-]+)['\"]", files.get("setup.py", b""))
    return {"name": match.group(1).decode()} if match else {}


def _named_version_files(files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the paths of version files that the project's settings name."""
    data: Any = _pyproject(files)
    for keys in _VERSION_FILE_KEYS:
        value: Any = data
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            yield posixpath.normpath(value)
    for match in re.finditer(
        rb"(?:write_to|version_file)['\"]?\s*[=:]\s*['\"]([\w./-]+)['\"]", files.get("setup.py", b"")
    ):
        yield posixpath.normpath(match.group(1).decode())


def _metadata(files: Mapping[str, bytes], python: Environment, version: str) -> Iterator[tuple[str, bytes]]:
    """Yield the metadata by which `importlib.metadata` finds the project, if it is not installed in the interpreter."""
    name = str(_project(files).get("name", ""))
    installed = {_normal(item.partition("==")[0]) for item in python.distributions}
    if re.fullmatch(r"[\w.-]+", name) and _normal(name) not in installed:
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        yield f"{_normal(name).replace('-', '_')}-{version}.dist-info/METADATA", text.encode()


def _normal(name: str) -> str:
    """Return the normalized name of a distribution."""
    return re.sub(r"[-_.]+", "-", name).lower()

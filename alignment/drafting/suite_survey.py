"""Find out whether the tests of a repository can be run on this machine, without executing the repository's code.

For Python, the imports of the test files are followed through the repository, and the Python interpreter is asked which
of the imported packages are installed. For JavaScript, the survey looks for node and for an installed `node_modules`.
For compiled languages, it looks for the toolchain.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alignment.grading.projects.project_languages import PROJECT_LANGUAGES
from alignment.grading.protected_files import is_test_file
from alignment.sandbox.toolchains import NoToolchain, toolchain
from data_builders.repositories.sources import Repository
from data_builders.tasks.javascript.javascript_runners import FOREIGN, SUPPORTED, has_tests, read_packages
from data_builders.tasks.javascript.javascript_suite import checkout, has_javascript
from data_builders.tasks.python.python_environment import find_environment
from data_builders.tasks.python.python_suite import is_documentation, roots

_FIND = """
import importlib.util, json, sys
def known(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
print(json.dumps([name for name in json.loads(sys.argv[1]) if not known(name)]))
"""
_MOST_NAMES = 8
"""Largest number of missing packages that a message lists."""


@dataclass(frozen=True)
class SuiteSurvey:
    """Whether the tests of one language can be run."""

    language: str
    test_files: int
    """Number of test files whose imports are all available."""
    problem: str = ""
    """Why no test can be run, and what to do. "" if tests can be run."""
    note: str = ""
    """Why some tests can't be run, or "" if all can be run."""


def survey_suites(repository: Repository, texts: Mapping[str, str]) -> list[SuiteSurvey]:
    """Return one survey for each language in which the repository has tests.

    Args:
        repository: the repository.
        texts: texts of the repository's files, keyed by path.
    """
    surveys = []
    if any(_is_python_test(path, text) for path, text in texts.items()):
        surveys.append(_survey_python(repository, texts))
    if has_javascript(set(texts)) and any(has_tests(path, text) for path, text in texts.items()):
        surveys.append(_survey_javascript(repository, texts))
    for language in PROJECT_LANGUAGES.values():
        sources = {path: text for path, text in texts.items() if language.reads(path)}
        files = (
            {name.partition("::")[0] for name in language.tests(sources)} if language.manifest(list(texts)) else set()
        )
        if files:
            surveys.append(_survey_project(language.name, len(files)))
    return surveys


def _survey_project(language: str, test_files: int) -> SuiteSurvey:
    """Return the survey of a compiled language, whose packages are only looked up by the build."""
    try:
        toolchain(language)
    except NoToolchain as error:
        return SuiteSurvey(language, 0, str(error))
    return SuiteSurvey(language, test_files)


def _is_python_test(path: str, text: str) -> bool:
    return path.endswith(".py") and is_test_file(path) and "def test" in text


def _survey_python(repository: Repository, texts: Mapping[str, str]) -> SuiteSurvey:
    program = repository.interpreter or sys.executable
    try:
        find_environment(program)
    except ValueError as error:
        return SuiteSurvey("python", 0, str(error))
    modules = _Modules(texts)
    outside = {path: modules.outside(path) for path, text in texts.items() if _is_python_test(path, text)}
    names = sorted(set[str]().union(*outside.values()) - {"pytest", "_pytest"})
    command = [program, "-c", _FIND, json.dumps(names)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
    if found.returncode:
        return SuiteSurvey("python", 0, f"{program} cannot list its packages: {found.stderr.strip()[-200:]}")
    missing = set(json.loads(found.stdout))
    usable = [path for path, imported in outside.items() if not imported & missing]
    listed = ", ".join(sorted(missing)[:_MOST_NAMES]) + (" and others" if len(missing) > _MOST_NAMES else "")
    if not usable:
        return SuiteSurvey(
            "python", 0,
            f"{program} lacks packages that the tests import ({listed}): install them in a virtual "
            "environment, and name its interpreter with --interpreter",
        )  # fmt: skip
    blocked = len(outside) - len(usable)
    note = f"{blocked} of {len(outside)} test files need packages that {program} lacks ({listed})" if blocked else ""
    return SuiteSurvey("python", len(usable), note=note)


class _Modules:
    """The Python modules of a repository, with the imports that are executed when a module is loaded."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.paths: dict[str, str] = {}
        """Path of each module, keyed by its dotted name."""
        for root in roots(path for path in texts if path.endswith(".py")):
            start = f"{root}/" if root else ""
            for path in texts:
                if path.endswith(".py") and path.startswith(start) and not is_documentation(path):
                    name = path[len(start) : -3].replace("/", ".").removesuffix(".__init__")
                    self.paths.setdefault(name, path)
        self.inside = {part.removesuffix(".py") for path in self.paths.values() for part in path.split("/")}
        """Names of all folders and modules of the repository. An import that starts with one of these names is not an
        import of an installed package."""
        self.imports = {path: list(_imports(path, texts[path])) for path in set(self.paths.values())}

    def outside(self, start: str) -> set[str]:
        """Return the top-level names of all packages outside the repository that a file imports, directly or through
        other files of the repository.
        """
        outside: set[str] = set()
        seen, waiting = {start}, [start]
        while waiting:
            path = waiting.pop()
            for name in self.imports.get(path) or _imports(path, self.texts[path]):
                top = name.partition(".")[0]
                if top not in self.inside:
                    outside.add(top)
                    continue
                inside = {self.paths[part] for part in _prefixes(name) if part in self.paths}
                waiting += inside - seen
                seen |= inside
        return outside


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _imports(path: str, text: str) -> Iterator[str]:
    """Yield the dotted names that a file imports when it is loaded. Imports in `try` and functions are left out."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return
    package = path.rpartition("/")[0].split("/")
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join([*filter(None, base), name]) for name in names)


def _survey_javascript(repository: Repository, texts: Mapping[str, str]) -> SuiteSurvey:
    try:
        toolchain("javascript")
    except NoToolchain as error:
        return SuiteSurvey("javascript", 0, str(error))
    packages = read_packages(texts)
    if foreign := packages.depends_on(*FOREIGN):
        return SuiteSurvey("javascript", 0, f"the test runner {foreign[0]} is not supported; supported are {SUPPORTED}")
    needed = [key for key in ("dependencies", "devDependencies") if packages.root.get(key)]
    if needed and not (checkout(repository) / "node_modules").is_dir():
        return SuiteSurvey(
            "javascript",
            0,
            "package.json names dependencies, and the checkout has no node_modules: run npm install in it",
        )
    return SuiteSurvey("javascript", sum(has_tests(path, text) for path, text in texts.items()))

"""Choose the tests that a prompt shows, and make their code: with imports, data, fixtures and parameters."""

from __future__ import annotations

import ast
import copy
import posixpath
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from data_builders.parsing.python_functions import Definition
from data_builders.tasks.python.module_excerpt import class_outline, excerpt
from data_builders.tasks.python.module_source import (
    Detail,
    ModuleSource,
    attribute_names,
    global_names,
    loaded_names,
    signature_names,
)

TESTS = Detail(value=1000, body=600, documented=True)
SET_UP = frozenset(("setUp", "setUpClass", "setup_method", "setup_class", "tearDown", "teardown_method"))


@dataclass(frozen=True)
class TestFunction:
    """A test function in its module."""

    name: str
    """Name in pytest's notation, without parameters: `file::class::function`."""
    module: ModuleSource
    node: Definition
    owner: ast.ClassDef | None
    """The class of a method."""
    source: str
    """The code that is shown: the test, or only some cases of a parametrized test."""

    @classmethod
    def find(cls, texts: Mapping[str, str], name: str) -> TestFunction | None:
        """Find a test in the texts of the test files. Return None if no file defines the test."""
        file, *path = name.partition("[")[0].split("::")
        module = ModuleSource.parse(texts.get(file, ""))
        owner: ast.ClassDef | None = None
        body: list[ast.stmt] = module.tree.body if module else []
        for part in path[:-1]:
            owner = next((item for item in body if isinstance(item, ast.ClassDef) and item.name == part), None)
            body = owner.body if owner else []
        functions = [item for item in body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
        node = next((item for item in functions if path and item.name == path[-1]), None)
        if module is None or node is None:
            return None
        return cls(name.partition("[")[0], module, node, owner, module.source(node))

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]

    def calls(self, function: str) -> bool:
        """Whether the test names a function directly, also if the test's module imports it under another name."""
        words = {item.id for item in ast.walk(self.node) if isinstance(item, ast.Name)}
        imports = [item.node for name in words for item in self.module.bindings.get(name, [])]
        renamed = {
            alias.name for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname in words
        }  # fmt: skip
        return function in words | renamed | attribute_names([self.node])

    def with_cases(self, cases: Sequence[str], wanted: Sequence[str]) -> TestFunction | None:
        """Return the test with only some of its cases. None if its cases are not one literal list of values.

        Args:
            cases: names of all cases of the test, in the suite's order.
            wanted: names of the cases to keep.
        """
        marks = [
            item for item in self.node.decorator_list
            if isinstance(item, ast.Call) and ast.unparse(item.func).endswith("parametrize")
        ]  # fmt: skip
        values = marks[0].args[1] if len(marks) == 1 and len(marks[0].args) > 1 else None
        if not isinstance(values, ast.List | ast.Tuple) or len(values.elts) != len(cases):
            return None
        short = copy.copy(values)
        short.elts = [item for item, case in zip(values.elts, cases, strict=True) if case in wanted]
        mark = copy.copy(marks[0])
        mark.args = [mark.args[0], short, *mark.args[2:]]
        mark.keywords = [item for item in mark.keywords if item.arg != "ids"]
        node = copy.copy(self.node)
        node.decorator_list = [mark if item is marks[0] else item for item in self.node.decorator_list]
        first = min(item.lineno for item in self.node.decorator_list)
        rest = self.source.split("\n")[self.node.lineno - first :]
        return replace(
            self, node=node, source="\n".join([*(f"@{ast.unparse(item)}" for item in node.decorator_list), *rest])
        )


def rank_of_tests(texts: Mapping[str, str], function: str, names: Iterable[str]) -> dict[str, tuple[bool, int]]:
    """Return a rank for each test, keyed by its name without parameters. Tests with low ranks are shown first.

    Tests that name the function come first, and short tests before long ones.

    Args:
        texts: texts of the test files, keyed by path.
        function: name of the function, without its class.
        names: names of the tests in pytest's notation.
    """
    ranks: dict[str, tuple[bool, int]] = {}
    for name in dict.fromkeys(item.partition("[")[0] for item in names):
        test = TestFunction.find(texts, name)
        ranks[name] = (not test.calls(function), len(test.source)) if test else (True, 1 << 30)
    return ranks


def can_divide(texts: Mapping[str, str], collected: Sequence[str], name: str) -> bool:
    """Whether some cases of a parametrized test can be shown without the others.

    Args:
        texts: texts of the test files, keyed by path.
        collected: names of all tests of the suite, in order.
        name: name of the test without parameters.
    """
    test = TestFunction.find(texts, name)
    cases = [item for item in collected if item.partition("[")[0] == name]
    return test is not None and test.with_cases(cases, cases[:1]) is not None


def code_of_tests(texts: Mapping[str, str], collected: Sequence[str], names: Sequence[str], characters: int) -> str:
    """Return the code of tests with what they need: imports, tables and helpers of their module, fixtures, and set-up.

    Args:
        texts: texts of the test files, keyed by path.
        collected: names of all tests of the suite, in order.
        names: names of the tests to show, the most important ones first. Of a parametrized test, only these cases are shown.
        characters: maximum number of characters. Tests that would exceed the limit are left out, except the first test
            if it has at most twice as many characters.
    """
    shown: list[TestFunction] = []
    text = ""
    for name in dict.fromkeys(item.partition("[")[0] for item in names):
        test = TestFunction.find(texts, name)
        if test is None:
            continue
        cases = [item for item in collected if item.partition("[")[0] == name]
        wanted = [item for item in names if item.partition("[")[0] == name]
        if len(wanted) < len(cases):
            test = test.with_cases(cases, wanted) or test
        longer = _code(texts, [*shown, test])
        if len(longer) <= (characters if shown else 2 * characters):
            shown.append(test)
            text = longer
    return text


def _code(texts: Mapping[str, str], tests: Sequence[TestFunction]) -> str:
    files = dict.fromkeys(test.file for test in tests)
    blocks = {file: _file_code(texts, [test for test in tests if test.file == file]) for file in files}
    return blocks[next(iter(files))] if len(blocks) == 1 else "\n\n\n".join(
        f"# {file}\n{code}" for file, code in blocks.items()
    )  # fmt: skip


def _file_code(texts: Mapping[str, str], tests: Sequence[TestFunction]) -> str:
    """Return the code of the tests of one file."""
    module, owners = tests[0].module, [test.owner for test in tests if test.owner is not None]
    nodes = [test.node for test in tests]
    attributes = attribute_names(nodes) | SET_UP
    names = set[str]().union(*(global_names(node) | signature_names(node) for node in nodes))
    names |= loaded_names([*(base for owner in owners for base in owner.bases)])
    fixtures = {item.arg for node in nodes for item in node.args.args}
    names |= fixtures & module.bindings.keys()
    parts = [_conftest_code(texts, tests[0].file, fixtures - module.bindings.keys())]
    parts.append(excerpt(module, names, attributes, TESTS, skip=[*owners, *nodes]).text())
    done: set[int] = set()
    for test in tests:
        if test.owner is None:
            parts.append(test.source)
        elif id(test.owner) not in done:
            done.add(id(test.owner))
            methods = [item for item in tests if item.owner is test.owner]
            # The set-up of the class, without the tests themselves.
            used = attributes - {item.node.name for item in methods}
            head = class_outline(module, test.owner, used, TESTS, without=test.node)
            parts.append("\n\n".join([head, *(textwrap.indent(item.source, "    ") for item in methods)]))
    return "\n\n\n".join(part for part in parts if part)


def _conftest_code(texts: Mapping[str, str], file: str, fixtures: set[str]) -> str:
    """Return the fixtures that the nearest conftest.py files define."""
    folder, parts = posixpath.dirname(file), []
    while fixtures:
        path = posixpath.join(folder, "conftest.py")
        module = ModuleSource.parse(texts[path]) if path in texts else None
        known = fixtures & module.bindings.keys() if module else set()
        if module and known:
            parts.append(f"# {path}\n{excerpt(module, known, set(), TESTS).text()}")
        if not folder:
            break
        fixtures, folder = fixtures - known, posixpath.dirname(folder)
    return "\n\n\n".join(parts)

"""The tester: runs a task's test code in its own process, in which the program under test is a proxy.

Every assert at the top level of the test code, or of one of its functions, counts as a test: if it fails, the others
still run, so that the share of passed tests is known. After the program has ended no test passes, whatever exceptions
the test code catches.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import sys
import types
import unittest
from typing import Any

from .channel import Channel
from .proxy import CandidateGone, NotPlain, TesterClient

MAX_RESULTS = 10_000
LIBRARY = {
    **{name: name for name in ("cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "itertools",
                               "json", "math", "os", "random", "re", "sys", "unittest", "numpy")},
    "np": "numpy",
}  # fmt: skip
"""Modules that test code may use without importing them."""


class Names(dict[str, Any]):
    """The test code's globals. Names that are not among them, no builtins and not in `LIBRARY` are the candidate's."""

    def __init__(self, client: TesterClient) -> None:
        super().__init__(__name__="test", __builtins__=builtins)
        self.client = client

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        if name in LIBRARY:  # tests without an import: with the candidate's `math`, it could influence them
            self[name] = importlib.import_module(LIBRARY[name])
            return self[name]
        try:
            value = self.client.name(name)
        except LookupError:
            raise KeyError(name) from None
        self[name] = value
        return value


class Record:
    """Collects the results of the tests. It is also the context manager around every assert."""

    def __init__(self, client: TesterClient) -> None:
        self.client = client
        self.results: list[tuple[str, str]] = []

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if kind is None:
            self.add("passed", "")
            return True
        if isinstance(error, AssertionError) and not self.client.errors:
            self.add("wrong_answer", str(error))
        elif isinstance(error, Exception | NotPlain):
            self.add("exception" if self.client.errors else _reason(error), _describe(error))
        else:
            return False
        self.client.errors.clear()
        return True

    def add(self, reason: str, detail: str) -> None:
        if len(self.results) < MAX_RESULTS or reason != "passed":
            self.results.append((reason, detail[:300]))


def _reason(error: BaseException | None) -> str:
    if isinstance(error, NotPlain):
        return "not_plain_data"
    return "wrong_answer" if isinstance(error, AssertionError) else "exception"


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:300]


class Recorded(ast.NodeTransformer):
    """Wraps every assert that is a direct statement of the module or of a function in ``with __record__:``."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._wrap(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._wrap(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def _wrap(self, node: Any) -> Any:
        node.body = [self._statement(statement) for statement in node.body]
        return node

    def _statement(self, statement: ast.stmt) -> ast.stmt:
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            return self._wrap(statement)
        if isinstance(statement, ast.Assert):
            context = ast.withitem(ast.Name("__record__", ast.Load()))
            return ast.copy_location(ast.With([context], [statement]), statement)
        return statement


def run(parent: Channel, peer: Channel, source: bytes, payload: dict[str, Any]) -> int:
    """Run the tests and report their results.

    Args:
        parent: Channel to the parent. The message with the results carries the payload's nonce.
        peer: Channel to the candidate.
        source: The test code.
        payload: `nonce`, `entry_point` and `setup` (code to run first).

    Returns:
        The exit code.
    """
    client = TesterClient(peer)
    record = Record(client)
    verdict: dict[str, Any] = {"nonce": payload["nonce"]}
    try:
        module = ast.parse(source)
        plain = ast.fix_missing_locations(Recorded().visit(module))
        code = compile(plain, "tests.py", "exec", dont_inherit=True)
        setup = compile(payload.get("setup") or "", "setup.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        parent.send({**verdict, "task_error": f"the test code is not valid Python: {error}"})
        return 0
    names = Names(client)
    names["__record__"] = record
    test_module = types.ModuleType("test")
    sys.modules["test"] = test_module
    try:
        exec(setup, names)
        entry_point = payload.get("entry_point")
        candidate = client.name(entry_point) if entry_point else None
        if entry_point:
            names[entry_point] = candidate
            names["candidate"] = candidate
        exec(code, names)
        _call_tests(names, record, module, candidate)
        if not record.results:
            record.add("passed", "")
    except LookupError as error:
        record.add("missing_entry_point" if str(error).strip("'") == entry_point else "exception", _describe(error))
    except CandidateGone as error:
        record.add("died", str(error))
    except BaseException as error:
        record.add("exception" if client.errors else _reason(error), _describe(error))
    parent.send({**verdict, "results": record.results, "gone": client.gone})
    return 0


def _call_tests(names: Names, record: Record, module: ast.Module, candidate: Any) -> None:
    """Call what the test code defines but does not call: ``check(candidate)``, ``test_*()``, TestCase classes."""
    called = {
        node.func.id
        for statement in module.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    for name, value in list(names.items()):
        if isinstance(value, types.FunctionType) and name not in called:
            parameters = inspect.signature(value).parameters
            if name == "check" and len(parameters) == 1:
                value(candidate)
            elif name.startswith("test") and not parameters:
                value()
        elif isinstance(value, type) and issubclass(value, unittest.TestCase):
            _run_case(value, record)


def _run_case(case: type[unittest.TestCase], record: Record) -> None:
    for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
        result = unittest.TestResult()
        test.run(result)
        problems = result.errors + result.failures
        record.add("wrong_answer" if problems else "passed", problems[0][1][-300:] if problems else "")

"""The tester: runs the test code of a task. The program under test runs in another process, behind a proxy.

Every assert at the top level of the test code or of one of its functions counts as one test. If an assert fails, the
other asserts still run, so that the share of passed tests is known. pytest runs test functions with parameters,
decorators or `async`, and test classes without a base class. unittest runs its own test classes. A task whose tests
cannot run is refused. After the program under test has ended, no test passes, even if the test code catches all
exceptions.
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

from . import instrument, pytest_tests, unittest_tests
from .channel import Channel
from .proxy import CandidateGone, TesterClient
from .record import Record
from .remote_object import RemoteObject

TEST_FILE = "tests.py"
LIBRARY = {
    **{name: name for name in ("cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "itertools",
                               "json", "math", "os", "random", "re", "sys", "unittest", "numpy")},
    "np": "numpy",
}  # fmt: skip
"""Names of modules that test code may use without importing them."""


class Names(dict[str, Any]):
    """The test code's globals. A name that is not among them, not a builtin and not in `LIBRARY` is taken from the
    candidate's globals.
    """

    def __init__(self, client: TesterClient) -> None:
        super().__init__(__name__="test", __builtins__=builtins)
        self.client = client

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        if name in LIBRARY:  # for tests without the import: a `math` from the candidate could influence them
            self[name] = importlib.import_module(LIBRARY[name])
            return self[name]
        try:
            value = self.client.name(name)
        except LookupError:
            raise KeyError(name) from None
        self[name] = value
        return value


def run(parent: Channel, peer: Channel, source: bytes, payload: dict[str, Any]) -> int:
    """Run the tests of a task and report their results.

    Args:
        parent: Channel to the parent. The message with the results contains the payload's nonce.
        peer: Channel to the candidate.
        source: The test code.
        payload: `nonce`, `entry_point` and `setup` (code to run first).

    Returns:
        The exit code.
    """
    client = TesterClient(peer)
    entry_point = payload.get("entry_point")
    record = Record(client, entry_point)
    verdict: dict[str, Any] = {"nonce": payload["nonce"]}
    try:
        module = instrument.inline_main_blocks(ast.parse(source))
        docstrings = _docstrings(module) if b">>>" in source else {}
        pytest_runs = instrument.needs_pytest(module)
        module = instrument.Recorded(pytest_runs).transform(module)
        code = compile(module, TEST_FILE, "exec", dont_inherit=True)
        setup = compile(payload.get("setup") or "", "setup.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        parent.send({**verdict, "task_error": f"the test code is not valid Python: {error}"})
        return 0
    unittest_tests.note_assert_raises(client.raised)
    names = Names(client)
    names["__record__"] = record
    test_module = types.ModuleType("test")
    sys.modules["test"] = test_module
    try:
        exec(setup, names)
        candidate = client.name(entry_point) if entry_point else None
        if entry_point:
            names[entry_point] = candidate
            names["candidate"] = candidate
        exec(code, names)
        record.add_unhandled()
        ran_inline = instrument.can_fail(module, record.functions_entered) and client.calls > 0
        _run_tests(names, record, test_module, candidate, pytest_runs)
        if docstrings and ("doctest" in names or not record.results):
            unittest_tests.run_doctests(docstrings, names, record)
        if not record.results and (record.counted or ran_inline):
            record.passed()
        if not record.results and record.refusal is None:
            _report_no_tests(module, record)
    except LookupError as error:
        record.add(
            "missing_entry_point" if str(error).strip("'") == entry_point else "exception", f"LookupError: {error}"
        )
    except CandidateGone as error:
        record.add("died", str(error))
    except BaseException as error:
        record.failed(error)
    if record.refusal is not None and all(reason == "passed" for reason, _ in record.results):
        parent.send({**verdict, "task_error": record.refusal})
        return 0
    parent.send({**verdict, "results": record.results, "gone": client.gone})
    return 0


def _run_tests(names: Names, record: Record, test_module: types.ModuleType, candidate: Any, pytest_runs: bool) -> None:
    """Run the tests that the test code defines but does not call: ``check(candidate)``, ``test_*()``, test classes."""
    cases: list[type[unittest.TestCase]] = []
    for name, value in list(names.items()):
        if isinstance(value, types.FunctionType) and name not in record.functions_entered:
            parameters = inspect.signature(value).parameters
            if name == "check" and len(parameters) <= 1:
                _run_function(value, record, *(candidate for _ in parameters))
            elif name.startswith("test") and not parameters and not pytest_runs:
                _run_function(value, record)
        elif isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == "test":
            cases.append(value)
    # pytest reads attributes of every global. These reads must not reach the candidate.
    test_module.__dict__.update((name, value) for name, value in names.items() if not isinstance(value, RemoteObject))
    if pytest_runs:
        fixtures = {"candidate": candidate, **{name: names[name] for name in (record.entry_point,) if name}}
        pytest_tests.run(test_module, record, fixtures)
    elif cases:
        unittest_tests.run_classes(cases, record)


def _run_function(function: types.FunctionType, record: Record, *arguments: Any) -> None:
    """Call a test function. If no assert in it is recorded as a separate test, the function counts as one test."""
    before = len(record.results)
    record.begin()
    try:
        function(*arguments)
    except unittest.SkipTest as error:
        record.skipped(function.__name__, str(error))
        return
    if len(record.results) == before:
        record.passed()
    else:
        record.add_unhandled()


def _docstrings(module: ast.Module) -> dict[str, str]:
    """Return a mapping: name of a function or class -> its docstring, if that contains examples (``>>>``)."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(module) if isinstance(node, documented)]
    texts = {getattr(node, "name", "module"): ast.get_docstring(node) or "" for node in nodes}
    return {name: text for name, text in texts.items() if ">>>" in text}


def _report_no_tests(module: ast.Module, record: Record) -> None:
    """Handle test code in which no test ran.

    If the test code called the program, the program fails, because it may have led the test code past its tests. If the
    test code did not call the program, or has tests that do not count, the task is refused.
    """
    defined = [node.name for node in instrument.module_definitions(module.body)]
    uncalled = [f"{name} was never called" for name in defined if name not in record.functions_entered]
    detail = "no test ran" + "".join(f"; {text}" for text in [*record.uncounted, *uncalled][:10])
    if record.client.calls and not record.uncounted:
        record.add("not_run", detail)
    else:
        record.refusal = detail

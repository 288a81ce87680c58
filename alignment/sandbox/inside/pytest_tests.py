"""Runs pytest on a module that has no file, with fixtures, parameters and async tests."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import types
from pathlib import Path
from typing import Any

from .record import Record

ARGUMENTS = (
    "-c", os.devnull, "--rootdir=.", "--confcutdir=.", "--capture=no",
    *(part for name in ("cacheprovider", "faulthandler", "junitxml", "threadexception", "unraisableexception",
                        "warnings", "terminal", "terminalreporter", "doctest", "logging")
      for part in ("-p", f"no:{name}")),
)  # fmt: skip


def run(module: types.ModuleType, record: Record, fixtures: dict[str, Any]) -> None:
    """Collect and run the tests of a module with pytest, and record their results.

    Test functions that the test code itself has already called are not run again.

    Args:
        module: The module. Its attributes are the test code's globals.
        record: Receives one result per test.
        fixtures: Values that tests can take as parameters, by the name of the parameter.
    """
    if importlib.util.find_spec("pytest") is None:
        record.refusal = "the tests need pytest, which the sandbox's Python does not have"
        return
    import pytest

    class MemoryModule(pytest.Module):
        """A pytest node for a module that is not imported from a file."""

        def _getobj(self) -> types.ModuleType:
            return module

    class Plugin:
        """A pytest plugin that collects the tests of the module and records their results."""

        def __init__(self) -> None:
            self.ends: list[tuple[Any, BaseException | None]] = []
            self.collected = self.finished = 0

        def pytest_collection(self, session: pytest.Session) -> bool:
            node = MemoryModule.from_parent(session, path=Path.cwd() / "tests.py")
            items = [item for item in session.genitems(node) if not self._was_called(item)]
            session.items = items
            session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=items)
            session.testscollected = self.collected = len(items)
            return True

        def _was_called(self, item: Any) -> bool:
            return item.cls is None and getattr(item, "originalname", item.name) in record.functions_entered

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                lines = str(report.longrepr).strip().splitlines()
                record.refusal = f"the tests cannot be collected: {lines[-1] if lines else ''}"

        @pytest.hookimpl(tryfirst=True)
        def pytest_pyfunc_call(self, pyfuncitem: Any) -> bool | None:
            if not inspect.iscoroutinefunction(pyfuncitem.obj):
                return None
            names = inspect.signature(pyfuncitem.obj).parameters
            asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
            return True

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item: Any) -> Any:
            self.ends.clear()
            record.begin()
            yield
            self.finished += 1
            _finish(item, self.ends, record)

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_makereport(self, call: Any) -> Any:
            outcome = yield
            self.ends.append((outcome.get_result(), call.excinfo.value if call.excinfo else None))

    plugin = Plugin()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    names = {name: _constant_fixture(name, value) for name, value in fixtures.items() if name.isidentifier()}
    provided = types.ModuleType("provided")  # pytest reads the fixtures of other objects from their class
    provided.__dict__.update({name: pytest.fixture(name=name)(value) for name, value in names.items()})
    code = pytest.main(list(ARGUMENTS), plugins=[plugin, provided])
    if code not in (0, 1, pytest.ExitCode.NO_TESTS_COLLECTED) and record.refusal is None:
        record.refusal = f"pytest ended with code {int(code)} before the end of the tests"
    if plugin.finished < plugin.collected:
        record.add("not_run", f"only {plugin.finished} of {plugin.collected} tests ran")


def _constant_fixture(name: str, value: Any) -> Any:
    """Return a fixture function that always returns `value`."""

    def fixture() -> Any:
        return value

    fixture.__name__ = name
    return fixture


def _finish(item: Any, ends: list[tuple[Any, BaseException | None]], record: Record) -> None:
    """Record the result of a test from the reports of its phases (setup, call, teardown)."""
    for report, error in ends:
        if type(error).__name__ == "FixtureLookupError":
            record.refusal = f"{item.name} needs a fixture that does not exist: {getattr(error, 'argname', '')}"
            return
        if report.failed:
            if error is not None:
                record.failed(error)
            else:
                record.failed_because(f"{item.name}: {str(report.longrepr)[-200:]}")
            return
    if any(hasattr(report, "wasxfail") for report, _ in ends):
        record.expected_failure(item.name)
    elif skipped := next((report for report, _ in ends if report.skipped), None):
        record.skipped(item.name, str(skipped.longrepr)[-150:])
    else:
        record.passed()

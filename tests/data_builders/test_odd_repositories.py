"""Unusual repositories: settings of missing plugins, packages in many folders, modules that cannot be imported."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files

from alignment.rows import reading as row_files
from alignment.sandbox.inside import collect
from data_builders.repositories.sources import resolve
from data_builders.tasks.advice import advice
from data_builders.tasks.python.pytest_settings import selecting_arguments
from data_builders.tasks.python.python_coverage import coverage_map, slow_files_last
from data_builders.tasks.python.python_suite import prepare_suite, roots

MODULE = '''def discount(price, percent):
    """The price less a share of it, never below nothing."""
    return max(0, round(price - price * percent / 100, 2))
'''
TESTS = """from {module} import discount


def test_a_tenth():
    assert discount(100, 10) == 90


def test_never_below_nothing():
    assert discount(10, 200) == 0
"""
SHOP: dict[str, str | bytes] = {
    "shop/__init__.py": "",
    "shop/prices.py": MODULE,
    "tests/test_prices.py": TESTS.format(module="shop.prices"),
}
PLUGINS = """[pytest]
addopts = -n auto --cov=shop --strict-markers --strict-config -p plugin_of_nobody
required_plugins = pytest-xdist pytest-cov
asyncio_mode = auto
timeout = 30
filterwarnings = error
"""
ODD = """import pytest
from shop.prices import discount


@pytest.mark.asyncio
async def test_coroutine():
    assert discount(100, 10) == 90


def test_fixture(mocker):
    assert discount(100, 10) == 90


@pytest.mark.parametrize("percent", [10, 10], ids=["ten [10] %", "zehn für 日本 :: 10"])
def test_parameters(percent):
    assert discount(100, percent) == 90


def test_folder():
    with open("tests/test_prices.py") as file:
        assert file.read()
"""


@pytest.fixture
def run_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grader: Any) -> Callable[..., tuple[Any, Any]]:
    """`run_suite(files, **options)` prepares a repository and runs its tests; returns (prepared suite, coverage map)."""
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))

    def run(
        files: dict[str, str | bytes], test_seconds: float = 10.0, budget_seconds: float = 600.0, **options: Any
    ) -> tuple[Any, Any]:
        write_files(tmp_path / "shop", files)
        (repository,) = resolve([tmp_path / "shop"])
        prepared = prepare_suite(repository, **options)
        return prepared, coverage_map(prepared, budget_seconds=budget_seconds, test_seconds=test_seconds)

    return run


@pytest.mark.slow
def test_with_settings_of_missing_plugins_plain_tests_run_and_others_name_their_plugin(
    run_suite: Callable[..., Any],
) -> None:
    ends = {"tests/test_ends.py": "import sys\n\nsys.exit(3)\n"}
    prepared, coverage = run_suite({**SHOP, **ends, "tests/test_odd.py": ODD, "pytest.ini": PLUGINS})
    assert coverage.account() == {"needs_async_plugin": 1, "needs_fixture: mocker": 1, "passed": 5}
    lines = "\n".join(advice(prepared, coverage))
    for words in (
        "tests/test_ends.py: SystemExit: 3", "fixtures that do not exist: mocker (install the pytest plugin",
        "1 tests are coroutines: install pytest-asyncio or anyio",
    ):  # fmt: skip
        assert words in lines


@pytest.mark.slow
def test_packages_of_a_monorepo_are_found_although_their_test_files_have_the_same_names(
    run_suite: Callable[..., Any],
) -> None:
    prepared, coverage = run_suite({
        "packages/one/pyproject.toml": "", "packages/one/one/__init__.py": "", "packages/one/one/prices.py": MODULE,
        "packages/one/tests/test_prices.py": TESTS.format(module="one.prices"),
        "packages/two/pyproject.toml": "", "packages/two/src/two/__init__.py": "", "packages/two/src/two/prices.py": MODULE,
        "packages/two/tests/test_prices.py": TESTS.format(module="two.prices"),
    })  # fmt: skip
    assert [len(coverage.tests_calling(function)) for function in prepared.functions] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tests/conftest.py": "import package_of_nobody\n"},
         "tests/conftest.py: ModuleNotFoundError: No module named 'package_of_nobody' (install it"),
        ({"shop/__init__.py": "from shop._speed import fast\n", "shop/_speed.c": "int x;\n"},
         "No module named 'shop._speed' (a build step may be missing"),
        ({"pytest.ini": "[pytest]\nminversion = 99.0\n"}, "requires pytest-99.0"),
    ],
)  # fmt: skip
def test_the_advice_names_file_and_error_of_a_failed_collection(
    more: dict[str, str | bytes], expected: str, run_suite: Callable[..., Any]
) -> None:
    prepared, coverage = run_suite({**SHOP, **more})
    assert not prepared.tests and expected in "\n".join(advice(prepared, coverage))


HANGING = """import re
import time

import pytest
from shop.prices import discount


@pytest.fixture
def slow():
    time.sleep(60)


def test_sleeps():
    time.sleep(60)


def test_waits_in_a_fixture(slow):
    assert discount(100, 10) == 90


def test_catches_everything():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def test_never_returns_from_c():
    re.match("(a*)*b", "a" * 40)


def test_after_all_others():
    assert discount(100, 10) == 90
"""


@pytest.mark.slow
def test_a_hanging_test_uses_up_only_its_own_time(run_suite: Callable[..., Any]) -> None:
    prepared, coverage = run_suite({**SHOP, "tests/test_hanging.py": HANGING}, test_seconds=1.0, budget_seconds=200.0)
    assert coverage.account() == {"hangs": 4, "passed": 3}
    assert "4 tests take longer than `tests.seconds_per_test`" in advice(prepared, coverage)


def test_files_in_which_many_tests_hang_run_last() -> None:
    results = {f"a.py::test_{number}": {"outcome": "hangs"} for number in range(3)} | {
        "b.py::test": {"outcome": "hangs"}
    }
    waiting = ["a.py::test_8", "b.py::test_8", "a.py::test_9", "c.py::test_1"]
    assert slow_files_last(waiting, results) == ["b.py::test_8", "c.py::test_1", "a.py::test_8", "a.py::test_9"]


SELECTED = """import pytest
from shop.prices import discount


@pytest.mark.parametrize("percent", range(100))
@pytest.mark.slow
def test_many(percent):
    assert discount(100, percent) == 100 - percent


def test_of_an_option(request):
    assert request.config.getoption("--currency") == "EUR"
"""
CONFTEST = """def pytest_addoption(parser):
    parser.addoption("--currency", default="USD")
"""


@pytest.mark.slow
def test_options_of_the_settings_that_select_tests_have_their_effect(run_suite: Callable[..., Any]) -> None:
    settings = '[pytest]\naddopts = -q --cov=shop -m "not slow" --ignore=tests/fuzz --currency=EUR\ntestpaths = tests\n'
    prepared, coverage = run_suite({
        **SHOP, "pytest.ini": settings, "conftest.py": CONFTEST, "tests/test_selected.py": SELECTED,
        "tests/fuzz/test_fuzz.py": "def test_fuzz():\n    pass\n", "other/test_other.py": "def test_other():\n    pass\n",
    })  # fmt: skip
    assert coverage.account() == {"passed": 3}
    assert {name.partition("::")[0] for name in prepared.tests} == {"tests/test_prices.py", "tests/test_selected.py"}


@pytest.mark.slow
def test_an_option_that_pytest_refuses_does_not_cost_the_suite(run_suite: Callable[..., Any]) -> None:
    conftest = "def pytest_addoption(parser):\n    parser.addoption('--level', type=int)\n"
    _, coverage = run_suite({**SHOP, "pytest.ini": "[pytest]\naddopts = --level=high\n", "conftest.py": conftest})
    assert coverage.account() == {"passed": 2}


UNBUILT: dict[str, str | bytes] = {
    **SHOP, "shop/__init__.py": "from shop._version import __version__\n", "shop/prices.py": f"from shop.tables import STEP\n{MODULE}",
}  # fmt: skip


@pytest.mark.slow
def test_commands_make_missing_files_and_a_version_module_is_made_without_a_command(
    run_suite: Callable[..., Any],
) -> None:
    command = "python -c \"import os; print('STEP =', os.environ['STEP'])\" > shop/tables.py && rm shop/prices.py"
    prepared, coverage = run_suite(UNBUILT, prepare=[command], environment={"STEP": "2"})
    assert coverage.account() == {"passed": 2}
    assert len(coverage.tests_calling(prepared.functions[0])) == 2
    assert (prepared.snapshot.bare / "shop" / "tables.py").read_text() == "STEP = 2\n"


@pytest.mark.slow
def test_a_command_that_fails_is_an_error_with_its_output(run_suite: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"shop: `tests.prepare` failed: .*no compiler.*exit code 3"):
        run_suite(UNBUILT, prepare=["echo no compiler >&2; exit 3"])


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["crlf", "mark", "latin-1", "cr"])
def test_functions_of_files_in_other_encodings_are_traced_and_masked(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grader: Any
) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    text = f'# -*- coding: {"latin-1" if encoding == "latin-1" else "utf-8"} -*-\nEURO = "é"\n\n\n{MODULE}'
    line_end = {"crlf": "\r\n", "cr": "\r"}.get(encoding, "\n")
    content = text.replace("\n", line_end).encode("latin-1" if encoding == "latin-1" else "utf-8")
    write_files(
        tmp_path / "shop", {**SHOP, "shop/prices.py": (codecs.BOM_UTF8 if encoding == "mark" else b"") + content}
    )
    run_builder("tasks", tmp_path / "out", sources=[tmp_path / "shop"])
    (row,) = row_files.read(tmp_path / "out")
    assert row["entry_point"] == "discount" and "\r" not in row["prompt"] + row["reference"]
    assert [verdict.status for verdict in grader.grade_many([(row, row["reference"]), (row, "    return 0")])] == [
        "passed",
        "failed",
    ]


def test_import_roots_are_all_projects_of_a_repository_except_test_data() -> None:
    files = ["src/shop/a.py", "one/pyproject.toml", "one/one/a.py", "two/setup.py", "two/lib/two/a.py",
             "tests/data/three/pyproject.toml", "tests/data/three/three.py", "four/pyproject.toml", "four/readme.md"]  # fmt: skip
    assert roots(files) == ["", "src", "one", "two", "two/lib"]


def test_the_configured_import_mode_is_used() -> None:
    settings = b'[tool.pytest.ini_options]\naddopts = ["-ra", "--import-mode=importlib"]\n'
    assert selecting_arguments({"pyproject.toml": settings}) == ["--import-mode=importlib"]
    assert selecting_arguments({"docs/pyproject.toml": settings, "pytest.ini": b"[pytest]\n"}) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ERROR: pytest.ini:1: unexpected line: 'x'\n\n", "ERROR: pytest.ini:1: unexpected line: 'x'"),
        ("ERROR: usage: pytest [options]\npytest: error: unrecognized arguments: --x\n  inifile: a\n  rootdir: b\n",
         "pytest: error: unrecognized arguments: --x"),
        ("", "ended with code 4 before any test"),
    ],
)  # fmt: skip
def test_the_reason_why_pytest_did_not_start_is_one_line_of_its_output(output: str, expected: str) -> None:
    assert collect.refusal(output, 4, "/repository") == {"where": "pytest", "why": expected}

"""Unusual repositories: settings of missing plugins, packages in many folders, modules that cannot be imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import write_files

from alignment.sandbox.inside import collect
from data_builders.repositories.sources import resolve
from data_builders.tasks.advice import advice
from data_builders.tasks.python.python_coverage import coverage_map
from data_builders.tasks.python.pytest_settings import selecting_arguments
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
    """`run_suite(files)` prepares a repository and runs its tests; returns (prepared suite, coverage map)."""
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))

    def run(files: dict[str, str | bytes]) -> tuple[Any, Any]:
        write_files(tmp_path / "shop", files)
        (repository,) = resolve([tmp_path / "shop"])
        prepared = prepare_suite(repository)
        return prepared, coverage_map(prepared)

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

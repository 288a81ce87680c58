"""Strangers' repositories: settings for plugins that are not here, packages in odd places, modules that don't import."""

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
from data_builders.tasks.python.python_suite import import_mode, prepare_suite, roots

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
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grader: Any) -> Callable[..., tuple[Any, Any]]:
    """`seen(files)`: what is prepared of a repository, and the map of its suite."""
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))

    def see(files: dict[str, str | bytes]) -> tuple[Any, Any]:
        write_files(tmp_path / "shop", files)
        (repository,) = resolve([tmp_path / "shop"])
        prepared = prepare_suite(repository)
        return prepared, coverage_map(prepared)

    return see


@pytest.mark.slow
def test_settings_for_plugins_that_are_not_here_leave_the_plain_tests_and_the_others_say_what_they_need(
    seen: Callable[..., Any],
) -> None:
    ends = {"tests/test_ends.py": "import sys\n\nsys.exit(3)\n"}
    prepared, found = seen({**SHOP, **ends, "tests/test_odd.py": ODD, "pytest.ini": PLUGINS})
    assert found.account() == {"needs_async_plugin": 1, "needs_fixture: mocker": 1, "passed": 5}
    said = "\n".join(advice(prepared, found))
    for words in (
        "tests/test_ends.py: SystemExit: 3", "fixtures that nothing here gives: mocker (install the plugin",
        "1 tests are coroutines: install pytest-asyncio or anyio",
    ):  # fmt: skip
        assert words in said


@pytest.mark.slow
def test_every_package_of_a_monorepo_is_found_though_their_tests_have_the_same_names(seen: Callable[..., Any]) -> None:
    prepared, found = seen({
        "packages/one/pyproject.toml": "", "packages/one/one/__init__.py": "", "packages/one/one/prices.py": MODULE,
        "packages/one/tests/test_prices.py": TESTS.format(module="one.prices"),
        "packages/two/pyproject.toml": "", "packages/two/src/two/__init__.py": "", "packages/two/src/two/prices.py": MODULE,
        "packages/two/tests/test_prices.py": TESTS.format(module="two.prices"),
    })  # fmt: skip
    assert [len(found.of(function)) for function in prepared.functions] == [2, 2]


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
def test_a_suite_that_can_not_be_collected_says_where_and_why(
    more: dict[str, str | bytes], expected: str, seen: Callable[..., Any]
) -> None:
    prepared, found = seen({**SHOP, **more})
    assert not prepared.tests and expected in "\n".join(advice(prepared, found))


def test_modules_are_imported_from_every_project_of_a_repository_but_not_from_those_that_are_test_data() -> None:
    files = ["src/shop/a.py", "one/pyproject.toml", "one/one/a.py", "two/setup.py", "two/lib/two/a.py",
             "tests/data/three/pyproject.toml", "tests/data/three/three.py", "four/pyproject.toml", "four/readme.md"]  # fmt: skip
    assert roots(files) == ["", "src", "one", "two", "two/lib"]


def test_the_way_in_which_a_repository_has_its_tests_imported_is_kept() -> None:
    settings = b'[tool.pytest.ini_options]\naddopts = ["-ra", "--import-mode=importlib"]\n'
    assert import_mode({"pyproject.toml": settings}) == ["--import-mode=importlib"]
    assert import_mode({"docs/pyproject.toml": settings, "pytest.ini": b"[pytest]\n"}) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ERROR: pytest.ini:1: unexpected line: 'x'\n\n", "ERROR: pytest.ini:1: unexpected line: 'x'"),
        ("ERROR: usage: pytest [options]\npytest: error: unrecognized arguments: --x\n  inifile: a\n  rootdir: b\n",
         "pytest: error: unrecognized arguments: --x"),
        ("", "ended with code 4 before any test"),
    ],
)  # fmt: skip
def test_why_pytest_did_not_start_is_one_line_of_what_it_printed(said: str, expected: str) -> None:
    assert collect.refusal(said, 4, "/repository") == {"where": "pytest", "why": expected}

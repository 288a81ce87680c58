"""The options of a repository's pytest settings that select tests have their effect; others are left out."""

from __future__ import annotations

import pytest

from data_builders.tasks.python.pytest_settings import addopts, selecting_arguments

CONFTEST = b"""def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true")
    parser.addoption("--db", default="sqlite")
"""
FILES = {"src/shop.py": b"", "tests/test_shop.py": b"", "tests/plugin.py": b"", "tests/conftest.py": CONFTEST}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ('-m "not slow" --ignore=fuzz', ["-m", "not slow", "--ignore=fuzz"]),
        ('-m"not slow" -k "a or b"', ["-m", "not slow", "-k", "a or b"]),
        ("--ignore-glob */fuzz/* --deselect tests/test_shop.py::test_a",
         ["--ignore-glob=*/fuzz/*", "--deselect=tests/test_shop.py::test_a"]),
        ("-n auto --cov=shop --strict-markers -ra -vv -p plugin_of_nobody", []),
        ("--cov src tests", ["tests"]),
        ("--cov src", []),
        ("--strict-markers tests/test_shop.py::test_a nowhere", ["tests/test_shop.py::test_a"]),
        ("-p tests.plugin -p no:randomly", ["-p", "tests.plugin", "-p", "no:randomly"]),
        ("--asyncio-mode=auto --ds shop.settings", ["-o", "asyncio_mode=auto", "-o", "DJANGO_SETTINGS_MODULE=shop.settings"]),
        ("--runslow --db postgres tests", ["--runslow", "--db=postgres", "tests"]),
        ("--import-mode append", ["--import-mode=append"]),
        ("-m", []), ('-m "open', []), ("", []),
    ],
)  # fmt: skip
def test_options_that_select_tests_are_kept(options: str, kept: list[str]) -> None:
    assert selecting_arguments({**FILES, "pytest.ini": f"[pytest]\naddopts = {options}\n".encode()}) == kept


def test_paths_are_left_out_if_the_user_names_others() -> None:
    files = {**FILES, "pytest.ini": b"[pytest]\naddopts = -m fast tests\n"}
    assert selecting_arguments(files, paths=False) == ["-m", "fast"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pytest.ini": b"[pytest]\naddopts = -m a\n", "pyproject.toml": b'[tool.pytest.ini_options]\naddopts = "-m b"\n'}, ["-m", "a"]),
        ({"pytest.ini": b"", "tox.ini": b"[pytest]\naddopts = -m a\n"}, []),
        ({"pyproject.toml": b"[project]\n", "tox.ini": b"[pytest]\naddopts = -m a\n"}, ["-m", "a"]),
        ({"tox.ini": b"[tox]\n", "setup.cfg": b"[tool:pytest]\naddopts =\n    -ra\n    -m 'a b'\n"}, ["-ra", "-m", "a b"]),
        ({"setup.cfg": b"[pytest]\naddopts = -m a\n"}, []),
        ({"pytest.toml": b'[pytest]\naddopts = ["-m", "a"]\n', "pytest.ini": b""}, ["-m", "a"]),
        ({"pyproject.toml": b'[tool.pytest]\naddopts = ["-m", "a"]\n'}, ["-m", "a"]),
        ({"pyproject.toml": b"not toml [", "pytest.ini": b"no ini"}, []),
        ({"pytest.ini": b"\xef\xbb\xbf[pytest]\r\naddopts = -m a\r\n"}, ["-m", "a"]),
    ],
)  # fmt: skip
def test_the_settings_are_those_of_the_file_that_pytest_uses(files: dict[str, bytes], words: list[str]) -> None:
    assert addopts(files) == words

"""A small repository with a bug, prepared once, and a task to repair the bug."""

from __future__ import annotations

import json

import pytest
from shop_repository import FILE, HIDDEN, MONEY, PRICES, TESTS, VISIBLE


@pytest.fixture(scope="session")
def suites(tmp_path_factory):
    """Folder of the snapshots of these tests."""
    return tmp_path_factory.mktemp("suites")


@pytest.fixture(scope="session")
def shop(tmp_path_factory, suites, grader):
    """The prepared repository; the fixture `grader` skips tests if the machine refuses the sandbox."""
    from data_builders.repositories.sources import resolve
    from data_builders.tasks.python.python_suite import prepare_suite

    folder = tmp_path_factory.mktemp("work") / "shop"
    files = {"shop/__init__.py": "", "shop/prices.py": PRICES, "shop/money.py": MONEY, FILE: TESTS, "README.md": "A shop.\n",
             "setup.cfg": "[metadata]\nname = shop\n[tool:pytest]\ntestpaths = tests\n"}  # fmt: skip
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(suites))
        return prepare_suite(resolve([str(folder)])[0])


@pytest.fixture
def repository_task(shop, suites, monkeypatch):
    """The row of the task."""
    monkeypatch.setenv("ALIGN_SUITES", str(suites))
    tests = {"suite": shop.id, "visible": VISIBLE, "hidden": HIDDEN, "fail_to_pass": [VISIBLE[1], *HIDDEN[:3]]}
    return {"id": "shop@1", "prompt": "Discounts are added, not taken off.", "language": "python", "kind": "repository",
            "tests": json.dumps(tests)}  # fmt: skip

"""One grader for all tests here: a sandbox takes a fraction of a second to start."""

import os
from collections.abc import Iterator

import pytest

from alignment.grading import Grader, Limits
from alignment.sandbox import SandboxUnavailable

os.environ["SECRET_TOKEN"] = "trainer-secret-token"  # what hostile programs look for


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    with Grader(workers=2, limits=Limits(cpu_seconds=3, wall_seconds=4)) as made:
        task = {"kind": "calls", "tests": '{"cases": [{"args": [], "expected": 1}]}', "entry_point": "f"}
        try:
            made.grade_many([(task, "def f(): return 1")])
        except SandboxUnavailable as error:
            pytest.skip(f"this machine refuses the sandbox: {error}")
        yield made

"""A grader without a sandbox, and entries of `rewards:`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.extensions import ExtensionReference
from alignment.grading import Verdict
from alignment.grading.verdict import TestResult

RIGHT = Verdict("passed", "passed", "", (TestResult("passed"),) * 2)
HALF = Verdict("failed", "wrong_answer", "", (TestResult("passed"), TestResult("wrong_answer")))
LOST = Verdict("error", "infrastructure", "no kernel")


class FakeGrader:
    """Chooses the verdict by a word in the program, and counts its calls."""

    workers = 1

    def __init__(self) -> None:
        self.calls = 0

    async def grade(self, task: dict[str, Any], program: str) -> Verdict:
        self.calls += 1
        return RIGHT if "right" in program else HALF if "half" in program else LOST


@dataclass(frozen=True)
class Entry:
    """One entry of `rewards:` (`alignment.rewards.RewardSettings`)."""

    name: str | None = None
    path: ExtensionReference | None = None
    weight: float = 1.0
    soft: int | None = None
    hard: int | None = None
    isolated: bool = False
    timeout_seconds: float | None = None


@pytest.fixture
def fake() -> FakeGrader:
    return FakeGrader()


@pytest.fixture
def entry():
    """`entry(name=..., weight=...)`, or `entry(path="file.py:function")`."""

    def make(path: str | Path | None = None, **settings: Any) -> Entry:
        return Entry(path=ExtensionReference.of(str(path)) if path is not None else None, **settings)

    return make


@pytest.fixture
def columns():
    """`columns(count)`: the columns of a batch of `count` tasks."""

    def make(count: int, **more: Any) -> dict[str, Any]:
        return {
            "kind": ["calls"] * count,
            "tests": ["{}"] * count,
            "entry_point": ["f"] * count,
            "language": ["python"] * count,
            **more,
        }

    return make

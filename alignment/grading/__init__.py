"""Grades programs: runs the tests of a task on a program and returns a verdict (passed, failed or error)."""

from alignment.grading.client import RemoteGrader, open_grader
from alignment.grading.grader import Grader
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.grading.task import GradingTask, TaskRow, read_task
from alignment.grading.verdict import TestResult, Verdict
from alignment.sandbox.limits import Limits

__all__ = [
    "Grader",
    "GradingTask",
    "Limits",
    "RemoteGrader",
    "SandboxSettings",
    "TaskRow",
    "TestResult",
    "Verdict",
    "open_grader",
    "read_task",
]

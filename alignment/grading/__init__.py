"""Grading: compute the verdict on a program for a task. Verdicts are computed in processes without untrusted code."""

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

"""Verdicts: a task and a program in, passed, failed or error out. Computed where no untrusted code has ever run."""

from alignment.grading.client import RemoteGrader, open_grader
from alignment.grading.grader import Grader, read_task
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.grading.verdict import TestResult, Verdict
from alignment.sandbox.limits import Limits

__all__ = ["Grader", "Limits", "RemoteGrader", "SandboxSettings", "TestResult", "Verdict", "open_grader", "read_task"]

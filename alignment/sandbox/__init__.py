"""Runs untrusted programs: a warm Python interpreter and thirteen toolchains in namespaces, under Landlock and seccomp."""

from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot

__all__ = ["Limits", "Program", "ProgramRun", "SandboxError", "SandboxUnavailable", "Slot"]

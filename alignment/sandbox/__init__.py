"""Runs untrusted programs in fourteen languages, isolated by Linux namespaces, Landlock and seccomp."""

from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot

__all__ = ["Limits", "Program", "ProgramRun", "SandboxError", "SandboxUnavailable", "Slot"]

"""Running code that nobody trusts: namespaces, seccomp and Landlock around a warm interpreter and thirteen
toolchains."""

from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot

__all__ = ["Limits", "Program", "ProgramRun", "SandboxError", "SandboxUnavailable", "Slot"]

"""Running code that nobody trusts: namespaces, seccomp and Landlock around a warm interpreter and thirteen
toolchains."""

from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import Job, Run, SandboxError, SandboxUnavailable, Slot

__all__ = ["Job", "Limits", "Run", "SandboxError", "SandboxUnavailable", "Slot"]

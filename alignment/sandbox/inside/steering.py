"""Exceptions of the candidate that the interpreter took as a signal instead of passing them to the test code.

`StopIteration` in ``zip(map(f, inputs), expected)`` ends the loop: no exception reaches the test, and its remaining
asserts do not run. The same holds for every exception that the interpreter's C code clears. A frame whose Python code
handles an exception (``except``, ``with``, ``pytest.raises``) is in the exception's traceback, at an instruction that
the frame's exception table covers. If the outermost frame of the traceback has no such entry, no Python code handled
the exception.
"""

from __future__ import annotations

import dis

MOST_EXCEPTIONS = 1000
"""Exceptions that are remembered for one test."""


class RaisedExceptions:
    """The exceptions of the candidate that were raised in the tester during the current test."""

    def __init__(self) -> None:
        self._exceptions: list[BaseException] = []

    def add(self, error: BaseException) -> None:
        if len(self._exceptions) < MOST_EXCEPTIONS:
            self._exceptions.append(error)

    def discard(self, error: BaseException | None) -> None:
        """Forget an exception that is known to be handled."""
        self._exceptions = [known for known in self._exceptions if known is not error]

    def take_unhandled(self) -> BaseException | None:
        """Forget all exceptions; return the first that no Python code handled, or None.

        Call it only where no exception is on its way.
        """
        exceptions, self._exceptions = self._exceptions, []
        return next((error for error in exceptions if not _is_handled(error)), None)


def _is_handled(error: BaseException) -> bool:
    """Whether the outermost frame that the exception reached has a handler at that place."""
    trace = error.__traceback__
    if trace is None:  # Python 3.11 sets it only when a handler gets the exception
        return False
    entries = dis.Bytecode(trace.tb_frame.f_code).exception_entries  # type: ignore[attr-defined]
    return any(entry.start <= trace.tb_lasti < entry.end for entry in entries)

"""Finds exceptions of the candidate that the interpreter swallowed, so that the test code did not see them.

If ``f`` raises `StopIteration` in ``zip(map(f, inputs), expected)``, the loop ends: no exception reaches the test, and
the remaining asserts do not run. The same happens with every exception that the interpreter's C code clears.

A traceback begins with the outermost frame that the exception reached. If Python code in this frame handled the
exception (``except``, ``with``, ``pytest.raises``), the frame's exception table covers the instruction at which the
exception arrived. If the table does not cover the instruction, no Python code handled the exception.
"""

from __future__ import annotations

import dis

MOST_EXCEPTIONS = 1000
"""Maximum number of exceptions that are remembered for one test."""


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

    def take_unhandled(self, expected: tuple[type[BaseException], ...] = ()) -> BaseException | None:
        """Return the first exception that no Python code handled, or None. Forget all exceptions.

        Call this method only when no exception is being raised or handled.

        Args:
            expected: Exceptions that Python itself handles, because the function under test is a special method.
        """
        exceptions, self._exceptions = self._exceptions, []
        unexpected = [error for error in exceptions if not isinstance(error, expected)]
        return next((error for error in unexpected if not _is_handled(error)), None)


def _is_handled(error: BaseException) -> bool:
    """Whether the outermost frame that the exception reached has a handler at that place."""
    trace = error.__traceback__
    if trace is None:  # Python 3.11 sets the traceback only when a handler receives the exception
        return False
    entries = dis.Bytecode(trace.tb_frame.f_code).exception_entries  # type: ignore[attr-defined]
    return any(entry.start <= trace.tb_lasti < entry.end for entry in entries)

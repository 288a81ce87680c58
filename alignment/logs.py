"""Logging of the toolkit: messages for the user go to the terminal and to the log file of the running stage.

    from alignment.logs import get_logger

    logger = get_logger(__name__)
    logger.info("%d rows dropped", count)

`configure` installs one handler for all loggers below `alignment` and `data_builders`. A stage runs in a child process
whose stdout and stderr go to its log file. In this process, the environment variable ALIGN_TERMINAL is the number of a
file descriptor that leads to the user's terminal, and each message goes to both. Results of a command (tables, JSON)
are printed to stdout by `alignment.cli` and never logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

ROOTS = ("alignment", "data_builders")
ERASE = "\r\x1b[J"
"""Control sequence that removes the text from the cursor's line to the end of the screen."""
IN_BLOCK = {"in_block": True}
"""`extra` of messages that a live terminal shows in the block of `alignment.progress` instead of as a line."""


class TerminalHandler(logging.Handler):
    """Writes each message as one line to stderr and, in the process of a stage, also to the user's terminal.

    On a terminal, a line replaces the block that `alignment.progress` shows at the bottom. Any process of a run may have
    drawn the block: the cursor is always at its beginning.
    """

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        terminal, live = os.environ.get("ALIGN_TERMINAL"), live_terminal()
        in_block = live is not None and getattr(record, "in_block", False)
        if terminal:
            print(line, file=sys.stderr, flush=True)
            if not in_block:
                with contextlib.suppress(OSError, ValueError):  # the terminal was closed; the log has the line
                    os.write(int(terminal), f"{ERASE if live is not None else ''}{line}\n".encode())
        elif not in_block:
            print(f"{ERASE if live is not None else ''}{line}", file=sys.stderr, flush=True)


def live_terminal() -> int | None:
    """Return the file descriptor of the user's terminal, or None if messages do not go to a terminal that can move its
    cursor. In the process of a stage, stderr is a log file, and ALIGN_TERMINAL names the terminal.
    """
    if os.environ.get("TERM", "dumb") == "dumb":
        return None
    try:
        descriptor = int(os.environ["ALIGN_TERMINAL"]) if os.environ.get("ALIGN_TERMINAL") else sys.stderr.fileno()
        return descriptor if os.isatty(descriptor) else None
    except (OSError, ValueError, AttributeError):  # closed, or stderr was replaced by an object without a file
        return None


class _LineFormatter(logging.Formatter):
    """Formats information as `message`, and higher levels as `warning: message` or `error: message`."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def configure(level: int = logging.INFO) -> None:
    """Send log messages of the toolkit to the user. Calling it again changes only the level."""
    for root in ROOTS:
        logger = logging.getLogger(root)
        logger.setLevel(level)
        if not any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
            handler = TerminalHandler()
            handler.setFormatter(_LineFormatter("%(message)s"))
            logger.addHandler(handler)
            logger.propagate = False


def copy_of_terminal() -> int:
    """Return a new file descriptor that leads to the user's terminal, for a child process. The caller closes it."""
    try:
        return os.dup(int(os.environ["ALIGN_TERMINAL"]))
    except (KeyError, ValueError, OSError):  # not the process of a stage, or the terminal was closed
        return os.dup(2)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module. Pass the module's `__name__`."""
    return logging.getLogger(name)


def format_duration(seconds: float) -> str:
    """Format a duration in seconds (`75 s`), or in minutes if it is two minutes or longer (`12 min`)."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

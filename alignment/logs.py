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


class TerminalHandler(logging.Handler):
    """Writes each message as one line to stderr and, in the process of a stage, also to the user's terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        print(line, file=sys.stderr, flush=True)
        terminal = os.environ.get("ALIGN_TERMINAL")
        if terminal:
            with contextlib.suppress(OSError, ValueError):  # the terminal was closed; the log has the line
                os.write(int(terminal), f"{line}\n".encode())


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

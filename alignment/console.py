"""The few lines that are meant for a person; everything else is in the logs."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print to the user's terminal, also from a stage whose output goes to a log."""
    terminal = os.environ.get("ALIGN_TERMINAL")
    line = f"{text}\n"
    if terminal:
        try:
            os.write(int(terminal), line.encode())
        except OSError:
            pass  # the terminal is gone; the log has the line
        else:
            print(text, file=sys.stderr, flush=True)
            return
    sys.stdout.write(line)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """`75 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

"""The block at the bottom of the terminal, as a terminal shows it."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment import progress
from alignment.progress import LiveView

ROOT = Path(__file__).resolve().parents[2]
WORK = """
import sys, time
from alignment import logs, progress
logs.configure()
progress.TERMINAL_SECONDS = 0
logger = logs.get_logger("alignment.test")
logger.info("[4/7] sft (sft) ...")
outer = progress.LiveView("", 24, "steps")
for step in range(1, 4):
    outer.show(step, f"loss {1 / step:.4f}, 66 tokens/s, 26 min left", time.monotonic())
    if step == 2:
        logger.info("      a message between two steps")
        inner = progress.Progress("rollouts", 10, "completions")
        for _ in range(10):
            inner.advance()
        print(f"MARK {step}", flush=True)
        inner.finish()
    logger.info("step %d", step, extra=logs.IN_BLOCK)
print("MARK 3", flush=True)
outer.close()
logger.info("      done in 3 s")
"""


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after a text with the control sequences that the block uses."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[AJ]|\r|\n|[^\r\n\x1b]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("J") and part[0] == "\x1b":
            lines = [*lines[:row], lines[row][:column]]
        elif part[0] == "\x1b":
            row -= int(part[2:-1])
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def run_on_terminal(script: str, **variables: str) -> str:
    """Run a script whose stderr and stdout are a terminal, and return all that it wrote."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **variables}
    environment.pop("ALIGN_TERMINAL", None)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not data:
            break
        written += data
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode().replace("\r\n", "\n").replace("\n", "\r\n")


def test_the_block_is_updated_in_place_below_the_messages():
    written = run_on_terminal(WORK, ALIGN_STEP="[4/7] sft")
    during = screen(written.split("MARK 2")[0])
    assert during[:2] == ["[4/7] sft (sft) ...", "      a message between two steps"]
    assert during[2] == "[4/7] sft  ━━" + "─" * 22 + "  2/24 steps, 8%"
    assert during[3] == "loss 0.5000, 66 tokens/s, 26 min left"
    assert during[4] == "rollouts  " + "━" * 24 + "  10/10 completions, 100%"
    assert len(during) == 6  # the last line has the rate


def test_nothing_of_the_block_remains():
    shown = screen(run_on_terminal(WORK, ALIGN_STEP="[4/7] sft").replace("MARK 2\r\n", "").replace("MARK 3\r\n", ""))
    assert shown == ["[4/7] sft (sft) ...", "      a message between two steps", "      done in 3 s"]


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"RANK": "1"}])
def test_other_ranks_and_dumb_terminals_have_no_block(variables):
    assert "━" not in run_on_terminal(WORK, **variables)


def test_without_a_terminal_there_are_plain_lines_only():
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    assert "\x1b" not in done.stderr and "━" not in done.stderr
    assert done.stderr.splitlines() == [
        "[4/7] sft (sft) ...", "step 1", "      a message between two steps", "step 2", "step 3", "      done in 3 s",
    ]  # fmt: skip


def test_a_line_is_never_longer_than_the_terminal(monkeypatch):
    written = []
    monkeypatch.setattr(progress, "live_terminal", lambda: 1)
    monkeypatch.setattr(progress.os, "get_terminal_size", lambda _: os.terminal_size((40, 20)))
    monkeypatch.setattr(progress.os, "write", lambda _, data: written.append(data.decode().replace("\n", "\r\n")))
    monkeypatch.setattr(LiveView, "_open", [])
    view = LiveView("a name that is longer than the terminal is wide", 10, "programs")
    view.show(5, "details " * 20, time.monotonic())
    assert max(len(line) for line in screen(written[-1])) == 39


def test_the_block_is_not_drawn_more_often_than_every_quarter_of_a_second(monkeypatch):
    monkeypatch.setattr(progress, "live_terminal", lambda: 1)
    view = LiveView("work", 10)
    assert view.due(100.0)
    view.shown = 100.0
    assert not view.due(100.0 + progress.TERMINAL_SECONDS / 2) and view.due(100.0 + progress.TERMINAL_SECONDS)

"""Starts a separate process for a user's reward function, and sends it one batch after the other.

A reward that executes or imports code written by the model can end its process, block it, or change its state. In the
trainer's process this would end or corrupt the training. Run these rewards in a separate process: `isolated: true` in
the recipe. The process runs as long as the training. For each batch it receives and returns one line of JSON. It
gets prompts, completions and the columns with one value per completion, as `UserRewardFunction` describes. It does not
get objects of the trainer.

If the process dies, exceeds the time limit or sends an invalid answer, the process and all its descendants are killed,
and a new process is started for the next batch. All scores of this reward for the failed batch are None (never 0), and
a warning is logged. The third failure in a row ends the training. An exception in the function ends it at once.

The separate process is not a security boundary: it has the same rights, files, environment and network as the trainer.
Only the sandbox (`alignment.grading`) isolates hostile programs. Grade untrusted programs in the sandbox, for example
with the rewards `tests_passed` and `tests_fraction`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.extensions import Extension, ExtensionError
from alignment.logs import get_logger
from alignment.rewards.answers import row_columns
from alignment.rewards.reward_protocol import Completion, Prompt, Scores
from alignment.rewards.user_code import checked_scores, texts

logger = get_logger(__name__)

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
"""Time limit for importing the user's file, in seconds."""
TIMEOUT_SECONDS = 60.0
"""Default time limit for one batch, in seconds."""
MAX_FAILURES = 3
"""Training ends when this many batches in a row have failed."""
REPLY_BYTES = 1 << 20
REPLY_BYTES_PER_COMPLETION = 64
"""The maximum size of a reply is REPLY_BYTES plus this many bytes for each completion. A score takes about 20 bytes."""


class _ProcessFailed(Exception):
    """Raised if the process gives no valid answer.

    The text of the exception completes the sentence "the process ...".
    """


class IsolatedReward:
    """A user's reward function that runs in a separate process. Batches are scored one after the other."""

    def __init__(self, extension: Extension, timeout_seconds: float | None = None) -> None:
        """Start the process and import the user's file in it.

        Args:
            extension: the reference to the user's function.
            timeout_seconds: time limit for one batch in seconds. By default TIMEOUT_SECONDS.

        Raises:
            ExtensionError: the function cannot be loaded, or the process cannot be started.
        """
        self.extension = extension
        self.timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        self._failures = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        try:
            self._start()
        except _ProcessFailed as problem:
            raise ExtensionError(f"{extension.file()}: {extension.name}: the process {problem} at its start") from None

    async def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        """Score the completions of one batch, see `RewardFunction`.

        Raises:
            ExtensionError: the function raised an exception, did not return one score per completion, or its process
                failed for the third time in a row.
        """
        batch = {
            "prompts": texts(prompts),
            "completions": texts(completions),
            "columns": row_columns(columns, len(completions)),
        }
        return await asyncio.to_thread(self._score, batch)

    def close(self) -> None:
        """End the process and all its descendants."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the process is the leader of its own session
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _score(self, batch: Mapping[str, Any]) -> Scores:
        count = len(batch["completions"])
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                reply = self._exchange(batch, self.timeout_seconds, REPLY_BYTES + count * REPLY_BYTES_PER_COMPLETION)
            except _ProcessFailed as problem:
                self.close()
                return self._failed(str(problem), count)
        if "error" in reply:
            raise ExtensionError(str(reply["error"]))
        self._failures = 0
        return checked_scores(reply.get("scores"), count, f"{self.extension.file()}: {self.extension.name}")

    def _failed(self, problem: str, count: int) -> Scores:
        self._failures += 1
        place = f"{self.extension.file()}: {self.extension.name}"
        if self._failures >= MAX_FAILURES:
            raise ExtensionError(f"{place}: the isolated process failed {MAX_FAILURES} times in a row: it {problem}")
        logger.warning(
            "%s: the isolated process %s; %d completions have no score from this reward (failure %d of at most %d in a row)",
            place, problem, count, self._failures, MAX_FAILURES,
        )  # fmt: skip
        return [None] * count

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "alignment.rewards.isolated_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        extension = self.extension
        path = str(extension.path) if extension.path is not None else None
        setup = {"reference": extension.reference, "name": extension.name, "path": path, "module": extension.module}
        try:
            reply = self._exchange({"extension": setup, "sys_path": sys.path}, START_SECONDS, REPLY_BYTES)
        except _ProcessFailed:
            self.close()
            raise
        if "error" in reply:
            self.close()
            raise ExtensionError(str(reply["error"]))

    def _exchange(self, message: Mapping[str, Any], seconds: float, most: int) -> dict[str, Any]:
        """Send one line and return the reply. Raises _ProcessFailed, for example if the reply exceeds `most` bytes."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        stdin, stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        unsent = memoryview(json.dumps(message, default=str).encode() + b"\n")
        received = bytearray()
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if (remaining := deadline - time.monotonic()) <= 0:
                    raise _ProcessFailed(f"gave no answer within {seconds:g} s")
                for key, _ in selector.select(remaining):
                    if key.fd == stdin:
                        unsent = unsent[self._write(stdin, unsent) :]
                        if not unsent:
                            selector.unregister(stdin)
                        continue
                    chunk = os.read(stdout, 1 << 16)
                    received += chunk
                    if not chunk:
                        raise _ProcessFailed(self._ending())
                    if len(received) > most:
                        raise _ProcessFailed(f"answered with more than {most} bytes")
        try:
            reply = json.loads(received)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise _ProcessFailed("gave an unreadable answer")
        return reply

    def _write(self, descriptor: int, data: memoryview) -> int:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise _ProcessFailed(self._ending()) from None

    def _ending(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

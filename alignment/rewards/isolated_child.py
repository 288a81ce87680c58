"""Runs a user's reward function in a separate process, which `alignment.rewards.isolation` starts.

The process (`python -m alignment.rewards.isolated_child`) reads lines of JSON from stdin: first the reference to the
user's function, then one batch per line. For each line it writes one line: `{"ready": true}`, `{"scores": [...]}` or
`{"error": "file:line: ..."}`. Output that the user's code prints is redirected to stderr.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from alignment.extensions import Extension, ExtensionError
from alignment.rewards.reward_protocol import Scores
from alignment.rewards.user_code import CALLING, checked_scores, load_function


def main() -> None:
    """Load the user's function, then score batches until the trainer closes the pipe or ends."""
    requests, replies = _own_streams()
    setup = json.loads(requests.readline())
    sys.path[:] = setup["sys_path"]
    path = setup["extension"]["path"]
    extension = Extension(**setup["extension"] | {"path": Path(path) if path is not None else None})
    batches: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(requests, batches), daemon=True).start()
    try:
        function = load_function(extension)
    except ExtensionError as error:
        _send(replies, {"error": str(error)})
        return
    _send(replies, {"ready": True})
    while True:
        try:
            reply: dict[str, Any] = {"scores": _scores(function, extension, batches.get())}
        except ExtensionError as error:
            reply = {"error": str(error)}
        _send(replies, reply)


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Move the pipes to the trainer from descriptors 0 and 1 to others, so that the user's code does not use the pipes
    by accident.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _read(requests: IO[bytes], batches: queue.Queue[dict[str, Any]]) -> None:
    """Read batches and put them into the queue.

    If the pipe is closed, the trainer has ended: end this process and all its descendants, even while the user's code
    runs.
    """
    for line in requests:
        batches.put(json.loads(line))
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _scores(function: Callable[..., Any], extension: Extension, batch: dict[str, Any]) -> Scores:
    completions = batch["completions"]
    with extension.errors(CALLING):
        scores = function(batch["prompts"], completions, **batch["columns"])
        if inspect.isawaitable(scores):
            scores = asyncio.run(_awaited(scores))
    return checked_scores(scores, len(completions), extension.place(function))


async def _awaited(scores: Any) -> Any:
    return await scores


def _send(replies: IO[bytes], reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()

"""Exchanges messages between the processes of the sandbox.

Each message is one JSON value on a line of limited length.
"""

from __future__ import annotations

import json
import os
from typing import Any

MAX_FRAME = 64 << 20
"""Maximum size of one message, in bytes."""


class ChannelError(Exception):
    """Raised if the other side closed the channel, or sent data that is not a valid message."""


class Channel:
    """Sends and receives messages over one descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = bytearray()

    def send(self, message: Any) -> None:
        """Send one message.

        Raises:
            ValueError: The message is too long. Nothing was sent.
            ChannelError: The other side closed the channel.
        """
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(data) > MAX_FRAME:
            raise ValueError(f"the message has more than {MAX_FRAME} bytes")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError:
            raise ChannelError("the other process closed the channel") from None

    def receive(self) -> Any:
        """Wait for the next message and return it."""
        searched = 0
        while (end := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            if searched > MAX_FRAME:
                raise ChannelError("the message is too long")
            self._fill()
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise ChannelError("the message is not valid JSON") from None

    def read(self, count: int) -> bytes:
        """Read and return exactly `count` raw bytes."""
        while len(self.buffer) < count:
            self._fill()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _fill(self) -> None:
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError:
            data = b""
        if not data:
            raise ChannelError("the other process closed the channel")
        self.buffer += data

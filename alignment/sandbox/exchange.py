"""Exchanges data with running programs: sends their input, reads their output, and enforces the output limits."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun

SPARE_SECONDS = 65.0
"""If a program has not ended so many seconds after its longest wall time, the launcher is considered dead."""


class Connection:
    """The control socket of one launcher, the process that starts programs in the sandbox.

    Args:
        control: Sequenced-packet socket whose other end belongs to the launcher.
        readable: Files and folders that programs can read if the sandbox has no namespaces.
    """

    def __init__(self, control: socket.socket, readable: Sequence[str]) -> None:
        self.control = control
        self.readable = list(readable)
        self.count = 0

    def start(self, program: Program, descriptors: Sequence[int]) -> int:
        """Start `program` with `descriptors` as its descriptors 0, 1, 2, ... and return the program's id."""
        self.count += 1
        request = {
            "id": self.count, "entry": program.entry, "limits": asdict(program.limits),
            "address_space": program.address_space, "reserved_bytes": program.reserved_bytes, "readable": self.readable, "cover": list(program.cover),
            "replace": list(program.replace), "layer": len(program.layer),
        }  # fmt: skip
        socket.send_fds(self.control, [json.dumps(request).encode()], list(descriptors))
        return self.count

    def kill(self, number: int, reason: str) -> None:
        """Kill the program with this id. The field `stop` of the program's result becomes `reason`."""
        self.control.send(json.dumps({"kill": number, "reason": reason}).encode())

    def receive(self) -> dict[str, Any]:
        """Return the launcher's next message. Raises OSError if the launcher has ended."""
        message = self.control.recv(1 << 16)
        if not message:
            raise OSError("the launcher has ended")
        return json.loads(message)


class Exchange:
    """Exchanges data with one or two programs until all of them have ended.

    Two programs are connected to each other by a socket pair, which is descriptor 4 in both programs. When the first
    program ends, the second program is killed.

    Args:
        connections: The connection to the launcher of each program.
        programs: One or two programs.
    """

    def __init__(self, connections: Sequence[Connection], programs: Sequence[Program]) -> None:
        self.connections = connections
        self.programs = programs
        self.runs = [ProgramRun() for _ in programs]
        self.numbers: dict[tuple[Connection, int], int] = {}
        self.selector = selectors.DefaultSelector()
        self.open: set[int] = set()
        self.buffers: dict[tuple[int, str], bytearray] = {}

    def run(self) -> list[ProgramRun]:
        """Start the programs, wait until they end, and return their results. Raises OSError if a launcher fails."""
        try:
            self._start()
            self._exchange()
        finally:
            self.selector.close()
            for descriptor in self.open:
                os.close(descriptor)
        for index, run in enumerate(self.runs):
            run.stdout, run.stderr, run.reply = (bytes(self.buffers[index, name]) for name in ("out", "err", "reply"))
        return self.runs

    def _start(self) -> None:
        peers: list[int] = []
        if len(self.programs) == 2:
            first, second = socket.socketpair()
            peers = [first.detach(), second.detach()]
        theirs: list[int] = [*peers]  # the programs' ends of the pipes, closed in this process after sending
        try:
            for index, program in enumerate(self.programs):
                stdin, our_stdin = os.pipe()
                theirs.append(stdin)
                self._watch(our_stdin, index, "in", bytearray(program.stdin))
                sent = [stdin]
                for name in ("out", "err"):
                    ours, their = os.pipe()
                    theirs.append(their)
                    sent.append(their)
                    self._watch(ours, index, name, bytearray())
                left, right = socket.socketpair()
                ours, their = left.detach(), right.detach()
                theirs.append(their)
                header = json.dumps({**program.header, "size": len(program.body)}).encode() + b"\n"
                self._watch(ours, index, "reply", bytearray(), program.layer + header + program.body)
                connection = self.connections[index]
                number = connection.start(program, [*sent, their, *peers[index : index + 1]])
                self.numbers[connection, number] = index
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _watch(self, descriptor: int, index: int, name: str, buffer: bytearray, payload: bytes = b"") -> None:
        self.open.add(descriptor)
        os.set_blocking(descriptor, False)
        self.buffers[index, name] = buffer
        if name == "in" and not buffer:
            self._drop(descriptor)
            return
        events = selectors.EVENT_WRITE if name == "in" else selectors.EVENT_READ
        if payload:
            events |= selectors.EVENT_WRITE
        feed = memoryview(bytes(buffer)) if name == "in" else memoryview(payload)
        self.selector.register(descriptor, events, (index, name, [feed]))

    def _drop(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(descriptor)
        self.open.discard(descriptor)
        os.close(descriptor)

    def _exchange(self) -> None:
        longest = max(WALL_GRACE * program.limits.wall_seconds for program in self.programs)
        deadline = time.monotonic() + longest + SPARE_SECONDS
        for connection in dict.fromkeys(self.connections):
            self.selector.register(connection.control, selectors.EVENT_READ, connection)
        waiting = set(self.numbers.values())
        while waiting:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise OSError("the launcher does not answer")
            for key, events in self.selector.select(remaining):
                if isinstance(key.data, Connection):
                    waiting.discard(self._ended(key.data))
                    if 0 not in waiting:
                        for index in waiting:
                            self._kill(index, "finished")
                    continue
                if key.fd not in self.open:
                    continue
                if events & selectors.EVENT_READ:
                    self._read(key.fd, *key.data[:2])
                if events & selectors.EVENT_WRITE and key.fd in self.open:
                    self._write(key.fd, *key.data)
        self._drain()

    def _drain(self) -> None:
        """Read the remaining data from the pipes, after every process that could write to them has ended."""
        for descriptor, key in [
            (key.fd, key) for key in self.selector.get_map().values() if not isinstance(key.data, Connection)
        ]:
            while descriptor in self.open and key.data[1] != "in":
                if not self._read(descriptor, *key.data[:2]):
                    break

    def _ended(self, connection: Connection) -> int:
        """Receive the launcher's report about an ended program, record it, and return the program's index."""
        state = connection.receive()
        index = self.numbers[connection, state["id"]]
        if "error" in state:
            raise OSError(state["error"])
        run = self.runs[index]
        run.code, run.cpu_seconds, run.wall_seconds = state["code"], state["cpu"], state["wall"]
        run.memory_bytes, run.began = state["memory"], state["began"]
        run.stop = run.stop or (state["stop"] if state["stop"] != "finished" else None)
        return index

    def _kill(self, index: int, reason: str) -> None:
        connection, number = next(key for key, owner in self.numbers.items() if owner == index)
        connection.kill(number, reason)

    def _read(self, descriptor: int, index: int, name: str) -> bool:
        """Read once from a program. Return False if no data was available or the descriptor was closed."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._drop(descriptor)
            return False
        buffer = self.buffers[index, name]
        remaining = _byte_limit(self.programs[index].limits, name) - len(buffer)
        buffer += data[:remaining]
        if len(data) > remaining:
            self.runs[index].stop = "output_limit"
            self._drop(descriptor)
            self._kill(index, "output_limit")
            return False
        return True

    def _write(self, descriptor: int, index: int, name: str, feed: list[memoryview]) -> None:
        try:
            feed[0] = feed[0][os.write(descriptor, feed[0][: 1 << 16]) :]
        except BlockingIOError:
            return
        except OSError:  # the program closed its end
            feed[0] = feed[0][:0]
        if not feed[0]:
            if name == "in":
                self._drop(descriptor)
            else:
                self.selector.modify(descriptor, selectors.EVENT_READ, (index, name, feed))


def _byte_limit(limits: Limits, name: str) -> int:
    return limits.reply_bytes if name == "reply" else limits.output_bytes

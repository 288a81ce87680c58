"""The launcher: builds a jail once, then starts each program in fresh namespaces by forking a warm interpreter.

Two processes per slot. The outer one enters the namespaces and waits; the inner one is the first process of the
slot's pid namespace, so that when either ends, for whatever reason, the kernel ends everything below. Requests come
as JSON messages over a socket, with the program's descriptors attached; the program itself comes on its own pipe and
never passes through here.

Started as ``python -s -S -c "..."`` by `alignment.sandbox.slot`, with its configuration as standard input: programs can
read their own command line, which is this process's.
"""

from __future__ import annotations

import array
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any

from . import jail, kernel, suite

READY, REFUSED, WEAKER = "ready", "refused", "weaker"
START_SECONDS = 60.0
TICK = 0.1  # seconds between two looks at memory and time


def main() -> None:
    with open(0, "rb") as file:
        configuration = json.load(file)
    os.open("/dev/null", os.O_RDONLY)  # takes the place of what was just closed
    manifest = configuration.get("suite")
    if manifest:
        with open(manifest, encoding="utf-8") as file:
            configuration["suite"] = json.load(file)
    control = socket.socket(fileno=configuration["control"])
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != configuration["parent"]:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.extend(configuration["packages"])
    sys.dont_write_bytecode = True
    for name in configuration["warm"]:
        __import__(name)
    try:
        run = jail.enter(configuration)
    except OSError as error:
        control.send(json.dumps({"state": REFUSED, "error": str(error), "number": error.errno}).encode())
        os._exit(1)
    except jail.Weaker as error:
        control.send(json.dumps({"state": WEAKER, "error": str(error)}).encode())
        os._exit(1)
    if run is None:  # the outer process: wait for the inner one
        control.close()
        os._exit(0)
    launcher = Launcher(control, run, configuration["wall_grace"])
    try:
        if manifest:
            suite.around(configuration["suite"], launcher.serve)
        else:
            launcher.serve({})
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


class Program:
    """A program that runs: its process, its limits, and why it was stopped."""

    def __init__(self, request: dict[str, Any], pid: int, began: int) -> None:
        self.number: int = request["id"]
        self.limits: dict[str, Any] = request["limits"]
        self.pid = pid
        self.began = began
        self.running = False
        self.descriptor = os.pidfd_open(pid)
        self.started = time.monotonic()
        self.stop: str | None = None

    def kill(self, reason: str) -> None:
        self.stop = self.stop or reason
        signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)


class Launcher:
    def __init__(self, control: socket.socket, run: jail.Jail, wall_grace: float) -> None:
        self.control = control
        self.wall_grace = wall_grace
        self.jail = run
        self.programs: dict[int, Program] = {}
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def serve(self, suite_state: dict[str, Any]) -> None:
        """Start programs until the other side is gone; `suite_state` goes into the ready message."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self.reply(state=READY, notes=self.jail.notes, suite=suite_state)
        while True:
            timeout = TICK * 1000 if self.programs else None
            for descriptor, _ in self.poll.poll(timeout):
                if descriptor == self.control.fileno():
                    if not self.receive():
                        return
                else:
                    self.finish(next(item for item in self.programs.values() if item.descriptor == descriptor))
            now = time.monotonic()
            for program in list(self.programs.values()):
                if now - program.started >= TICK:
                    self.watch(program, now)

    def reply(self, **fields: object) -> None:
        self.control.send(json.dumps(fields).encode())

    def receive(self) -> bool:
        """Take one request; False when the other side is gone."""
        descriptors = array.array("i")
        message, ancillary, _, _ = self.control.recvmsg(1 << 16, socket.CMSG_SPACE(8 * descriptors.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not message:
            return False
        request = json.loads(message)
        if "kill" in request:
            program = self.programs.get(request["kill"])
            if program is not None:
                program.kill(request["reason"])
            return True
        began, announce = os.pipe()  # the program's driver writes to it before the first of the program's own steps
        descriptors.append(announce)
        try:
            program = Program(request, self.jail.start(request, list(descriptors)), began)
        except OSError as error:
            os.close(began)
            self.reply(id=request["id"], error=str(error))
        else:
            self.programs[program.number] = program
            self.poll.register(program.descriptor, select.POLLIN)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def finish(self, program: Program) -> None:
        self.poll.unregister(program.descriptor)
        _, status, usage = os.wait4(program.pid, 0)  # the kernel has ended all of its pid namespace by now
        os.close(program.descriptor)
        self.jail.clean(program.pid)
        began = os.read(program.began, 1) == b"1"
        os.close(program.began)
        del self.programs[program.number]
        self.reply(
            id=program.number,
            began=began,
            code=os.waitstatus_to_exitcode(status),
            stop=program.stop,
            cpu=usage.ru_utime + usage.ru_stime,
            wall=time.monotonic() - program.started,
            memory=usage.ru_maxrss * 1024,
        )

    def watch(self, program: Program, now: float) -> None:
        """End a program that is out of time or, with all its processes together, out of memory."""
        if not program.running:  # its time runs from its own first step, however long a busy machine took to get there
            if select.select([program.began], [], [], 0)[0]:
                program.running, program.started = True, now
            elif now - program.started > START_SECONDS:
                program.kill("start")
            return
        if select.select([program.descriptor], [], [], 0)[0]:
            return  # it has ended by itself while this process waited for a core
        wall = program.limits["wall_seconds"]
        passed = now - program.started
        if passed >= wall and (passed >= self.wall_grace * wall or passed - _waited(program.pid) >= wall):
            program.kill("timeout")
        elif self.jail.has_proc and _resident(program.pid) > program.limits["memory_bytes"]:
            program.kill("memory")


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            with open(f"/proc/{current}/task/{current}/children") as file:
                waiting.extend(int(child) for child in file.read().split())
        except OSError:
            continue
    return found


def _waited(pid: int) -> float:
    """Seconds that the program was ready to run and found no free core: a busy machine must not fail a program.

    Of its many threads the one that waited most counts.
    """
    longest = 0
    for process in _tree(pid):
        try:
            for thread in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{thread}/schedstat") as file:
                    longest = max(longest, int(file.read().split()[1]))
        except (OSError, IndexError):
            continue
    return longest / 1e9


def _resident(pid: int) -> int:
    """Bytes of memory that a process and all its descendants hold: their own, and what they share, once for each."""
    total = 0
    for process in _tree(pid):
        try:
            with open(f"/proc/{process}/status", "rb") as file:
                for line in file:
                    if line.startswith((b"RssAnon:", b"RssShmem:", b"HugetlbPages:")):
                        total += int(line.split()[1]) << 10
        except (OSError, IndexError):
            continue
    return total

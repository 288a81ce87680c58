"""The launcher: enters the jail once, then forks itself into new namespaces for each program.

Programs start fast, because the forked interpreter has already loaded its modules. A launcher has two processes. The
outer process enters the namespaces and waits. The inner process is the first process of the pid namespace. When one of
the two ends, for any reason, the kernel kills all programs. Requests are JSON messages over a socket, with the
program's descriptors attached. The program's own code arrives on one of these descriptors. The launcher never reads it.

`alignment.sandbox.slot` starts the launcher as ``python -s -S -c "..."`` and sends the configuration on standard input.
It is not sent as arguments, because programs can read the command line of the launcher.
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

from . import cgroups, jail, kernel, suite
from .usage import Usage, UsageMeter

READY, REFUSED, WEAKER = "ready", "refused", "weaker"
START_SECONDS = 60.0
"""Time limit for the start of a program's own code, in seconds. After this time the program is killed."""
TICK = 0.05
"""Seconds between two checks of a program's time and memory."""
FAST_TICK = 0.01
"""Seconds between two checks while a program uses more than a quarter of its memory limit."""


def main() -> None:
    """Enter the jail and serve requests until the control socket is closed."""
    with open(0, "rb") as file:
        configuration = json.load(file)
    os.open("/dev/null", os.O_RDONLY)  # the new descriptor is 0, which was just closed
    manifest = configuration.get("suite")
    if manifest:
        with open(manifest, encoding="utf-8") as file:
            configuration["suite"] = json.load(file)
        configuration["suite"]["role"] = configuration["role"] or configuration["suite"]["role"]
    control = socket.socket(fileno=configuration["control"])
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != configuration["parent"]:
        os._exit(0)  # the parent died before the line above took effect
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.extend(configuration["packages"])
    sys.dont_write_bytecode = True
    for name in configuration["warm"]:
        __import__(name)
    groups = _groups(configuration)
    try:
        entered = jail.enter(configuration, groups)
    except OSError as error:
        control.send(json.dumps({"state": REFUSED, "error": str(error), "number": error.errno}).encode())
        os._exit(1)
    except jail.Weaker as error:
        control.send(json.dumps({"state": WEAKER, "error": str(error)}).encode())
        os._exit(1)
    if entered is None:  # the outer process, after the inner one has ended
        control.close()
        os._exit(0)
    launcher = Launcher(control, entered, configuration["wall_grace"])
    try:
        if manifest:
            suite.load_and_serve(configuration["suite"], launcher.serve)
        else:
            launcher.serve({})
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _groups(configuration: dict[str, Any]) -> list[cgroups.ProgramGroup]:
    """Make control groups for the programs of this launcher. The list is empty if this user may not make any."""
    parent = cgroups.parent_folder() if configuration["namespaces"] else None
    try:
        return cgroups.make_groups(parent) if parent is not None else []
    except OSError:
        return []


class RunningProgram:
    """A started program: its process, its limits, and, if it was killed, the reason."""

    def __init__(self, request: dict[str, Any], pid: int, began: int) -> None:
        self.number: int = request["id"]
        self.limits: dict[str, Any] = request["limits"]
        self.pid = pid
        self.began = began
        """Descriptor on which the program's driver announces that the program's own code begins."""
        self.running = False
        self.descriptor = os.pidfd_open(pid)
        self.started = time.monotonic()
        self.stop: str | None = None
        self.meter = UsageMeter(pid)
        self.usage = Usage()

    def kill(self, reason: str) -> None:
        self.stop = self.stop or reason
        signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)


class Launcher:
    """Starts programs on request, enforces their limits, and reports when they have ended.

    Args:
        control: Socket connected to the parent.
        entered: The jail of this process.
        wall_grace: Maximum wall time of a program that has to wait for a free core, as a multiple of its wall limit.
    """

    def __init__(self, control: socket.socket, entered: jail.Jail, wall_grace: float) -> None:
        self.control = control
        self.jail = entered
        self.wall_grace = wall_grace
        self.programs: dict[int, RunningProgram] = {}
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def serve(self, suite_state: dict[str, Any]) -> None:
        """Start programs until the control socket is closed. The ready message to the parent contains `suite_state`."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self.reply(state=READY, notes=self.jail.notes, holds=self.jail.holds(), suite=suite_state)
        while True:
            timeout = self.pause() * 1000 if self.programs else None
            for descriptor, _ in self.poll.poll(timeout):
                if descriptor == self.control.fileno():
                    if not self.receive():
                        return
                else:
                    self.finish(next(item for item in self.programs.values() if item.descriptor == descriptor))
            now = time.monotonic()
            for program in list(self.programs.values()):
                if now - program.started >= FAST_TICK:
                    self.watch(program, now)

    def pause(self) -> float:
        """Return the seconds until the next check of the running programs."""
        is_near = any(4 * item.usage.memory_bytes > item.limits["memory_bytes"] for item in self.programs.values())
        return FAST_TICK if is_near else TICK

    def reply(self, **fields: object) -> None:
        """Send a message to the parent."""
        self.control.send(json.dumps(fields).encode())

    def receive(self) -> bool:
        """Handle one request to start or kill a program. Return False if the control socket is closed."""
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
        began, announce = os.pipe()  # the driver writes to `announce` right before the program's own code
        descriptors.append(announce)
        try:
            program = RunningProgram(request, self.jail.start(request, list(descriptors)), began)
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

    def finish(self, program: RunningProgram) -> None:
        """Report to the parent that a program has ended."""
        self.poll.unregister(program.descriptor)
        _, status, usage = os.wait4(program.pid, 0)  # by now the kernel has killed its whole pid namespace
        os.close(program.descriptor)
        at_memory_limit = self.jail.clean(program.pid)
        began = os.read(program.began, 1) == b"1"
        os.close(program.began)
        del self.programs[program.number]
        code = os.waitstatus_to_exitcode(status)
        cpu = max(usage.ru_utime + usage.ru_stime, program.usage.cpu_seconds)
        stop = program.stop or ("memory" if at_memory_limit else None)
        if stop is None and code == -signal.SIGKILL and cpu >= 0.95 * program.limits["cpu_seconds"]:
            stop = "timeout"  # the kernel killed the program at its limit of CPU time
        self.reply(
            id=program.number,
            began=began,
            code=code,
            stop=stop,
            cpu=cpu,
            wall=max(0.0, time.monotonic() - program.started - program.usage.waited_seconds),
            memory=usage.ru_maxrss * 1024,
        )

    def watch(self, program: RunningProgram, now: float) -> None:
        """Kill a program that exceeds its time limit, or whose processes together exceed the memory limit."""
        if not program.running:  # the time is counted from the beginning of the program's own code
            if select.select([program.began], [], [], 0)[0]:
                program.running, program.started = True, now
                program.meter.begin(now)
            elif now - program.started > START_SECONDS:
                program.kill("start")
            return
        if select.select([program.descriptor], [], [], 0)[0]:
            return  # the program ended by itself while this process waited for a core
        limits, passed = program.limits, now - program.started
        if self.jail.has_proc:
            program.usage = program.meter.measure(now)
        wall, usage = limits["wall_seconds"], program.usage
        if passed >= wall and (passed >= self.wall_grace * wall or passed - usage.waited_seconds >= wall):
            program.kill("timeout")
        elif usage.memory_bytes > limits["memory_bytes"]:
            program.kill("memory")
        elif usage.cpu_seconds >= limits["cpu_seconds"]:
            program.kill("timeout")

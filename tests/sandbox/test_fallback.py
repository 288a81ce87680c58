"""The weaker sandbox: Landlock and seccomp alone, if the kernel refuses namespaces and the user allows it."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from alignment.sandbox import Program, Slot
from alignment.sandbox.inside import landlock
from alignment.sandbox.launcher_settings import launcher_settings

from .hostile_hosts import BOILERPLATE

pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")


def _alone() -> Slot:
    return Slot(replace(launcher_settings(), namespaces=False))


@pytest.mark.parametrize(
    "attack",
    [
        "won = bool(open('/etc/passwd').read())",
        "import os\nwon = bool(os.listdir('/proc'))",
        "import os\nwon = bool(os.listdir('/home'))",
        "open('/tmp/outside', 'w'); won = True",
        "import os\nos.fork(); won = True",
        "import os\nos.kill(os.getppid(), 0); won = True",
        "import socket\nsocket.socket(); won = True",
        "won = CALL(302, 1, 7, 0, 0) == 0",
        "won = CALL(29, 0, 4096, 0o1600) >= 0",
        "won = CALL(272, 0x10000000) == 0",
    ],
)
def test_the_host_is_out_of_reach_without_namespaces(attack: str) -> None:
    slot = _alone()
    try:
        text = f"ATTACK = {attack!r}\n{BOILERPLATE}"
        (run,) = slot.run([Program("main", {"environment": {}}, text.encode())])
    finally:
        slot.close()
    assert run.stdout.strip() == b"contained", run


def test_programs_run_and_their_folder_is_removed() -> None:
    slot = _alone()
    try:
        text = b"import os; open('x', 'w').write('x'); print(os.getcwd())"
        (run,) = slot.run([Program("main", {"environment": {}}, text)])
        assert any("weaker" in note for note in slot.notes)
    finally:
        slot.close()
    assert run.code == 0, run
    assert not os.path.exists(run.stdout.decode().strip())


@pytest.mark.skipif(os.geteuid() != 0, reason="refusing namespaces to a child needs root")
@pytest.mark.parametrize(("consent", "expected"), [(False, "allow_weaker"), (True, "weaker: 1")])
def test_without_namespaces_programs_run_only_if_the_weaker_sandbox_is_allowed(consent: bool, expected: str) -> None:
    """A user namespace that allows no further ones stands for a container that refuses namespaces."""
    text = f"""
import ctypes, os, sys, warnings
warnings.simplefilter("ignore")
sys.path[:0] = {[path for path in sys.path if path]!r} + [{os.getcwd()!r}]
from alignment.sandbox import Program, SandboxUnavailable, Slot
from alignment.sandbox.inside import kernel
from alignment.sandbox.launcher_settings import launcher_settings
kernel.unshare(kernel.CLONE_NEWUSER)
kernel.map_user(0, 0, 0)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
kernel.drop_bounding_set()
kernel.drop_capabilities()
slot = Slot(launcher_settings({consent}))
try:
    (run,) = slot.run([Program("main", {{"environment": {{}}}}, b"print(1)")])
    print("weaker:", run.stdout.decode())
except SandboxUnavailable as error:
    print(error)
finally:
    slot.close()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert expected in done.stdout, done.stderr

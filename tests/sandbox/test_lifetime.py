"""Processes, descriptors, mounts and files are removed, also if the trainer is killed."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from alignment.grading import Grader, Limits
from alignment.sandbox import Program, Slot
from alignment.sandbox.launcher_settings import launcher_settings

TASK = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "1"}]})}
KILLED = """
import json, os, signal, threading
from alignment.grading import Grader
task = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "1"}]})}
grader = Grader(workers=2)
assert grader.grade_many([(task, "print(1)")] * 4)[0].status == "passed"
for _ in range(2):
    grader.submit(task, "import os, time\\nfor _ in range(5): os.fork()\\ntime.sleep(1000)")
import time; time.sleep(1)
print(*[slot.process.pid for slot in grader.slots], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def _wait_for(condition: object, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_killing_the_trainer_ends_the_launchers_and_their_programs(grader: Grader) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    launchers = [int(word) for word in done.stdout.split()]
    assert len(launchers) == 2
    assert _wait_for(lambda: _gone(launchers))


def test_closing_leaves_no_process_and_no_descriptor(grader: Grader) -> None:
    process = psutil.Process()
    gc.collect()
    before = process.num_fds()
    with Grader(workers=2) as fresh:
        assert [verdict.status for verdict in fresh.grade_many([(TASK, "print(1)")] * 10)] == ["passed"] * 10
        launchers = [slot.process.pid for slot in fresh.slots if slot.process is not None]
        assert launchers
    gc.collect()
    assert process.num_fds() == before
    assert _wait_for(lambda: _gone(launchers))


def test_many_runs_leave_nothing_in_the_launcher() -> None:
    slot = Slot(launcher_settings())
    try:
        slot.run([Program("main", {"environment": {}}, b"print(1)")])
        assert slot.process is not None
        outer = psutil.Process(slot.process.pid)
        inner = outer.children()[0]
        mounts = Path(f"/proc/{inner.pid}/mounts").read_text()
        descriptors = inner.num_fds()
        for _ in range(30):
            slot.run([Program("main", {"environment": {}}, b"open('/tmp/x', 'w').write('x'); print(1)")])
        assert inner.num_fds() == descriptors
        assert Path(f"/proc/{inner.pid}/mounts").read_text() == mounts
        assert inner.children() == []
    finally:
        slot.close()


def test_a_launcher_that_dies_is_replaced(grader: Grader) -> None:
    with Grader(workers=1) as fresh:
        assert fresh.grade_many([(TASK, "print(1)")])[0].status == "passed"
        process = fresh.slots[0].process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert fresh.grade_many([(TASK, "print(1)")])[0].status == "passed"


def test_a_forked_child_gets_a_pool_of_its_own(grader: Grader) -> None:
    with Grader(workers=1) as fresh:
        fresh.grade_many([(TASK, "print(1)")])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if fresh.grade_many([(TASK, "print(1)")])[0].status == "passed" else 1
                fresh.close()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert fresh.grade_many([(TASK, "print(1)")])[0].status == "passed"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming a plain user needs root")
def test_works_as_a_plain_user() -> None:
    """The package is copied to a folder that every user can read; pytest's temporary folders are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        _works_as_a_plain_user(Path(folder))


def _works_as_a_plain_user(tmp_path: Path) -> None:
    base = Path(sys.base_prefix)
    if not os.access(base, os.R_OK) or str(base).startswith("/root"):
        system = Path("/usr/bin/python3")
        if not system.exists():
            pytest.skip("no interpreter that a plain user can read")
        interpreter = str(system)
    else:
        interpreter = sys.executable
    source = Path(__file__).resolve().parents[2] / "alignment"
    target = tmp_path / "alignment"
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    text = (
        "from alignment.sandbox import Program, Slot\n"
        "from alignment.sandbox.launcher_settings import launcher_settings\n"
        "slot = Slot(launcher_settings())\n"
        "(run,) = slot.run([Program('main', {'environment': {}}, b\"print('it runs')\")])\n"
        "print(run.stdout.decode(), end='')\n"
        "slot.close()\n"
    )
    done = subprocess.run(
        [interpreter, "-c", text], cwd=tmp_path, capture_output=True, text=True, user=65534, group=65534, extra_groups=[],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    if "refused to make the sandbox" in done.stderr:
        pytest.skip(f"this machine refuses user namespaces to plain users: {done.stderr[-200:]}")
    assert done.stdout == "it runs\n", done.stderr


def test_works_inside_a_container_that_allows_user_namespaces() -> None:
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*container, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow containers")
    # The only user of a container that root makes is the machine's root, to whom the process limit does not apply.
    weaker = os.geteuid() == 0
    text = (
        "import json; from alignment.grading import Grader\n"
        "task = {'kind': 'stdio', 'tests': json.dumps({'cases': [{'stdin': '', 'stdout': '1'}]})}\n"
        f"with Grader(workers=1, allow_weaker={weaker}) as g: print(g.grade_many([(task, 'print(1)')])[0].status)\n"
    )
    done = subprocess.run([*container, sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "passed", done.stderr


@pytest.mark.nightly
def test_thousands_of_programs_leak_nothing() -> None:
    from benchmarks.sandbox_speed import soak

    figures = soak(3000, workers=2)
    assert figures["errors"] == 0
    assert figures["descriptors_after"] == figures["descriptors_before"]
    assert figures["processes_after"] == 0
    assert figures["zombies_after"] == 0
    assert figures["pool_memory_end"] < 1.1 * figures["pool_memory_start"] + (2 << 20)


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="cpu_seconds"):
        Limits(cpu_seconds=0)

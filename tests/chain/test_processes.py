"""Processes of stages: their environment, how they end, and waiting for rank 0 without a collective."""

import os
import signal
import subprocess
import sys
import time

import pytest

from alignment import processes
from alignment.processes import ProcessRequest, StageFailed, World, child_environment, heartbeat, wait_for

LAUNCHED = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True",
    "GROUP_RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_FSDP": "true", "HOME": "/home/x",
}  # fmt: skip


def test_without_a_launcher_there_is_one_process():
    assert World.from_environment({}) == World(0, 1, None)


def test_rank_size_and_port_come_from_the_launcher():
    assert World.from_environment(LAUNCHED) == World(1, 2, 29500)


def test_a_launcher_that_silently_started_one_process_is_an_error():
    with pytest.raises(ValueError, match="started only one"):
        World.from_environment({"ACCELERATE_USE_CPU": "true", "MASTER_PORT": "29500"})


def test_a_stage_on_all_ranks_gets_its_own_port_and_not_the_store_of_the_agent():
    world = World(1, 2, 29500)
    children = [child_environment(LAUNCHED, world, alone=False, port_offset=offset) for offset in (0, 1)]
    assert [child["MASTER_PORT"] for child in children] == ["29501", "29502"]
    assert not any(key.startswith("TORCHELASTIC_") for child in children for key in child)
    assert children[0]["RANK"] == "1" and children[0]["ACCELERATE_USE_DEEPSPEED"] == "true"


def test_a_stage_that_runs_alone_sees_no_launcher():
    child = child_environment(LAUNCHED, World(0, 2, 29500), alone=True, port_offset=0)
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT", "GROUP_RANK", "ACCELERATE_USE_DEEPSPEED"} & set(child)
    assert "ACCELERATE_USE_FSDP" not in child and child["HOME"] == "/home/x"


def test_the_childs_environment_is_a_copy():
    before = dict(LAUNCHED)
    child_environment(LAUNCHED, World(1, 2, 29500), alone=True, port_offset=0)["HOME"] = "changed"
    assert before == LAUNCHED


def test_waiting_ends_with_an_error_if_the_heartbeat_stops(tmp_path):
    (tmp_path / "heartbeat").write_text("1 1")
    with pytest.raises(StageFailed, match="no sign of life for 0 s while it should run 'sft'"):
        wait_for(lambda: False, tmp_path / "heartbeat", "run 'sft'", patience=0.3)


def test_waiting_ends_with_an_error_if_there_is_no_heartbeat(tmp_path):
    with pytest.raises(StageFailed):
        wait_for(lambda: False, tmp_path / "heartbeat", "run", patience=0.2)


def test_waiting_continues_while_the_heartbeat_changes_and_ends_when_the_condition_is_true(tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.processes.HEARTBEAT_SECONDS", 0.05)
    file, start = tmp_path / "heartbeat", time.monotonic()
    with heartbeat(file):
        wait_for(lambda: time.monotonic() - start > 3, file, "run", patience=2)
    assert not file.exists()


def test_a_stage_that_fails_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(StageFailed, match="No module named") as caught:
        processes.run("no_such_module_here", ProcessRequest(), tmp_path / "logs" / "x.log", os.environ)
    assert "ended with code 1" in str(caught.value) and str(tmp_path / "logs" / "x.log") in str(caught.value)


def test_a_stage_that_fails_again_shows_only_the_log_of_the_last_attempt(tmp_path):
    (tmp_path / "x.log").write_text("of an earlier attempt\n")
    with pytest.raises(StageFailed, match="No module named") as caught:
        processes.run("no_such_module_here", ProcessRequest(), tmp_path / "x.log", os.environ)
    assert "earlier" not in str(caught.value) and "earlier" in (tmp_path / "x.log").read_text()


def test_log_tail_is_the_end_of_the_log_and_empty_without_one(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff" + b"line\n" * 10_000 + b"last\n")
    assert processes.log_tail(tmp_path / "log", 2) == "  | line\n  | last"
    assert processes.log_tail(tmp_path / "none") == ""


def test_modules_in_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    for name in ("json", "random", "argparse", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong module')")
    (tmp_path / "alignment").mkdir()
    (tmp_path / "alignment" / "__init__.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    child = processes.Child("alignment.fingerprints", tmp_path / "log", os.environ)
    child.finish(ProcessRequest())
    assert (tmp_path / "log").read_text() == ""


def test_stop_ends_a_process_that_still_waits_for_its_request(tmp_path):
    child = processes.Child("code", tmp_path / "log", os.environ)  # reads stdin until it ends
    child.stop()
    child.stop()
    assert child.process.poll() is not None


def gone(pid: int) -> bool:
    """Whether a process has ended. A zombie counts as ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


STAGE = "from alignment.processes import ProcessRequest, run; run('sleeper', ProcessRequest(), pathlib.Path({log!r}), os.environ)"
WORKER = (
    "import sleeper\nfrom data_builders.storage.parallel import ordered_map\n"
    "list(ordered_map(print, [1], initial=sleeper.sleep, argument=None, workers=2))"
)
JOB = "from alignment.export.fresh_process import run_job; run_job('sleeper', {{}})"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG exists on Linux only")
@pytest.mark.parametrize("code", [STAGE, JOB, WORKER], ids=["stage", "job of an export", "worker of a build"])
def test_a_child_dies_when_its_parent_is_killed(tmp_path, code):
    log = tmp_path / "log"
    own = "from alignment.processes import die_with_parent\ndie_with_parent()\nsleep(None)\n"
    job = "from alignment.export.fresh_process import serve_job\nserve_job(sleep)\n"
    (tmp_path / "sleeper.py").write_text(
        "import os, time\nfrom pathlib import Path\n\n\n"
        f"def sleep(_):\n    Path({str(log)!r}).write_text(f'pid {{os.getpid()}}\\n')\n    time.sleep(100)\n\n\n"
        + {STAGE: own, JOB: job, WORKER: ""}[code]
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    code = "import os, pathlib\n" + code.format(log=str(tmp_path / "output"))
    environment = {**os.environ, "PYTHONPATH": paths, "ALIGN_PARENT": "1"}  # as a stage inherits it from its conductor
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < deadline:
            time.sleep(0.05)
        child = int(log.read_text().split()[1])
        assert not gone(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


def test_a_stage_that_a_signal_stopped_stops_its_conductor_too(tmp_path):
    (tmp_path / "stopped.py").write_text("import sys\nsys.stdin.read()\nraise SystemExit(75)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with pytest.raises(processes.StopRequested):
        processes.run("stopped", ProcessRequest(), tmp_path / "x.log", environment)


def test_a_conductor_that_is_stopped_waits_until_its_stage_has_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "def stop(*_):\n    time.sleep(0.5)\n    Path('saved').touch()\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\nPath('begun').touch()\ntime.sleep(60)\n"
    )
    child = processes.Child("slow", tmp_path / "x.log", {**os.environ, "PYTHONPATH": str(tmp_path)})
    child.process.stdin.close()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    child.stop(patience=None)
    assert (tmp_path / "saved").exists() and child.process.returncode == 75

"""Control groups: their limits, their removal, and what `align doctor` says about them."""

import os
from pathlib import Path

import pytest

from alignment.cli import doctor
from alignment.grading import Grader
from alignment.sandbox.inside import cgroups
from alignment.sandbox.self_check import probe_sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a control group."""
    for name in ("cgroup.procs", "memory.max", "memory.swap.max", "pids.max"):
        (tmp_path / name).write_text("")
    (tmp_path / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n")
    return tmp_path


def test_a_group_gets_the_limits_of_its_program(folder: Path) -> None:
    group = cgroups.ProgramGroup(folder)
    group.prepare(1 << 30, 32)
    group.enter()
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.name != "memory.events"}
    assert texts == {"cgroup.procs": "0", "memory.max": str(1 << 30), "memory.swap.max": "0", "pids.max": "34"}
    assert not group.is_free


def test_a_process_killed_at_the_memory_limit_is_noticed_once(folder: Path) -> None:
    group = cgroups.ProgramGroup(folder)
    group.prepare(1 << 30, 32)
    (folder / "memory.events").write_text("low 0\noom_kill 3\n")
    assert group.end() and group.is_free
    group.prepare(1 << 30, 32)
    assert not group.end()


def test_a_process_enters_its_group_and_the_group_is_removed() -> None:
    """The hierarchy of this machine need not have the controllers: groups without controllers are made and removed alike."""
    parent = cgroups.parent_folder(())
    if parent is None:
        pytest.skip("no cgroup v2 in which this user may make groups")
    groups = cgroups.make_groups(parent, ())
    made = parent / f"{cgroups.PREFIX}{os.getpid()}"
    assert len(groups) == cgroups.PROGRAMS and made.is_dir()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        groups[1].enter()
        os.write(writing, Path("/proc/self/cgroup").read_bytes())
        os._exit(0)
    os.waitpid(pid, 0)
    assert f"{made.name}/1" in os.read(reading, 1 << 16).decode()
    cgroups.remove_groups(parent, os.getpid())
    assert not made.exists()


def test_groups_of_a_launcher_that_was_killed_are_removed_later() -> None:
    parent = cgroups.parent_folder(())
    if parent is None:
        pytest.skip("no cgroup v2 in which this user may make groups")
    pid = os.fork()
    if pid == 0:
        cgroups.make_groups(parent, ())
        os._exit(0)
    os.waitpid(pid, 0)
    assert (parent / f"{cgroups.PREFIX}{pid}").exists()
    cgroups.make_groups(parent, ())
    cgroups.remove_groups(parent, os.getpid())
    assert not (parent / f"{cgroups.PREFIX}{pid}").exists()


def test_without_the_controllers_no_folder_is_used() -> None:
    assert cgroups.parent_folder(("memory", "no_such_controller")) is None


def test_the_doctor_says_what_isolates_and_limits_programs(grader: Grader) -> None:
    report = probe_sandbox()
    text = "\n".join(report["holds"])
    for word in (
        "isolation:",
        "memory:" if cgroups.parent_folder() is None else "control group",
        "processes: limited",
        "CPU time",
    ):
        assert word in text
    findings = {
        "python": "3", "system": "x", "cores": 1, "memory_gb": 1, "disk_free_gb": 1, "devices": [], "packages": {}, "optional": [],
        "sandbox": report, "languages": [],
    }  # fmt: skip
    assert all(f"  {clause}" in doctor.describe(findings) for clause in report["holds"])

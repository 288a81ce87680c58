"""The folder of DeepSpeed's compiled extensions, and the locks of builds that were killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from alignment.cache import cache_root
from alignment.chain import deepspeed_extensions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to see who holds a file open")
# A build by torch: the lock is a file that exists and is held open.
BUILDER = "import sys, time\nfile = open(sys.argv[1], 'x')\nprint('holds', flush=True)\ntime.sleep(100)\n"


@pytest.fixture
def lock(tmp_path):
    (tmp_path / "deepspeed_shm_comm").mkdir()
    return tmp_path / "deepspeed_shm_comm" / "lock"


def prepared(folder):
    """The environment of a stage after its preparation."""
    environment = {"HOME": "/home/x", "PATH": "/bin", deepspeed_extensions.VARIABLE: str(folder)}
    deepspeed_extensions.prepare(environment)
    return environment


def test_the_lock_of_a_running_build_is_kept_and_that_of_a_killed_one_is_removed(lock, tmp_path):
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, str(lock)], stdout=subprocess.PIPE)
    try:
        assert builder.stdout.readline() == b"holds\n"
        prepared(tmp_path)
        assert lock.exists()
    finally:
        builder.kill()
        builder.wait()
    assert lock.exists()
    prepared(tmp_path)
    assert not lock.exists()


def test_a_lock_that_can_not_be_removed_is_an_error_that_names_it(lock, tmp_path, monkeypatch):
    lock.touch()

    def denied(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", denied)
    with pytest.raises(ValueError, match=rf"{lock}: .*Permission denied.*: delete this file"):
        prepared(tmp_path)


def test_nothing_but_locks_is_touched(lock, tmp_path):
    (lock.parent / "deepspeed_shm_comm.so").touch()
    prepared(tmp_path)
    assert [path.name for path in lock.parent.iterdir()] == ["deepspeed_shm_comm.so"]


def test_the_folder_is_the_users_own_choice_or_one_per_machine_and_version(monkeypatch):
    assert deepspeed_extensions.build_folder({deepspeed_extensions.VARIABLE: "/own"}) == Path("/own")
    monkeypatch.setenv("ALIGN_CACHE", "/cache")
    folder = deepspeed_extensions.build_folder({})
    assert folder.parent == Path("/cache/extensions")
    assert "torch2" in folder.name and "deepspeed0" in folder.name


def test_the_cache_folder_is_one_variable_or_the_users_cache(monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", "/own")
    assert cache_root() == Path("/own")
    monkeypatch.delenv("ALIGN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_root() == Path("/cache/code-alignment")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert cache_root() == Path("/home/x/.cache/code-alignment")


def test_tools_next_to_the_interpreter_are_on_the_path(tmp_path):
    assert prepared(tmp_path)["PATH"].split(":") == [str(Path(sys.executable).parent), "/bin"]

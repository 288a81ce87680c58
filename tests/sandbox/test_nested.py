"""Containers whose only user is the machine's root, under this or another name.

There the kernel does not apply the process limit to programs and shows them more of /proc. These tests start no floods
of processes, because nothing would stop them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTAINERS = {
    "root": ["--map-root-user", "--pid", "--fork", "--mount", "--mount-proc"],
    "plain_user": ["--map-user=1000", "--map-group=1000"],
}
ROOT = Path(__file__).resolve().parents[2]
START = """
import sys, warnings
from alignment.sandbox import Slot, SandboxUnavailable
from alignment.sandbox.launcher_settings import launcher_settings
warnings.simplefilter("ignore")
slot = Slot(launcher_settings(allow_weaker=sys.argv[1] == "consent"))
try:
    slot.start()
    print("namespaces" if slot.settings.namespaces else "alone", slot.notes)
except SandboxUnavailable as error:
    print("refused", error)
slot.close()
"""
REACH = """
import json
from alignment.grading import Grader, Limits
from tests.sandbox.hostile_hosts import REACH, reaching
task = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "contained"}]})}
with Grader(workers=1, allow_weaker=True, limits=Limits(cpu_seconds=3, wall_seconds=4)) as grader:
    verdicts = grader.grade_many([(task, reaching(name)) for name in REACH])
print(json.dumps({name: verdict.status for name, verdict in zip(REACH, verdicts)}))
"""


def _inside(options: list[str], text: str, *arguments: str) -> str:
    command = ["unshare", "--user", *options]
    if os.geteuid() != 0:
        pytest.skip("only root can make a container whose only user is the machine's root")
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow containers")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(":"),
    }
    done = subprocess.run(
        [*command, sys.executable, "-c", text, *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("container", CONTAINERS)
def test_without_consent_the_sandbox_is_refused_with_reason_and_remedy(container: str) -> None:
    output = _inside(CONTAINERS[container], START, "none")
    assert output.startswith("refused") and "limit on processes" in output, output
    assert "--user" in output and "allow_weaker" in output, output


@pytest.mark.parametrize("container", CONTAINERS)
def test_with_consent_there_are_namespaces_and_the_notes_say_what_is_weaker(container: str) -> None:
    output = _inside(CONTAINERS[container], START, "consent")
    assert output.startswith("namespaces ['weaker: the limit on processes has no effect"), output


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize(("user", "holds"), [(54321, "True"), (0, "False")])
@pytest.mark.parametrize("name", [0, 1000])
def test_only_the_machines_root_escapes_the_process_limit(name: int, user: int, holds: str) -> None:
    """Users of rootless containers, including their root, are plain users of the machine and are not refused."""
    text = f"""
import os
from alignment.sandbox.inside import jail, kernel
os.setgroups([])
os.setresgid({user}, {user}, {user})
os.setresuid({user}, {user}, {user})
kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
kernel.unshare(kernel.CLONE_NEWUSER)
kernel.map_user({name}, {user}, {user})
print(os.getuid(), jail.limit_on_processes_holds())
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.split() == [str(name), holds], done.stderr


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_host_is_out_of_reach_of_a_program_that_is_root_to_the_kernel(container: str) -> None:
    statuses = json.loads(_inside(CONTAINERS[container], REACH))
    assert set(statuses.values()) == {"passed"}, statuses

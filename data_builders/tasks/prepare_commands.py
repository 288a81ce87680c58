"""Run the commands of `tests.prepare` on a copy of a snapshot in the sandbox, and collect the files that they make."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignment.grading.repository import ROOT
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot
from data_builders.cleaning.secrets import redact

LIMITS = Limits(
    cpu_seconds=1800, wall_seconds=1800, memory_bytes=8 << 30, processes=256, files=1024, file_bytes=256 << 20,
    tmp_bytes=2 << 30, tmp_inodes=1 << 17, output_bytes=16 << 20, reply_bytes=512 << 20,
)  # fmt: skip
_DRIVER = """
import os, subprocess, sys, tarfile, shutil
from pathlib import Path
commands = sys.argv[1:]
work = Path("/tmp/build")
shutil.copytree("{root}", work, symlinks=True)
known = {{path for path in work.rglob("*")}}
tools = Path("/tmp/tools")
tools.mkdir()
for name in ("python", "python3"):
    (tools / name).symlink_to(sys.executable)
os.environ["PATH"] = f"{{tools}}:{{os.environ['PATH']}}"
for command in commands:
    code = subprocess.run(["/bin/sh", "-c", command], cwd=work, stdin=subprocess.DEVNULL).returncode
    if code:
        sys.exit(f"the command ended with exit code {{code}}: {{command}}")
with tarfile.open("/tmp/prepared.tar", "w") as archive:
    for path in sorted(work.rglob("*")):
        if path not in known and path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            archive.add(path, path.relative_to(work).as_posix(), recursive=False)
"""


def prepared_files(
    name: str, tree: Path, commands: Sequence[str], settings: LauncherSettings, environment: Mapping[str, str]
) -> dict[str, bytes]:
    """Run shell commands in a copy of a tree. Return the content of the files that the commands added, keyed by path.

    Changes of existing files are not returned, because functions are masked in the files of the commit.

    Args:
        name: name of the repository, for error messages.
        tree: folder with the files of the repository.
        commands: shell commands, run in order in the copy. `python` is the interpreter of the tests.
        settings: settings of the sandbox, which must mount `tree` at `ROOT`.
        environment: environment variables of the commands.

    Raises:
        ValueError: a command failed. The message contains the end of the output.
    """
    header = {
        "files": [], "command": [settings.interpreter, "-c", _DRIVER.format(root=ROOT), *commands],
        "environment": {**environment, "PYTHONPATH": ":".join(settings.packages)}, "collect": ["prepared.tar"],
    }  # fmt: skip
    slot = Slot(settings)
    try:
        (run,) = slot.run([Program("command", header, limits=LIMITS, address_space=False)])
    except SandboxUnavailable:
        raise
    except SandboxError as error:
        raise ValueError(f"{name}: the commands of `tests.prepare` could not be run: {error}") from None
    finally:
        slot.close()
    if run.stop is not None or run.code != 0:
        lines = (run.stdout + b"\n" + run.stderr).decode(errors="replace").strip().splitlines()
        reason = f" ({run.stop})" if run.stop else ""
        raise ValueError(f"{name}: `tests.prepare` failed{reason}: {redact('; '.join(lines[-6:])[-1500:]).text}")
    head, _, data = run.reply.partition(b"\n")
    sizes = json.loads(head)["files"]
    added: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data[: sizes[0][1]])) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and not {"", ".", ".."} & set(member.name.split("/")):
                added[member.name] = content.read()
    return added

"""Folders below the machine's /tmp that programs see, although each program has a /tmp of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment.grading import Grader
from alignment.sandbox import Program, ProgramRun, SandboxUnavailable, Slot
from alignment.sandbox.launcher_settings import launcher_settings


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """``/tmp/<name>/deep/packages`` with a module, and a file in its parent that is not shown."""
    top = Path(tempfile.mkdtemp(dir="/tmp", prefix="below-"))
    packages = top / "deep" / "packages"
    packages.mkdir(parents=True)
    (packages / "below.py").write_text("VALUE = 42\n")
    (top / "deep" / "private.txt").write_text("private")
    for path in (top, top / "deep", packages):
        path.chmod(0o755)
    yield packages
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def slot(folder: Path) -> Iterator[Slot]:
    started = Slot(launcher_settings(extra=[str(folder)]))
    try:
        started.start()
    except SandboxUnavailable as error:
        pytest.skip(f"this machine refuses the sandbox: {error}")
    yield started
    started.close()


def _run(slot: Slot, folder: Path, text: str) -> ProgramRun:
    lines = f"import os, sys\nF = {str(folder)!r}\nTOP = '/'.join(F.split('/')[:3])\nsys.path.insert(0, F)\n{text}"
    return slot.run([Program("main", {"environment": {}}, lines.encode())])[0]


def test_the_shown_folder_is_readable(slot: Slot, folder: Path) -> None:
    assert _run(slot, folder, "import below; print(below.VALUE, below.__file__)").stdout.decode() == (
        f"42 {folder}/below.py\n"
    )


def test_nothing_else_of_that_folder_is_shown(slot: Slot, folder: Path) -> None:
    run = _run(slot, folder, "print(TOP[5:] in os.listdir('/tmp'), os.listdir(TOP), os.listdir(TOP + '/deep'))")
    assert run.stdout == b"True ['deep'] ['packages']\n", run


@pytest.mark.parametrize(
    "attack",
    [
        "open(F + '/below.py', 'w')",
        "open(F + '/sitecustomize.py', 'w')",
        "os.unlink(F + '/below.py')",
        "os.chmod(F + '/below.py', 0o777)",
        "os.mkdir(TOP + '/other')",
        "os.rmdir(TOP)",
        "os.rename(TOP, '/tmp/moved')",
        "os.rename(TOP + '/deep', '/tmp/moved')",
        "os.rename(F, '/tmp/moved')",
        "os.mkdir('/tmp/mine'); os.rename('/tmp/mine', TOP)",
        "os.symlink('/usr', '/tmp/link'); os.replace('/tmp/link', TOP)",
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
        "if l.renameat2(-100, TOP.encode(), -100, b'/tmp/mine', 2): raise OSError(ctypes.get_errno(), '')",
    ],
)
def test_no_program_can_change_or_replace_the_shown_folder(slot: Slot, folder: Path, attack: str) -> None:
    text = f"os.makedirs('/tmp/mine', exist_ok=True)\ntry:\n    exec({attack!r})\nexcept OSError as error: print('refused')"
    run = _run(slot, folder, text)
    assert run.stdout == b"refused\n", run
    assert _run(slot, folder, "import below; print(below.VALUE)").stdout == b"42\n"
    assert (folder / "below.py").read_text() == "VALUE = 42\n"


def test_a_programs_tmp_is_not_shared(slot: Slot, folder: Path) -> None:
    _run(slot, folder, "open('/tmp/mine', 'w').write('x')")
    assert _run(slot, folder, "print(os.path.exists('/tmp/mine'))").stdout == b"False\n"
    assert not os.path.exists("/tmp/mine")


def test_a_repository_is_graded_with_an_environment_below_tmp(grader: Grader, folder: Path, tmp_path: Path) -> None:
    from data_builders.repositories.sources import resolve
    from data_builders.tasks.python.python_suite import prepare_suite

    environment = folder.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "installed_below.py").write_text("def double(x): return 2 * x\n")
    repository = tmp_path / "tiny"
    repository.mkdir()
    (repository / "tiny.py").write_text(
        "from installed_below import double\n\n\ndef four(x):\n    return double(double(x))\n"
    )
    (repository / "test_tiny.py").write_text("from tiny import four\n\n\ndef test_four():\n    assert four(2) == 8\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
        prepared = prepare_suite(resolve([str(repository)])[0], interpreter=environment / "bin" / "python")
        (function,) = prepared.functions
        tests = {
            "suite": prepared.id,
            "tier": "A",
            "target": function.target(),
            "visible": prepared.tests,
            "hidden": [],
        }
        task = {"kind": "pytest", "language": "python", "entry_point": "four", "tests": tests}
        verdicts = grader.grade_many([(task, "    return double(x) * 2"), (task, "    return double(x)")])
    assert [verdict.status for verdict in verdicts] == ["passed", "failed"], (
        verdicts,
        prepared.snapshot.data["problems"],
    )

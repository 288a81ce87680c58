"""The reason why the chain stopped is the last thing on the screen, whichever launcher started it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.launch import accelerate_launcher

# Fails as accelerate's launcher does if its script fails.
FAILING_LAUNCHER = (
    "import subprocess, sys\n"
    "done = subprocess.run([sys.executable, '-c', sys.argv[1]])\n"
    "raise subprocess.CalledProcessError(done.returncode, 'script')\n"
)
EXPLAINING_SCRIPT = (
    "from alignment.launch.accelerate_launcher import explain; explain('stopped: why'); raise SystemExit(1)"
)


def launch(tmp_path, *options):
    script = tmp_path / "accelerate"
    script.write_text(FAILING_LAUNCHER)
    command = [sys.executable, str(script), EXPLAINING_SCRIPT, *options]
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": "no", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, to see the parent process")
def test_the_reason_is_printed_again_below_the_traceback_of_the_launcher(tmp_path):
    done = launch(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stopped: why\n") and done.stderr.endswith("stopped: why\n")
    assert "CalledProcessError" in done.stderr


def test_the_reason_is_printed_once_if_the_launcher_is_quiet(tmp_path):
    assert launch(tmp_path, "--quiet").stderr.count("stopped: why") == 1


def test_the_reason_goes_into_the_error_file_of_torchs_agent(tmp_path, capsys):
    file = tmp_path / "error.json"
    accelerate_launcher.explain(
        "stopped: why", {"ACCELERATE_X": "1", "RANK": "0", "TORCHELASTIC_ERROR_FILE": str(file)}
    )
    error = json.loads(file.read_text())
    assert error["message"] == "stopped: why" and abs(error["timestamp"] - time.time()) < 60
    assert capsys.readouterr().err == "stopped: why\n"


def test_without_a_launcher_the_reason_is_printed_once(capsys):
    accelerate_launcher.explain("stopped: why", {})
    assert capsys.readouterr().err == "stopped: why\n"


@pytest.mark.parametrize(
    ("codes", "code", "expected"),
    [({0: 1}, 1, ""), ({0: 1, 1: -15}, 1, ""), ({0: -9}, 1, "process 0 was killed by signal 9"), ({1: 3}, 3, "")],
)
def test_a_signal_is_reported_if_no_process_explained_itself(codes, code, expected, capsys):
    assert accelerate_launcher.exit_code(codes) == code
    printed = capsys.readouterr().err
    assert expected in printed and bool(expected) == bool(printed)


def test_after_ctrl_c_the_script_prints_last_and_there_is_no_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "try:\n    print('begun', flush=True)\n    time.sleep(100)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5)\n    print('the end', file=sys.stderr)\n    sys.exit(130)\n"
    )
    # Without a terminal, a shell that started the tests in the background may have made SIGINT be ignored.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from alignment.launch.accelerate_launcher import main; sys.exit(main(sys.argv[1:]))"
    )
    config = Path(__file__).resolve().parents[2] / "accelerate_configs" / "cpu.yaml"
    command = [sys.executable, "-c", code, "--config_file", str(config), str(script)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert errors.endswith("the end\n") and "Traceback" not in errors

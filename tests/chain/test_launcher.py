"""The last word: what the user reads at the end, whatever launcher started the chain."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.launch import accelerate_launcher

# A process that does what accelerate's launcher does with a script that fails.
RAISES = (
    "import subprocess, sys\n"
    "done = subprocess.run([sys.executable, '-c', sys.argv[1]])\n"
    "raise subprocess.CalledProcessError(done.returncode, 'script')\n"
)
SPEAKS = "from alignment.launch.accelerate_launcher import explain; explain('stopped: why'); raise SystemExit(1)"


def launch(tmp_path, *options):
    script = tmp_path / "accelerate"
    script.write_text(RAISES)
    command = [sys.executable, str(script), SPEAKS, *options]
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": "no", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what started us")
def test_what_stopped_the_chain_is_said_again_below_the_launchers_traceback(tmp_path):
    done = launch(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stopped: why\n") and done.stderr.endswith("stopped: why\n")
    assert "CalledProcessError" in done.stderr


def test_a_launcher_that_keeps_quiet_is_not_talked_over(tmp_path):
    assert launch(tmp_path, "--quiet").stderr.count("stopped: why") == 1


def test_torchs_agent_is_told_why(tmp_path, capsys):
    file = tmp_path / "error.json"
    accelerate_launcher.explain(
        "stopped: why", {"ACCELERATE_X": "1", "RANK": "0", "TORCHELASTIC_ERROR_FILE": str(file)}
    )
    told = json.loads(file.read_text())
    assert told["message"] == "stopped: why" and abs(told["timestamp"] - time.time()) < 60
    assert capsys.readouterr().err == "stopped: why\n"


def test_without_a_launcher_it_is_said_once(capsys):
    accelerate_launcher.explain("stopped: why", {})
    assert capsys.readouterr().err == "stopped: why\n"


@pytest.mark.parametrize(
    ("codes", "code", "said"),
    [({0: 1}, 1, ""), ({0: 1, 1: -15}, 1, ""), ({0: -9}, 1, "process 0 was killed by signal 9"), ({1: 3}, 3, "")],
)
def test_only_a_death_that_nobody_explained_is_told(codes, code, said, capsys):
    assert accelerate_launcher.exit_code(codes) == code
    printed = capsys.readouterr().err
    assert said in printed and bool(said) == bool(printed)


def test_ctrl_c_lets_the_script_have_the_last_word_and_shows_no_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "try:\n    print('begun', flush=True)\n    time.sleep(100)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.5)\n    print('the last word', file=sys.stderr)\n    sys.exit(130)\n"
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
    assert errors.endswith("the last word\n") and "Traceback" not in errors

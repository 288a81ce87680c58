"""If a process dies, the launcher restarts all of them, and training resumes."""

import json
import subprocess
import time

import psutil
import pytest
import tiny

pytestmark = pytest.mark.slow


def stage_of_rank(launcher, rank):
    """Return the process below a launcher that trains as `rank`, or None if there is no such process."""
    for process in psutil.Process(launcher).children(recursive=True):
        try:
            if "alignment.stages" in process.cmdline() and process.environ().get("RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    return None


def test_a_lost_process_is_replaced_by_the_launcher_and_training_resumes(make_workshop, tmp_path):
    folder = make_workshop()
    stage = tiny.stages()["sft"]
    stage["train"] |= {"per_device_train_batch_size": 2, "max_steps": 60, "save_steps": 2}
    command = tiny.command(tiny.write_recipe(folder, {"sft": stage}), config="ddp", processes=2)
    at = command.index("--config_file")
    command[at:at] = ["--max_restarts", "1"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, env=tiny.environment())
        try:
            artifacts = folder / "runs" / "tiny" / "artifacts"
            while run.poll() is None and not list(artifacts.glob("sft-*/checkpoints/checkpoint-4/whole-1.json")):
                time.sleep(0.02)
            lost = stage_of_rank(run.pid, 1)
            assert lost is not None, "training ended before a process could be lost"
            lost.kill()
            assert run.wait(600) == 0, (tmp_path / "log").read_text()
        finally:
            run.kill()
            run.wait()
    assert "resumes from checkpoint-" in (tmp_path / "log").read_text()
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["metrics"]["steps"] == 60 and artifact["world_size"] == 2

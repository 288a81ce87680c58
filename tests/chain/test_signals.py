"""Stop signals: training saves a checkpoint at the end of its step, the run ends with code 75, and the next run
resumes.
"""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import tiny

pytestmark = pytest.mark.slow

STEPS = 40


def recipe(folder, kind="sft", **train):
    stage = tiny.stages()[kind]
    stage["train"] |= {"max_steps": STEPS, "save_steps": 1000, "per_device_train_batch_size": 2, **train}
    return tiny.write_recipe(folder, {kind: stage})


def launcher(path, *options, config="cpu", processes=1):
    """The command that `align run` becomes."""
    command = tiny.command(path, *options, config=config, processes=processes)
    command[command.index("accelerate.commands.launch")] = "alignment.launch.accelerate_launcher"
    return command


def processes_below(launcher_pid, word):
    """Processes below a launcher with a word on their command line."""
    below = []
    for process in psutil.Process(launcher_pid).children(recursive=True):
        try:
            if any(word in argument for argument in process.cmdline()):
                below.append(process)
        except psutil.Error:
            continue
    return below


def stopped(command, folder, number, send, kind="sft", steps=2):
    """Run a command, send a signal after some steps, and return the exit code and the output."""
    with (folder / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, env=tiny.environment(), start_new_session=True)
        try:
            metrics = folder / "runs" / "tiny" / "artifacts"
            while run.poll() is None:
                files = list(metrics.glob(f"{kind}-*/metrics.jsonl"))
                if files and len(files[0].read_text().splitlines()) >= steps:
                    break
                time.sleep(0.02)
            assert run.poll() is None, (folder / "log").read_text()
            send(run, number)
            code = run.wait(600)
            while processes_holding(folder):
                time.sleep(0.1)
            return code, (folder / "log").read_text()
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def processes_holding(folder):
    """Processes of a run in this folder that have not ended yet."""
    alive = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        try:
            words = process.info["cmdline"] or []
            if any(str(folder) in word for word in words):
                alive.append(process)
        except psutil.Error:
            continue
    return alive


def to_launcher(run, number):
    run.send_signal(number)


def to_group(run, number):
    os.killpg(run.pid, number)


def to_conductor(run, number):
    processes_below(run.pid, "run.py")[0].send_signal(number)


def to_stage(run, number):
    processes_below(run.pid, "alignment.stages")[0].send_signal(number)


def checkpoints(folder, kind="sft"):
    return sorted(
        int(path.parent.name.rpartition("-")[2])
        for path in (folder / "runs" / "tiny" / "artifacts").glob(f"{kind}-*/checkpoints/checkpoint-*/whole-0.json")
    )


@pytest.fixture(scope="module")
def undisturbed(make_workshop):
    """The weights of a run without interruption."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder))
    assert done.returncode == 0, tiny.output(done)
    return (folder / "runs" / "tiny" / "sft" / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (to_launcher, signal.SIGTERM),
        (to_launcher, signal.SIGUSR1),
        (to_group, signal.SIGTERM),
        (to_conductor, signal.SIGTERM),
        (to_stage, signal.SIGUSR1),
    ],
)
def test_a_stopped_run_saves_ends_with_75_and_resumes_to_the_same_weights(send, number, undisturbed, make_workshop):
    folder = make_workshop()
    path = recipe(folder)
    code, log = stopped(launcher(path), folder, number, send)
    saved = checkpoints(folder)
    assert code == 75 and len(saved) == 1 and 2 <= saved[0] < STEPS, log
    assert "a stop signal: saving step" in log and "Run the same command again to resume." in log
    assert "Traceback" not in log
    done = tiny.launch(path)
    assert done.returncode == 0 and f"resumes from checkpoint-{saved[0]}" in tiny.output(done)
    assert (folder / "runs" / "tiny" / "sft" / "model" / "model.safetensors").read_bytes() == undisturbed


def test_a_launcher_that_dies_of_the_signal_leaves_a_checkpoint_too(make_workshop):
    """`accelerate launch` itself passes no signal on; the run ends with its launcher, and another run waits for
    that.
    """
    folder = make_workshop()
    path = recipe(folder)
    code, log = stopped(tiny.command(path), folder, signal.SIGTERM, to_group)
    assert code == -signal.SIGTERM and len(checkpoints(folder)) == 1, log


@pytest.mark.parametrize("config", ["ddp", "zero2"])
def test_two_processes_stop_after_the_same_step_and_are_not_restarted(config, make_workshop):
    folder = make_workshop()
    path = recipe(folder)
    command = launcher(path, config=config, processes=2)
    at = command.index("--config_file")
    command[at:at] = ["--max_restarts", "3"]
    code, log = stopped(command, folder, signal.SIGTERM, to_launcher)
    saved = checkpoints(folder)
    assert code == 75 and len(saved) == 1, log
    assert log.count("sft (sft) ...") == 1
    done = tiny.launch(path, config=config, processes=2)
    assert done.returncode == 0 and f"resumes from checkpoint-{saved[0]}" in tiny.output(done)


def test_a_signal_to_one_rank_stops_all(make_workshop):
    folder = make_workshop()
    path = recipe(folder)

    def to_rank_1(run, number):
        (stage,) = [
            p
            for p in processes_below(run.pid, "alignment.stages")
            if p.environ().get("RANK") == "1" and "alignment.stages" in p.cmdline()
        ]
        stage.send_signal(number)

    code, log = stopped(launcher(path, config="ddp", processes=2), folder, signal.SIGTERM, to_rank_1)
    assert code == 75 and len(checkpoints(folder)) == 1, log


def test_grpo_stops_where_completions_are_generated_anew(make_workshop):
    folder = make_workshop()
    path = recipe(folder, "grpo", per_device_train_batch_size=4, steps_per_generation=3, max_steps=12)
    code, log = stopped(launcher(path), folder, signal.SIGTERM, to_launcher, kind="grpo", steps=1)
    assert code == 75 and checkpoints(folder, "grpo")[0] % 3 == 0, log


def test_a_stage_that_does_not_train_ends_at_once(tmp_path):
    stage = tmp_path / "slow.py"
    stage.write_text(
        "import time\ndef run(request):\n    (request.out / 'begun').touch()\n    time.sleep(60)\n    return {}\n"
    )
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_text("")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: tiny\noutput: runs\nmodel: {path: base}\nstages: [{name: slow, kind: custom, run: 'slow.py:run'}]\n"
    )
    run = subprocess.Popen(launcher(path), env=tiny.environment(), stderr=subprocess.PIPE, text=True)
    while run.poll() is None and not list((tmp_path / "runs" / "tiny" / "artifacts").glob("slow-*/begun")):
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(600) == 75 and "Run the same command again" in run.communicate()[1]


def test_the_launcher_waits_for_a_child_that_is_only_starting(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys, time\nopen(sys.argv[1], 'w').close()\ntime.sleep(1)\n"
        "def stop(*_):\n    sys.exit(7)\nsignal.signal(signal.SIGTERM, stop)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\ntime.sleep(60)\n"
    )
    config = tiny.ROOT / "accelerate_configs" / "cpu.yaml"
    command = [sys.executable, "-m", "alignment.launch.accelerate_launcher", "--config_file", str(config)]
    run = subprocess.Popen([*command, str(script), str(tmp_path / "begun")], env=tiny.environment())
    while run.poll() is None and not (tmp_path / "begun").exists():
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(600) == 7

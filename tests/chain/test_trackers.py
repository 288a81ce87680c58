"""MLflow and Trackio: what a run shows, how a stage continues its run, and servers that do not answer."""

from __future__ import annotations

import importlib.util
import json
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.recipe import Tracking
from alignment.recipe.stage_request import StageRequest
from alignment.stages.tracker_callback import TrackerCallback
from alignment.tracking import background_tracker
from alignment.tracking.background_tracker import BackgroundTracker, TrackedRun
from alignment.tracking.stage_trackers import log_figures, open_trackers

RUN = TrackedRun("project", "mine", "mine/sft", "mine-sft-0123")


class MemoryBackend:
    """Keeps everything in memory. The first `failures` calls raise an error."""

    name = "memory"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.logged: list[tuple[dict[str, float], int]] = []
        self.states: list[str] = []

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no server")

    def start(self, run):
        self._fail()
        self.states.append(run.key)

    def log(self, metrics, step, seconds):
        self._fail()
        self.logged.append((dict(metrics), step))

    def finish(self):
        self.states.append("finished")


@pytest.fixture
def request_of(tmp_path):
    def make(fingerprint="0123456789abcdef", **tracking):
        stage = {"name": "sft", "kind": "sft", "data": [{"data": "rows.jsonl"}], "train": {"learning_rate": 1e-4}}
        settings = Tracking(wandb="disabled", **tracking)
        out = tmp_path / "runs" / "mine" / "artifacts" / f"sft-{fingerprint[:12]}"
        return StageRequest.for_stage(stage, out, tracking=settings, recipe="mine", fingerprint=fingerprint)

    return make


def log_steps(request, *steps):
    for tracker in open_trackers(request):
        for step in steps:
            tracker.log({"loss": 2.0 / step, "rewards/mean": 0.5}, step)
        tracker.finish()


def test_the_callback_sends_numbers_and_ends_the_run():
    backend = MemoryBackend()
    callback = TrackerCallback([BackgroundTracker(backend, RUN)])
    state, control = TrainerState(global_step=3), TrainerControl()
    args = TrainingArguments(output_dir="unused", report_to=[])
    callback.on_log(args, state, control, logs={"loss": 1.5, "text": "private code", "grad_norm": float("nan")})
    callback.on_log(args, state, control, logs={"text": "nothing to send"})
    callback.on_train_end(args, state, control)
    assert backend.logged == [({"loss": 1.5}, 3)] and backend.states == [RUN.key, "finished"]


def test_metrics_are_sent_again_after_an_error(monkeypatch, caplog):
    monkeypatch.setattr(background_tracker, "RETRY_SECONDS", 0.01)
    backend = MemoryBackend(failures=3)
    tracker = BackgroundTracker(backend, RUN)
    for step in range(5):
        tracker.log({"loss": 1.0}, step)
    tracker.finish()
    assert [step for _, step in backend.logged] == [0, 1, 2, 3, 4]
    assert caplog.text.count("no server") <= 1  # one warning, not one for each step


def test_a_full_queue_drops_metrics_and_never_blocks(monkeypatch):
    monkeypatch.setattr(background_tracker, "QUEUE_SIZE", 3)
    tracker = BackgroundTracker(MemoryBackend(failures=10**6), RUN)
    for step in range(50):
        tracker.log({"loss": 1.0}, step)
    tracker.finish(seconds=0.1)
    assert tracker.dropped >= 46


@pytest.mark.parametrize("answers", [False, True], ids=["closed port", "server that never answers"])
def test_training_goes_on_without_the_server(request_of, answers):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(1)  # connections are accepted by the kernel, and nobody answers
        (tracker,) = open_trackers(request_of(mlflow=f"http://127.0.0.1:{server.getsockname()[1]}"))
        begun = time.process_time()
        for step in range(100):
            tracker.log({"loss": 1.0}, step)
        tracker.finish(seconds=0.2)
        assert time.process_time() - begun < 30  # no endless loop; the limit is far above what a run takes


def test_mlflow_has_metrics_settings_and_one_run_for_a_resumed_stage(request_of, tmp_path):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    from mlflow.tracking import MlflowClient

    log_steps(request_of(mlflow="local"), 1, 2)
    log_steps(request_of(mlflow="local"), 3)
    log_steps(request_of(mlflow="local", fingerprint="f" * 16), 1)
    client = MlflowClient(tracking_uri=(tmp_path / "runs" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("code-alignment")
    changed, resumed = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(resumed.info.run_id, "loss")
    assert [(item.step, item.value) for item in history] == [(1, 2.0), (2, 1.0), (3, 2.0 / 3)]
    assert resumed.info.run_name == changed.info.run_name == "mine/sft" and resumed.info.status == "FINISHED"
    assert (
        resumed.data.params["train.learning_rate"] == "0.0001" and resumed.data.tags["code-alignment.recipe"] == "mine"
    )


TRACKIO_RUN = """
import sys
from pathlib import Path
from alignment.tracking.background_tracker import BackgroundTracker, TrackedRun
from alignment.tracking.trackio_backend import TrackioBackend
tracker = BackgroundTracker(TrackioBackend(Path(sys.argv[1])), TrackedRun("shop", "mine", "mine/sft", "mine-sft-0123456789ab"))
for step in map(int, sys.argv[2:]):
    tracker.log({"loss": 1.0 / step}, step)
tracker.finish()
"""


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="the extra `tracking` is not installed")
def test_trackio_continues_the_run_of_a_resumed_stage(tmp_path):
    """In processes of their own: Trackio reads its folder when it is imported."""
    for steps in (["1", "2"], ["4"]):
        command = [sys.executable, "-c", TRACKIO_RUN, str(tmp_path / "trackio"), *steps]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "" and "not all sent" not in done.stderr
    with sqlite3.connect(tmp_path / "trackio" / "shop.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert {name for name, _, _ in rows} == {"mine/sft 0123456789ab"}
    assert [(step, json.loads(metrics)["loss"]) for _, step, metrics in rows] == [(1, 1.0), (2, 0.5), (4, 0.25)]


def test_figures_of_an_evaluation_go_to_the_trackers(request_of, tmp_path):
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    from mlflow.tracking import MlflowClient

    log_figures(request_of(mlflow="local"), [{"benchmark": "humaneval+", "metric": "pass@1", "value": 54.3}])
    client = MlflowClient(tracking_uri=(tmp_path / "runs" / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("code-alignment").experiment_id])
    assert run.data.metrics == {"humaneval_/pass_1": 54.3}


def test_only_rank_0_logs(request_of, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert open_trackers(request_of(mlflow="local")) == []

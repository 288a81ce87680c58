"""Offline runs of W&B: read, joined across starts of a stage, and uploaded with ladder and lineage."""

import contextlib
import json
import struct
import zlib

import pytest

from alignment.cli import main
from alignment.files import write_json
from alignment.tracking.offline_runs import STEP, fill, join, offline_runs, read_offline_run, records

MAGIC = b":W&B\xe1\xbe\x00"


def log_offline(folder, name, rows, number=1, config=None):
    """Write one offline run with wandb itself, as a start of a stage does."""
    import wandb

    suffix, title = (f"-{number}", f" ({number})") if number > 1 else ("", "")
    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        id=f"app-{name}{suffix}", name=f"app/{name}{title}", group="app", project="code-alignment", dir=str(folder), mode="offline",
        config=config or {}, settings=settings, reinit="finish_previous",
    ) as run:  # fmt: skip
        for row in rows:
            run.log(row)
    wandb.teardown()  # waits until the file is written


def steps(first, last, loss=0.0):
    return [{STEP: step, "train/loss": loss + step} for step in range(first, last + 1)]


@pytest.fixture
def wandb_ready(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")  # read once per process, also for later tests
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_NAME", "WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_RESUME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def resumed(wandb_ready, tmp_path):
    """A recipe's folder with a stage that was killed after step 6, and resumed from the checkpoint of step 4."""
    folder = tmp_path / "runs" / "app"
    sft, corpus = folder / "artifacts" / "sft-0123456789ab", folder / "artifacts" / "corpus-aaaaaaaaaaaa"
    log_offline(sft, "sft", steps(1, 6), config={"lr": 1})
    log_offline(sft, "sft", steps(5, 10, loss=0.0), 2, config={"lr": 1})
    write_json(corpus / "artifact.json", {
        "stage": "corpus", "kind": "build", "fingerprint": "a" * 64, "settings": {}, "inputs": {},
        "sources": [{"name": "shop", "commit": "c" * 40, "license": "owned"}],
    })  # fmt: skip
    write_json(sft / "artifact.json", {
        "stage": "sft", "kind": "sft", "fingerprint": "0123456789ab" + "0" * 52, "settings": {"data": [{"data": str(corpus)}]},
        "inputs": {"corpus": "a" * 64}, "model": "base", "base_model": {"path": "/home/ada/models/qwen", "path_digest": "d" * 64},
        "files": [{"path": "/home/ada/private/rows.jsonl", "sha256": "e" * 64}],
    })  # fmt: skip
    entry = {"metric": "fim.pass@1", "n": 9, "low": 1.0, "high": 9.0, "seed": 1}
    write_json(
        folder / "ladder.json", [{**entry, "stage": "base", "value": 4.0}, {**entry, "stage": "sft", "value": 5.0}]
    )
    return folder


def test_the_starts_of_a_stage_are_one_run_with_continuous_steps(resumed):
    joined = join(offline_runs(resumed / "artifacts" / "sft-0123456789ab"))
    assert [row[STEP] for row in joined.rows] == list(range(1, 11))
    assert (joined.id, joined.name, joined.group, joined.starts) == ("app-sft", "app/sft", "app", 2)
    assert joined.config == {"lr": 1}
    assert not any(key.startswith("_") and key != "_timestamp" for row in joined.rows for key in row)


def test_steps_that_wandb_lost_when_its_process_was_killed_come_from_the_metrics_file(wandb_ready, tmp_path):
    log_offline(tmp_path, "sft", steps(1, 2))
    log_offline(tmp_path, "sft", steps(5, 6), 2)
    lines = [{"step": step, "max_steps": 6, "seconds": 1.0, "loss": -step, "eval_loss": 9.0} for step in range(1, 7)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 7, "lo')
    rows = fill(join(offline_runs(tmp_path)), tmp_path / "metrics.jsonl").rows
    assert [row[STEP] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2] == {STEP: 3, "train/loss": -3, "eval/loss": 9.0} and rows[4]["train/loss"] == 5


def test_the_command_writes_the_joined_run_and_the_ladder_as_one_run_each(resumed, tmp_path, capsys):
    assert main(["track", "upload", str(resumed), "--into", str(tmp_path / "joined"), "--project", "shop"]) == 0
    assert "app/sft: 10 rows of 2 starts, run app-sft" in capsys.readouterr().out
    runs = {run.name: run for run in offline_runs(tmp_path / "joined")}
    assert set(runs) == {"app/sft", "app/ladder"} and {run.project for run in runs.values()} == {"shop"}
    assert [row[STEP] for row in runs["app/sft"].rows] == list(range(1, 11))
    assert [row["_step"] for row in runs["app/sft"].rows] == list(range(10))
    ladder = [
        (row["ladder/stage"], row["ladder/fim.pass@1"], row["ladder/fim.pass@1/high"])
        for row in runs["app/ladder"].rows
    ]
    assert ladder == [("base", 4.0, 9.0), ("sft", 5.0, 9.0)]


def test_lineage_is_a_reference_and_no_file(resumed, tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    assert main(["track", "upload", str(resumed), "--into", str(tmp_path / "joined")]) == 0
    (file,) = (tmp_path / "joined").glob("wandb/*app-sft/*.wandb")
    artifacts = [
        record.artifact
        for data in records(file)
        if (record := Record.FromString(data)).WhichOneof("record_type") == "artifact"
    ]
    artifacts += [
        record.request.log_artifact.artifact
        for data in records(file)
        if (record := Record.FromString(data)).HasField("request") and record.request.HasField("log_artifact")
    ]
    contents = [content for artifact in artifacts for content in artifact.manifest.contents]
    assert [content.ref for content in contents] == [f"code-alignment://sft/0123456789ab{'0' * 52}"]
    assert not any(content.local_path for content in contents)


class FakeRun:
    """Stands for an online run: records what would be sent."""

    def __init__(self, calls, **settings):
        self.calls, self.config = calls, self
        calls.append(("init", settings))

    def update(self, values, **_):
        self.calls.append(("config", values))

    def define_metric(self, *_, **__):
        pass

    def log(self, row, step=None):
        self.calls.append(("log", row))

    def use_artifact(self, artifact):
        self.calls.append(("input", artifact))

    def log_artifact(self, artifact):
        self.calls.append(("output", artifact))


@pytest.fixture
def online(monkeypatch, resumed):
    calls = []
    monkeypatch.setattr("wandb.init", lambda **settings: contextlib.nullcontext(FakeRun(calls, **settings)))
    return calls


def test_an_upload_has_inputs_by_digest_and_no_local_path(online, resumed):
    assert main(["track", "upload", str(resumed)]) == 0
    inputs = {call.name: call for kind, call in online if kind == "input"}
    references = {name: [entry.ref for entry in item.manifest.entries.values()] for name, item in inputs.items()}
    assert references == {
        "app-corpus": [f"code-alignment://corpus/{'a' * 64}"],
        "rows.jsonl": [f"sha256://{'e' * 64}"],
        "qwen": [f"sha256://{'d' * 64}"],
    }
    assert inputs["app-corpus"].metadata["repositories"] == [f"shop {'c' * 40}"]
    assert [item.name for kind, item in online if kind == "output"] == ["app-sft"]
    assert "/home/ada" not in str([call for kind, call in online if kind in ("log", "config")])
    assert all("/home/ada" not in json.dumps(item.metadata) for item in inputs.values())


def test_a_second_upload_sends_only_what_is_new(online, resumed):
    stage = resumed / "artifacts" / "sft-0123456789ab"
    assert main(["track", "upload", str(stage)]) == 0
    assert [row[STEP] for kind, row in online if kind == "log"] == list(range(1, 11))
    online.clear()
    assert main(["track", "upload", str(stage)]) == 0
    assert online == []
    later = stage / "wandb" / "offline-run-29990101_000000-app-sft-3"
    write_wandb_file(later / "run-app-sft-3.wandb", steps(9, 12))
    assert main(["track", "upload", str(stage)]) == 0
    assert [row[STEP] for kind, row in online if kind == "log"] == [11, 12]
    assert not [call for kind, call in online if kind == "output"]  # the lineage is there already


def test_another_project_gets_everything(online, resumed):
    stage = resumed / "artifacts" / "sft-0123456789ab"
    for project in ("one", "two"):
        online.clear()
        assert main(["track", "upload", str(stage), "--project", project]) == 0
        assert len([row for kind, row in online if kind == "log"]) == 10


def test_text_is_uploaded_only_on_request(online, resumed):
    stage = resumed / "artifacts" / "sft-0123456789ab"
    (stage / "rollouts").mkdir()
    (stage / "rollouts" / "rank-0.jsonl").write_text(
        '{"step": 1, "completion": "private code", "rewards": {"tests": 1}}\n'
    )
    assert main(["track", "upload", str(stage)]) == 0
    assert not [row for kind, row in online if kind == "log" and "rollouts" in row]
    assert main(["track", "upload", str(stage), "--text"]) == 0
    (table,) = [row["rollouts"] for kind, row in online if kind == "log" and "rollouts" in row]
    assert table.columns == ["step", "completion", "rewards"] and table.data == [[1, "private code", '{"tests": 1}']]


def test_of_an_evaluation_that_started_twice_the_last_results_count(wandb_ready, tmp_path):
    log_offline(tmp_path, "evaluate-sft", [{"fim/pass@1": 1.0}])
    log_offline(tmp_path, "evaluate-sft", [{"fim/pass@1": 2.0}], 2)
    assert [row["fim/pass@1"] for row in join(offline_runs(tmp_path)).rows] == [2.0]


def test_a_folder_without_offline_runs_is_explained(tmp_path, capsys):
    assert main(["track", "upload", str(tmp_path)]) == 1
    assert "has no offline runs of W&B" in capsys.readouterr().err
    assert main(["track", "upload", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def write_wandb_file(file, rows):
    """Write the file of an offline run in wandb's format, with the times of the year 2999."""
    from wandb.proto.wandb_internal_pb2 import Record

    first = Record()
    first.run.run_id, first.run.display_name, first.run.run_group, first.run.project = (
        "app-sft-3",
        "app/sft (3)",
        "app",
        "code-alignment",
    )
    first.run.start_time.seconds = 32_472_144_000
    messages = [first]
    for row in rows:
        message = Record()
        for key, value in row.items():
            message.history.item.add(nested_key=[key], value_json=json.dumps(value))
        messages.append(message)
    file.parent.mkdir(parents=True)
    file.write_bytes(MAGIC + encoded([message.SerializeToString() for message in messages], len(MAGIC)))


def encoded(entries, place=0):
    """Write records as LevelDB's log format has them, from the given offset in the file on."""
    content = b""
    for entry in entries:
        first = True
        while first or entry:
            left = 32768 - (place + len(content)) % 32768
            if left < 7:
                content += b"\0" * left
                continue
            part, entry = entry[: left - 7], entry[left - 7 :]
            kind = (1 if first else 4) if not entry else (2 if first else 3)
            content += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            first = False
    return content


@pytest.mark.parametrize("sizes", [[1, 2, 3], [100_000], [32768 - 14, 5], [32768 - 14 - 3, 9, 70_000, 0, 1]])
def test_records_across_blocks_are_read_whole(tmp_path, sizes):
    entries = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    (tmp_path / "a.wandb").write_bytes(MAGIC + encoded(entries, len(MAGIC)))
    assert list(records(tmp_path / "a.wandb")) == entries


def test_every_cut_of_a_file_gives_the_records_before_it(tmp_path):
    entries = [b"first" * 10, b"second" * 9000, b"third"]
    content = MAGIC + encoded(entries, len(MAGIC))
    for cut in [*range(len(MAGIC), 200), 32768, 40000, len(content) - 1]:
        for rest in (b"", b"\0" * 50):
            (tmp_path / "cut.wandb").write_bytes(content[:cut] + rest)
            whole = list(records(tmp_path / "cut.wandb"))
            assert whole == entries[: len(whole)] and len(whole) < 3


def test_a_damaged_file_is_named(tmp_path):
    content = bytearray(MAGIC + encoded([b"a" * 50, b"b" * 50], len(MAGIC)))
    content[30] ^= 1
    (tmp_path / "bad.wandb").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.wandb is damaged at byte 7"):
        read_offline_run(tmp_path / "bad.wandb")
    (tmp_path / "other.wandb").write_bytes(b"text")
    with pytest.raises(ValueError, match="is not a file of wandb"):
        read_offline_run(tmp_path / "other.wandb")

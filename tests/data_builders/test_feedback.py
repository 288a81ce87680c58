"""The builder `feedback`: logs of editors become rows, split by time, without secrets."""

import json

import pytest

from alignment.rows.feedback_rows import EditorFeedback, feedback_of
from data_builders.builder import BuildContext
from data_builders.feedback import FeedbackSettings, build_feedback


def plain(number, accepted=True, **columns):
    return {
        "prefix": f"def f{number}():\n    return ", "suffix": "\n", "completion": f"value_{number}", "accepted": accepted,
        "time": f"2026-05-{number + 1:02d}T10:00:00Z", **columns,
    }  # fmt: skip


def of_continue(number, accepted=True, **columns):
    return {
        "eventName": "autocomplete", "schema": "0.2.0", "timestamp": f"2026-05-{number + 1:02d}T10:00:00.000Z",
        "userId": "u", "accepted": accepted, "time": 412, "prefix": f"const f{number} = () => ", "suffix": "\n",
        "prompt": "", "completion": f"value{number}", "modelProvider": "ollama", "modelName": "shop", "cacheHit": False,
        "filepath": "src/app.ts", "gitRepo": "git@example.com:shop/app.git", "completionId": str(number), **columns,
    }  # fmt: skip


@pytest.fixture
def build(tmp_path):
    """Function that writes a log, runs the builder, and returns the report and the rows of its files."""

    def run(lines, **settings):
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        values = FeedbackSettings.model_validate({"logs": [str(tmp_path / "log.jsonl")], **settings})
        account = build_feedback(values, BuildContext(out))
        files = {file.stem: file.read_text().splitlines() for file in out.glob("*.jsonl")}
        return account, {name: [json.loads(line) for line in text] for name, text in files.items()}

    return run


def test_the_newest_events_are_held_out(build):
    account, rows = build([plain(number, number % 2 == 0) for number in (3, 1, 0, 2, 4)], held_out=0.4)
    assert [row["completion"] for row in rows["feedback"]] == ["value_0", "value_1", "value_2"]
    assert [row["completion"] for row in rows["heldout"]] == ["value_3", "value_4"]
    assert [row["middle"] for row in rows["heldout-fim"]] == ["value_4"]
    assert max(row["time"] for row in rows["feedback"]) < min(row["time"] for row in rows["heldout"])
    assert account["rows"] == {"heldout_accepted": 1, "heldout_rejected": 1, "train_accepted": 2, "train_rejected": 1}


def test_the_rows_are_feedback_that_a_kto_stage_reads(build):
    _, rows = build([plain(0), of_continue(1, False)], held_out=0.0)
    first, second = (feedback_of(row, "row") for row in rows["feedback"])
    assert first == EditorFeedback("def f0():\n    return ", "\n", "value_0", True)
    assert second == EditorFeedback("const f1 = () => ", "\n", "value1", False)
    assert rows["feedback"][1]["language"] == "typescript" and rows["feedback"][1]["path"] == "src/app.ts"


def test_events_without_a_decision_or_text_are_counted(build):
    lines = [
        plain(0),
        of_continue(1, None),
        plain(2, completion="  "),
        {"eventName": "chatInteraction"},
        plain(4, False),
    ]
    account, rows = build(lines, held_out=0.0)
    assert len(rows["feedback"]) == 2
    assert account["left_out"] == {"empty": 1, "events": 5, "no_decision": 1, "other_event": 1}


def test_of_repeated_events_the_last_decision_counts(build):
    lines = [plain(0, False), {**plain(0, True), "time": "2026-05-20T10:00:00Z"}]
    account, rows = build(lines, held_out=0.0)
    assert [row["label"] for row in rows["feedback"]] == [True] and account["left_out"]["repeated"] == 1


def test_surplus_rejected_events_are_left_out_oldest_first(build):
    lines = [plain(0, False), plain(1, False), plain(2, True), plain(3, False)]
    account, rows = build(lines, held_out=0.0, rejected_per_accepted=2.0)
    assert [row["completion"] for row in rows["feedback"]] == ["value_1", "value_2", "value_3"]
    assert account["left_out"]["surplus_rejected"] == 1


def test_secrets_in_code_before_the_cursor_are_replaced(build):
    prefix = 'AWS_SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYzK3pQ9sLmT2v"\nclient = '
    account, rows = build([plain(0, prefix=prefix), plain(1, False)], held_out=0.0)
    assert "wJalrXUtnFEMI" not in json.dumps(rows) and account["left_out"]["redacted"] == 1


def test_times_may_be_seconds_or_milliseconds(build):
    lines = [plain(0, time=1_780_000_000_000), plain(1, time=1_770_000_000), plain(2, False, time="2026-01-01")]
    _, rows = build(lines, held_out=0.0)
    assert [row["completion"] for row in rows["feedback"]] == ["value_2", "value_1", "value_0"]


def test_long_contexts_are_cut_around_the_cursor(build):
    lines = [plain(0, prefix="a" * 50 + "b", suffix="c" + "d" * 50), plain(1, False)]
    _, rows = build(lines, held_out=0.0, max_prefix_characters=2, max_suffix_characters=2)
    assert (rows["feedback"][0]["prefix"], rows["feedback"][0]["suffix"]) == ("ab", "cd")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"completion": "a"}, "no text in `prefix`"),
        (plain(0, accepted="yes"), "`accepted` must be true or false"),
        (plain(0, time="yesterday"), "`time` must be an ISO 8601 time"),
        (plain(0, time=None), "`time` must be an ISO 8601 time"),
        (plain(0, suffix=1), "`suffix` must be text"),
        (plain(0, accepted=None), "no event with a completion and a decision is left"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(build, line, message):
    with pytest.raises(ValueError, match=message):
        build([line])

"""Rows from a user's files are read, or refused with file and line."""

import gzip
import json

import pytest

from alignment.grading.task import check_task
from alignment.rows import reading


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "not JSON"),
        ("[1, 2]", "a row is a JSON object, not a list"),
        ('{"text": ' + "[" * 100_000, "not JSON"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ('{"text": "\\uDC00\\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_a_line_that_is_not_a_row_is_an_error_with_its_number(line, message, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(ValueError, match=f"rows.jsonl:2: .*{message}"):
        list(reading.read(file))


def test_complete_surrogate_pairs_are_characters(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n{"text": "\\\\ud800 as text"}\n')
    assert [row["text"] for row in reading.read(tmp_path)] == ["\U0001f600", "\\ud800 as text"]


TASK = {
    "prompt": "Add.", "language": "python", "kind": "calls", "entry_point": "add",
    "tests": json.dumps({"cases": [{"args": [1], "expected": 2}]}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "`prompt` must be text"),
        ({"tests": {"cases": []}}, "`tests` must be a JSON string"),
        ({"tests": "nope"}, "can't be graded"),
        ({"tests": "[]"}, "tests must be a JSON object"),
        ({"tests": '{"cases": []}'}, "the task has no tests"),
        ({"kind": "zzz"}, "unknown kind of task 'zzz'"),
        ({"kind": None}, "unknown kind of task None"),
        ({"language": "cobol"}, "unknown language 'cobol'"),
        ({"language": 3}, "can't be graded"),
        ({"entry_point": None}, "needs `entry_point`"),
    ],
)
def test_a_task_that_can_not_be_graded_is_refused_before_training(change, message):
    check_task(TASK, "tasks.jsonl, row 1")
    with pytest.raises(ValueError, match=f"tasks.jsonl, row 1: .*{message}"):
        check_task({**TASK, **change}, "tasks.jsonl, row 1")


def test_a_task_without_a_kind_is_refused():
    with pytest.raises(ValueError, match="a task needs 'kind'"):
        check_task({key: value for key, value in TASK.items() if key != "kind"}, "row 1")


def test_gzipped_rows_are_read_alone_and_in_a_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    (data / "b.jsonl").write_text('{"text": "three"}\n')
    assert [row["text"] for row in reading.read(data / "a.jsonl.gz")] == ["one", "two"]
    assert [row["text"] for row in reading.read(tmp_path)] == ["one", "two", "three"]


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b'{"text": "one"}\n' * 999)[:-20]])
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz: not gzip, or cut off"):
        list(reading.read(path))


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('[{"text": "one"},\n {"text": "two"}]', ["one", "two"]),
        ('{\n"text": "one"}', ["one"]),
        ('{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ('\ufeff[{"text": "one"}]', ["one"]),
    ],
)
def test_a_json_file_holds_a_list_a_row_or_a_row_per_line(name, text, rows, tmp_path):
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [row["text"] for row in reading.read_rows(tmp_path / name)] == rows


def test_a_list_entry_that_is_no_row_is_refused_with_its_number(tmp_path):
    (tmp_path / "rows.json").write_text('[{"text": "one"}, 2]')
    with pytest.raises(ValueError, match=r"rows\.json, row 2: a row is a JSON object, not a int"):
        reading.read_rows(tmp_path / "rows.json")

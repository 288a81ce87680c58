"""The benchmark `editor`: cursor positions, scores, and one task per function."""

import json

import pytest

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.cursor_positions import cursor_offsets, editor
from alignment.evaluation.problem import FimPrompt, Problem
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import figures
from alignment.evaluation.statistics.text_scores import cursor_scores

MIDDLE = "    total = first + second\n    if total > limit:\n        return limit\n    return total * factor\n"


def problem(reference):
    return Problem(id="a", prompt=FimPrompt("", ""), reference=reference)


def test_the_cursor_stands_at_the_start_inside_lines_and_at_the_start_of_a_line():
    texts = [MIDDLE[offset:].split("\n")[0] for offset in cursor_offsets(MIDDLE)]
    assert texts == ["    total = first + second", "first + second", "return limit", "factor"]


@pytest.mark.parametrize("middle", ["x", "    x", "\n", "    return value_of(thing)", "a\nb\nc\nd\n"])
def test_cursors_are_inside_of_the_middle_and_leave_something_to_write(middle):
    offsets = cursor_offsets(middle)
    assert offsets[0] == 0 and len(set(offsets)) == len(offsets)
    assert all(middle[offset:].split("\n")[0].strip() for offset in offsets[1:])


def test_the_accepted_characters_end_at_the_first_wrong_line():
    scores = cursor_scores(problem("a + b\n    return a\n"), "a + b\n    return b\n")
    assert scores["first_line_match"] == 1.0
    assert scores["accepted_characters"] == pytest.approx(5 / 13)
    assert cursor_scores(problem("a + b"), "a +  b")["accepted_characters"] == 0.0
    assert cursor_scores(problem("a + b"), "a + b\nmore")["accepted_characters"] == 1.0


def test_white_space_at_line_ends_is_ignored():
    assert cursor_scores(problem("a \nb"), "a\nb ")["accepted_characters"] == 1.0


def test_the_positions_of_a_function_count_as_one_task(tmp_path):
    row = {"id": "f", "prefix": "def f():\n", "middle": MIDDLE, "suffix": "\n"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = editor(BenchmarkRequest("editor", "e", str(tmp_path / "rows.jsonl")))
    assert [entry.cluster for entry in benchmark.problems] == ["f"] * 4
    assert [entry.part for entry in benchmark.problems] == [0, 1, 2, 3]
    assert all(entry.row["prefix"] + entry.reference == "def f():\n" + MIDDLE for entry in benchmark.problems)

    def outcome(task, part, value):
        return Outcome(task, part, "", "stop", 1, "", "failed", "", "", {"first_line_match": value})

    (figure,) = figures("e", [outcome("f", 0, 1.0), outcome("f", 1, 0.0), outcome("g", 0, 1.0)], 0)
    assert (figure["n"], figure["value"]) == (2, 75.0)


def test_a_completion_is_cut_where_the_body_ends(tmp_path):
    row = {"id": "f", "prefix": "def f():\n", "middle": "    return 1\n", "suffix": ""}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = editor(BenchmarkRequest("editor", "e", str(tmp_path / "rows.jsonl")))
    answer = benchmark.assemble(benchmark.problems[0], "    return 1\n\n\ndef g():\n    return 2\n")
    assert answer == "    return 1\n"


def test_the_chat_mode_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "f", "prefix": "", "middle": "x", "suffix": ""}) + "\n")
    with pytest.raises(ValueError, match="has base prompts only"):
        editor(BenchmarkRequest("editor", "e", str(tmp_path / "rows.jsonl"), mode="chat"))

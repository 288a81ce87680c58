"""Grading of given completions: result documents, several samples per task, errors and warnings."""

import json
import logging

import pytest

from alignment.cli import main
from alignment.evaluation import grade_completions, read_documents

ROWS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def f{number}(x):\n    """Add {number}."""\n',
        "canonical_solution": f"    return x + {number}\n",
        "entry_point": f"f{number}",
        "base_input": [[1], [2]],
        "plus_input": [[-1]],
        "atol": 0,
    }
    for number in range(4)
]
KEYS = ["benchmark", "metric", "value", "n", "low", "high", "verdicts"]


@pytest.fixture
def data(write_rows, tmp_path, monkeypatch, grader):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    return write_rows(ROWS, "HumanEvalPlus.jsonl")


def right(number, **more):
    return {"task_id": f"HumanEval/{number}", "completion": f"    return x + {number}\n", **more}


def wrong_below_zero(number):
    return {"task_id": f"HumanEval/{number}", "completion": f"    return abs(x) + {number}\n"}


def test_documents_have_exactly_the_documented_keys_and_every_task(data, write_rows, tmp_path, capsys):
    file = write_rows(
        [right(0), wrong_below_zero(1), right(2), {"task_id": "HumanEval/3", "solution": "x ="}], "s.jsonl"
    )
    command = ["evaluate", "--completions", str(file), "--data", str(data), "--out", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    base, plus = documents = json.loads(capsys.readouterr().out)
    assert [list(document) for document in documents] == [KEYS, KEYS]
    assert (base["benchmark"], base["metric"], base["value"], base["n"]) == ("humaneval", "pass@1", 75.0, 4)
    assert (plus["benchmark"], plus["value"]) == ("humaneval+", 50.0)
    assert plus["verdicts"] == {
        "HumanEval/0": "passed", "HumanEval/1": "failed", "HumanEval/2": "passed", "HumanEval/3": "failed",
    }  # fmt: skip
    assert base["low"] < base["value"] < base["high"]
    assert read_documents(tmp_path / "out") == documents


def test_pass_at_k_is_reported_if_every_task_has_k_samples(data, write_rows, tmp_path):
    samples = [right(number) for number in range(4) for _ in range(4)] + [{**right(0), "completion": "    pass\n"}]
    file = write_rows(samples, "s.jsonl")
    assert {document["metric"] for document in grade_completions(file, tmp_path / "a", data=data)} == {"pass@1"}
    for number in range(1, 4):
        samples.append({**right(number), "completion": "    pass\n"})
    documents = grade_completions(write_rows(samples, "t.jsonl"), tmp_path / "b", data=data, benchmark="humaneval")
    assert [(document["metric"], document["value"]) for document in documents] == [("pass@1", 80.0), ("pass@5", 100.0)]
    assert documents[0]["verdicts"]["HumanEval/2"] == ["passed"] * 4 + ["failed"]


def test_completions_of_some_tasks_are_graded_with_a_warning(data, write_rows, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        base, _ = grade_completions(write_rows([right(1)], "s.jsonl"), tmp_path / "out", data=data)
    assert (base["n"], base["value"]) == (1, 100.0)
    assert "completions of 1 of its 4 tasks" in caplog.text
    assert len(list((tmp_path / "cache/benchmarks/expected").iterdir())) == 2  # of this task only


def test_chat_answers_are_graded_unchanged_unless_sanitized(data, write_rows, tmp_path, caplog):
    answer = "Sure!\n```python\ndef f0(x):\n    return x\n\nprint(input())\n```\nDone."
    file = write_rows([{"task_id": "HumanEval/0", "solution": answer}], "s.jsonl")
    with caplog.at_level(logging.WARNING):
        assert [d["value"] for d in grade_completions(file, tmp_path / "a", data=data)] == [0.0, 0.0]
    assert "--sanitize" in caplog.text
    assert [d["value"] for d in grade_completions(file, tmp_path / "b", data=data, sanitize=True)] == [100.0, 100.0]


def test_fences_in_the_strings_of_a_program_are_no_reason_for_a_warning(data, write_rows, tmp_path, caplog):
    program = 'def f0(x):\n    """Doc.\n\n    ```\n    f0(1)\n    ```\n    """\n    return x\n'
    file = write_rows([{"task_id": "HumanEval/0", "solution": program}], "s.jsonl")
    with caplog.at_level(logging.WARNING):
        assert [d["value"] for d in grade_completions(file, tmp_path / "a", data=data)] == [100.0, 100.0]
    assert "--sanitize" not in caplog.text


def test_a_second_start_grades_nothing_again(data, write_rows, tmp_path, monkeypatch):
    from alignment.grading import Grader

    file = write_rows([right(0), right(1)], "s.jsonl")
    first = grade_completions(file, tmp_path / "out", data=data)
    monkeypatch.setattr(Grader, "submit", lambda *_: pytest.fail("graded again"))
    assert grade_completions(file, tmp_path / "out", data=data) == first


def test_an_unknown_task_and_an_unknown_benchmark_are_errors(data, write_rows, tmp_path):
    with pytest.raises(ValueError, match="humaneval has no task 'HumanEval/9'"):
        grade_completions(write_rows([{"task_id": "HumanEval/9", "completion": ""}], "s.jsonl"), tmp_path, data=data)
    with pytest.raises(ValueError, match="name it with --benchmark"):
        grade_completions(write_rows([{"task_id": "x", "completion": ""}], "t.jsonl"), tmp_path, data=data)


def test_rows_without_extended_tests_give_the_plain_score_with_a_warning(write_rows, tmp_path, caplog, grader):
    row = ROWS[0] | {"test": "def check(candidate):\n    assert candidate(1) == 1\n"}
    plain = write_rows([{k: v for k, v in row.items() if not k.endswith("_input")}], "HumanEval.jsonl")
    with caplog.at_level(logging.WARNING):
        (document,) = grade_completions(write_rows([right(0)], "s.jsonl"), tmp_path / "out", data=plain)
    assert (document["benchmark"], document["value"]) == ("humaneval", 100.0)
    assert "humaneval+ is skipped" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--completions", "s.jsonl", "--n", "3"], "--n is for generating"),
        (["--completions", "s.jsonl", "--tasks", "humaneval"], "--tasks is for generating"),
        (["model", "--tasks", "humaneval", "--sanitize"], "--sanitize is for --completions"),
        (["model"], "name the benchmarks with --tasks"),
        (["model", "--completions", "s.jsonl"], "give either a model"),
        (["--completions", "missing.jsonl"], "there is no file missing.jsonl"),
    ],
)
def test_settings_without_effect_are_errors(words, message, capsys):
    assert main(["evaluate", *words]) == 1
    assert message in capsys.readouterr().err


def test_two_results_are_compared_at_the_command_line(data, write_rows, tmp_path, capsys):
    before = write_rows([wrong_below_zero(number) for number in range(4)], "before.jsonl")
    after = write_rows([right(0), right(1), right(2), wrong_below_zero(3)], "after.jsonl")
    for name, file in (("a", before), ("b", after)):
        grade_completions(file, tmp_path / name, data=data)
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    rows = {row["benchmark"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["humaneval+"]["won"] == ["HumanEval/0", "HumanEval/1", "HumanEval/2"]
    assert (rows["humaneval"]["difference"], rows["humaneval"]["p_value"]) == (0.0, 1.0)
    assert main(["evaluate", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (gain,) = [line for line in lines if line.startswith("humaneval+.pass ") and "+75.0 [" in line]
    assert gain.split()[1:3] == ["0.0", "75.0"] and gain.split()[-4:-1] == ["3", "0", "4"], (
        "before, after; won, lost, tasks"
    )
    assert lines[-1] == "humaneval+.pass won: HumanEval/0, HumanEval/1, HumanEval/2"


def test_ranks_other_than_0_print_nothing(monkeypatch, capsys):
    monkeypatch.setattr("alignment.evaluation.evaluate", lambda *_, **__: [])
    assert main(["evaluate", "model", "--tasks", "humaneval", "--json"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("body", "passed"), [("bool(m)", True), ("m", True), ("not m", False)])
def test_a_match_object_equals_true(grader, body, passed):
    """The reference solution of MBPP+ returns a match object or None; answers may return a bool instead."""
    from alignment.grading.benchmark_tasks import plus_task

    row = {"task_id": "Mbpp/787", "prompt": "", "entry_point": "text_match_three"}
    task = plus_task(row, [["ac"], ["abbb"]], [None, {"o": "Match"}], "mbpp+")
    program = f"import re\ndef text_match_three(t):\n    m = re.search('ab{{3}}', t)\n    return {body}\n"
    (verdict,) = grader.grade_many([(task, program)])
    assert (verdict.status == "passed") is passed

"""Reading of completions: every format of the common harnesses, and errors that name file and row."""

import gzip
import json

import pytest

from alignment.evaluation.benchmark_request import resolve_task_id
from alignment.evaluation.samples import Sample, benchmarks_of, read_samples

BODY = "    return 1\n"


def jsonl(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def document(path, content):
    data = json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["samples.jsonl", "samples.jsonl.gz"])
def test_human_eval_rows_in_order_with_several_samples_of_a_task(tmp_path, name):
    rows = [{"task_id": "HumanEval/1", "completion": "a"}, {"task_id": "HumanEval/0", "completion": "b", "extra": 1}]
    samples = read_samples(jsonl(tmp_path / name, [*rows, rows[0]]))
    assert [(sample.task_id, sample.text) for sample in samples] == [
        ("HumanEval/1", "a"),
        ("HumanEval/0", "b"),
        ("HumanEval/1", "a"),
    ]
    assert {sample.form for sample in samples} == {"completion"}


def test_evalplus_solutions_are_whole_programs(tmp_path):
    (sample,) = read_samples(jsonl(tmp_path / "s.jsonl", [{"task_id": "Mbpp/2", "solution": "p", "_identifier": "x"}]))
    assert sample == Sample("", "Mbpp/2", "p", "program")
    assert benchmarks_of(sample, None) == ("mbpp", "mbpp+")


def test_evalplus_folders_are_read_by_task_and_number(tmp_path):
    for task, numbers in (("HumanEval_2", ("10", "9")), ("Mbpp_3", ("0",))):
        (tmp_path / task).mkdir()
        for number in numbers:
            (tmp_path / task / f"{number}.py").write_text(number)
    samples = [(sample.task_id, sample.text) for sample in read_samples(tmp_path)]
    assert samples == [("HumanEval/2", "9"), ("HumanEval/2", "10"), ("Mbpp/3", "0")]


def test_evalplus_results_hold_their_solutions(tmp_path):
    content = {"hash": "x", "eval": {"HumanEval/0": [{"solution": "a", "base_status": "pass"}, {"solution": "b"}]}}
    assert [sample.text for sample in read_samples(document(tmp_path / "s_eval_results.json", content))] == ["a", "b"]


def test_results_and_raw_answers_next_to_the_samples_do_not_count_twice(tmp_path):
    row = {"task_id": "HumanEval/0", "solution": "a"}
    jsonl(tmp_path / "model.jsonl", [row])
    jsonl(tmp_path / "model.raw.jsonl", [row])
    document(tmp_path / "model_eval_results.json", {"eval": {"HumanEval/0": [row]}})
    assert len(read_samples(tmp_path)) == 1


PROBLEM = {
    "name": "HumanEval_0_f",
    "language": "rb",
    "prompt": "def f\n",
    "tests": "f()\n",
    "completions": ["  1\nend", "2"],
}


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_multipl_e_problems_are_prompt_completion_and_tests(tmp_path, ending):
    document(tmp_path / f"HumanEval_0_f.{ending}", PROBLEM)
    results = {"name": "HumanEval_0_f", "language": "rb", "results": [{"program": "x", "exit_code": 0}] * 2}
    document(tmp_path / f"HumanEval_0_f.results.{ending}", results)
    samples = read_samples(tmp_path)
    assert [sample.text for sample in samples] == ["def f\n  1\nend\nf()\n", "def f\n2\nf()\n"]
    assert {(sample.benchmark, sample.form) for sample in samples} == {("multipl-e-rb", "tested")}


def test_multipl_e_results_alone_are_graded_by_their_programs(tmp_path):
    folder = tmp_path / "humaneval-lua-model-0.2-reworded"
    folder.mkdir()
    document(folder / "HumanEval_0_f.results.json.gz", {"name": "HumanEval_0_f", "results": [{"program": "p"}]})
    assert read_samples(folder) == [Sample("multipl-e-lua", "HumanEval_0_f", "p", "tested")]


@pytest.mark.parametrize("name", ["java.json", "humaneval-java-details.json"])
def test_the_file_name_tells_the_language(tmp_path, name):
    content = {"HumanEval_0_f": [[0, {"code": "p", "passed": True}]]}
    assert read_samples(document(tmp_path / name, content)) == [
        Sample("multipl-e-java", "HumanEval_0_f", "p", "program")
    ]


def test_generations_of_multipl_e_lack_their_tests(tmp_path):
    path = jsonl(tmp_path / "pred_sh_output.jsonl", [{"task_id": "HumanEval_0_f", "generation": "f() {", "prompt": ""}])
    assert read_samples(path) == [Sample("multipl-e-sh", "HumanEval_0_f", "f() {", "function")]


def test_completions_of_this_toolkit_keep_the_prompt_mode(tmp_path):
    row = {"benchmark": "humaneval", "task_id": "HumanEval/0", "sample": 0, "mode": "chat", "completion": "x"}
    assert read_samples(jsonl(tmp_path / "c.jsonl", [row])) == [Sample("humaneval", "HumanEval/0", "x", "raw", "chat")]


def test_rows_in_a_json_list_and_lists_of_texts(tmp_path):
    rows = [{"task_id": "HumanEval/0", "completion": ["a", "b"]}]
    assert [sample.text for sample in read_samples(document(tmp_path / "s.json", rows))] == ["a", "b"]
    by_task = {"HumanEval/0": ["a"], "HumanEval/1": ["b"]}
    assert [sample.task_id for sample in read_samples(document(tmp_path / "t.json", by_task))] == list(by_task)


@pytest.mark.parametrize("given", ["HumanEval/7", "HumanEval_7", "humaneval/7", "7", "007"])
def test_ids_are_found_in_other_spellings(given):
    assert resolve_task_id(given, {"HumanEval/7", "HumanEval/17"}) == "HumanEval/7"


def test_an_id_in_no_known_spelling_is_not_found():
    assert resolve_task_id("HumanEval/7x", {"HumanEval/7"}) is None
    assert resolve_task_id("7", {"other/7"}) is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}], "row 1: no `task_id`"),
        ([{"task_id": "HumanEval/0", "completion": "a"}, {"task_id": "HumanEval/1"}], "row 2: neither `completion`"),
        ([{"task_id": "HumanEval/0", "completion": 3}], "row 1: `completion` must be text"),
        ([{"task_id": "HumanEval/0", "completion": None}], "row 1: neither"),
        ([[1]], "s.jsonl:1: a row is a JSON object, not a list"),
        ([], "no completions"),
        ([{"name": "HumanEval_0_f", "language": "cobol", "completions": [""]}], "'cobol' is not supported"),
        ([{"name": "HumanEval_0_f", "language": "js", "completions": [""]}], "needs its `prompt`"),
        (
            [{"name": "HumanEval_0_f", "language": "js", "results": [{"status": "OK"}]}],
            "a result has no `program`",
        ),
    ],
)
def test_errors_name_the_incomplete_row(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_samples(jsonl(tmp_path / "s.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("s.jsonl", b'{"task_id": \n', "s.jsonl:1: not JSON"),
        ("s.json", b"[1", "is not valid JSON"),
        ("s.json", b"[1]", "unknown format of completions"),
        ("s.jsonl.gz", b"no gzip", "not gzip, or cut off"),
        ("s.jsonl.gz", gzip.compress(b"{}\n" * 5000)[:40], "not gzip, or cut off"),
        ("s.jsonl", b"\xff\xfe\x00", "not UTF-8"),
        ("s.txt", b"x", "must be .jsonl"),
        ("s.json", b'{"eval": {"HumanEval/0": {"nfiles": 1}}}', "no `solution`"),
        ("x.json", b'{"HumanEval_0_f": [[0, {"code": ""}]]}', "the language is unknown"),
    ],
)
def test_errors_name_the_unreadable_file(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path / name)


def test_an_empty_folder_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(ValueError, match="has no completions"):
        read_samples(tmp_path)
    with pytest.raises(ValueError, match="no file"):
        read_samples(tmp_path / "missing.jsonl")

"""The benchmark `repair`: several turns with tools, graded by hidden tests after each turn."""

import json

import pytest

from alignment.evaluation import catalogue, evaluate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.repair import turns_of
from alignment.evaluation.engines.protocol import ALL_SAMPLING_FIELDS, Completion
from alignment.evaluation.store import read_jsonl


def call(name="submit", **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def task(name):
    cases = [{"args": [n], "expected": n + 1} for n in range(4)]
    return {
        "id": name, "prompt": f"Write {name}(x).", "language": "python", "kind": "calls", "entry_point": name,
        "tests": json.dumps({"cases": cases, "compare": "equal"}),
    }  # fmt: skip


def right(name):
    return f"def {name}(x): return x + 1"


def wrong(name):
    return f"def {name}(x): return x"


# The answers to each task, turn by turn.
SCRIPTS = {
    "at_once": ["I try it.\n" + call(program=right("at_once")), "Done."],
    "after_one_failure": [call(program=wrong("after_one_failure")), call(program=right("after_one_failure")), "Done."],
    "visible_only": [call(program="def visible_only(x): return x + 1 if x < 2 else 0"), "Done."],
    "without_a_call": ["```python\n" + right("without_a_call") + "\n```"],
    "broken_calls": ["<tool_call>\n{\n</tool_call>", call("search", text="x"), call(text="x"), call(program="x")],
    "cut_off": ["cut:" + call(program=right("cut_off"))[:30]],
    "spoils": [call(program=right("spoils")), call(program=wrong("spoils")), "Done."],
}


class ScriptedEngine:
    """Answers each task from `SCRIPTS`, by the number of the turn. Answers that begin with `cut:` are cut off."""

    name = "scripted"
    stop_ids = ()
    max_length = 4096
    batch_size = None
    supported_fields = ALL_SAMPLING_FIELDS

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.prompts = []

    def generate(self, jobs):
        for job in jobs:
            text = self.tokenizer.decode(job.ids)
            self.prompts.append(text)
            name = next(name for name in SCRIPTS if f"Write {name}(x)" in text)
            answer = SCRIPTS[name][text.count("<|im_start|>assistant") - 1]
            yield job, Completion(answer.removeprefix("cut:"), 10, "length" if answer.startswith("cut:") else "stop")


@pytest.fixture
def measured(tiny_checkpoint, tmp_path):
    """(engine, figures by metric, verdicts by task, folder of the results) of three turns."""
    from transformers import AutoTokenizer

    rows = tmp_path / "tasks.jsonl"
    rows.write_text("".join(json.dumps(task(name)) + "\n" for name in SCRIPTS))
    engine = ScriptedEngine(AutoTokenizer.from_pretrained(tiny_checkpoint))
    out = tmp_path / "out"
    figures = evaluate(tiny_checkpoint, [f"repair@3:{rows}"], out, engine=engine)
    return (
        engine,
        {item["metric"]: item for item in figures},
        {row["task_id"]: row for row in read_jsonl(out / "verdicts.jsonl")},
        out,
    )


def test_the_pass_rate_is_reported_after_each_turn(measured):
    _, figures, verdicts, _ = measured
    scores = {name: [row["scores"][f"pass_turn_{turn}"] for turn in (1, 2, 3)] for name, row in verdicts.items()}
    assert scores == {
        "at_once": [1, 1, 1], "after_one_failure": [0, 1, 1], "visible_only": [0, 0, 0], "without_a_call": [1, 1, 1],
        "broken_calls": [0, 0, 0], "cut_off": [0, 0, 0], "spoils": [1, 0, 0],
    }  # fmt: skip
    rates = [figures[name]["value"] for name in ("pass_turn_1", "pass_turn_2", "pass_turn_3", "pass@1")]
    assert rates == pytest.approx([300 / 7] * 4)
    assert figures["pass@1"]["low"] < figures["pass@1"]["value"] < figures["pass@1"]["high"]


def test_calls_and_cut_answers_are_counted(measured):
    _, figures, verdicts, out = measured
    assert verdicts["broken_calls"]["scores"]["invalid_calls"] == 1
    assert verdicts["after_one_failure"]["scores"]["invalid_calls"] == 0
    assert "invalid_calls" not in verdicts["without_a_call"]["scores"]
    assert figures["called"]["value"] == pytest.approx(100 * 6 / 7)
    assert figures["cut"]["value"] == pytest.approx(100 / 7)
    cost = json.loads((out / "generation.json").read_text())["tasks"]
    # the incomplete call of the answer that was cut off is wrong too
    assert (cost["calls"], cost["invalid_calls"], cost["cut"], cost["completions"]) == (10, 4, 1, 15)


def test_the_model_sees_its_calls_and_the_results_of_visible_tests(measured):
    engine, *_ = measured
    shown = max((text for text in engine.prompts if "Write after_one_failure" in text), key=len)
    assert '"name": "submit"' in shown and call(program=wrong("after_one_failure")) in shown
    assert "<tool_response>\n0 of 2 visible tests pass." in shown
    broken = max((text for text in engine.prompts if "Write broken_calls" in text), key=len)
    assert "error: a call is a JSON object" in broken


def test_a_repeated_measurement_generates_nothing_and_gives_the_same_figures(measured, tiny_checkpoint, tmp_path):
    engine, figures, _, out = measured
    count = len(engine.prompts)
    again = evaluate(tiny_checkpoint, [f"repair@3:{tmp_path / 'tasks.jsonl'}"], out, engine=engine)
    assert {item["metric"]: item for item in again} == figures and len(engine.prompts) == count


def test_other_numbers_of_turns_are_other_trajectories_that_reuse_answers(measured, tiny_checkpoint, tmp_path):
    engine, _, _, out = measured
    count = len(engine.prompts)
    figures = evaluate(tiny_checkpoint, [f"repair@1:{tmp_path / 'tasks.jsonl'}"], out, engine=engine)
    assert {item["metric"] for item in figures} >= {"pass@1", "pass_turn_1"} and len(engine.prompts) == count
    assert "pass_turn_2" not in {item["metric"] for item in figures}


@pytest.mark.parametrize("name", ["repair@0", "repair@x", "repair@-1"])
def test_a_wrong_number_of_turns_is_refused(name):
    with pytest.raises(ValueError, match="positive integer"):
        turns_of(name)


def test_tasks_whose_tests_cannot_be_split_are_refused_with_their_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(task("f") | {"tests": '{"cases": [{"args": [1], "expected": 2}]}'}) + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1: one test can't be both visible and hidden"):
        catalogue.load(BenchmarkRequest("repair", data=str(path)))


def test_samples_of_a_task_become_pass_at_k(tiny_checkpoint, tmp_path):
    from transformers import AutoTokenizer

    rows = tmp_path / "tasks.jsonl"
    rows.write_text(json.dumps(task("at_once")) + "\n" + json.dumps(task("visible_only")) + "\n")
    request = {"benchmark": "repair@2", "data": str(rows), "n": 5, "temperature": 0.5}
    engine = ScriptedEngine(AutoTokenizer.from_pretrained(tiny_checkpoint))
    figures = {
        item["metric"]: item["value"] for item in evaluate(tiny_checkpoint, [request], tmp_path / "out", engine=engine)
    }
    assert figures["pass@1"] == figures["pass@5"] == 50


def test_tasks_of_repositories_get_the_tools_of_repositories(tmp_path):
    tests = json.dumps({"suite": "s", "visible": [], "hidden": ["tests/test_a.py::test_b"]})
    row = {"id": "r", "prompt": "Repair it.", "kind": "repository", "language": "python", "tests": tests}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (problem,) = catalogue.load(BenchmarkRequest("repair@9", data=str(path))).problems
    assert {tool["function"]["name"] for tool in problem.prompt.tools} > {"edit_file", "run_tests", "submit"}
    path.write_text(json.dumps(row) + "\n" + json.dumps(task("f")))
    with pytest.raises(ValueError, match="a file of their own"):
        catalogue.load(BenchmarkRequest("repair", data=str(path)))

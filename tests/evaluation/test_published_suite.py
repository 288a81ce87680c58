"""The suite `published`: which released model a checkpoint is, and the table of measured and published scores."""

import json

import pytest

from alignment.cli import main
from alignment.evaluation.engines.protocol import ALL_SAMPLING_FIELDS, Completion
from alignment.evaluation.published_scores import published_model, published_models, recognize
from alignment.evaluation.published_suite import markdown, measure_published

ROWS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add{number}(x):\n    """Add {number}."""\n',
        "canonical_solution": f"    return x + {number}\n",
        "entry_point": f"add{number}",
        "base_input": [[1]],
        "plus_input": [[-5]],
        "atol": 0,
    }
    for number in range(4)
]
ANSWERS = [
    "def add0(x):\n    return x + 0\n",
    "def add1(x):\n    return abs(x) + 1\n",  # right for the original input only
    "def add2(x):\n    return x\n",
    "def add3(x):\n    return x + 3\n",
]


class ScriptedEngine:
    """Answers the tasks from `ANSWERS`, and counts the generated completions."""

    name = "scripted"
    stop_ids = ()
    max_length = 4096
    batch_size = None
    supported_fields = ALL_SAMPLING_FIELDS

    def __init__(self, folder):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.generated = 0

    def generate(self, jobs):
        for job in jobs:
            self.generated += 1
            number = next(n for n in range(4) if f"add{n}(" in self.tokenizer.decode(job.ids))
            yield job, Completion(ANSWERS[number], 10, "length" if number == 2 else "stop")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "HumanEvalPlus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture
def table(tiny_checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    engine = ScriptedEngine(tiny_checkpoint)
    table = measure_published(
        str(tiny_checkpoint),
        tmp_path / "out",
        compared_with="Qwen2.5-Coder-0.5B-Instruct",
        data=str(data),
        engine=engine,
    )
    return table, engine


def test_humaneval_plus_grades_the_answers_of_humaneval(table):
    rows = {row["benchmark"]: row for row in table[0]["rows"]}
    assert rows["humaneval"]["ours"] == 75.0
    assert rows["humaneval+"]["ours"] == 50.0
    assert table[1].generated == 4
    assert rows["humaneval+"]["shared_with"] == "humaneval"
    assert rows["humaneval"]["shared_with"] is None


def test_a_row_has_the_published_score_with_its_source_and_the_cost(table):
    row = table[0]["rows"][0]
    assert (row["published"], row["mode"], row["tasks"]) == (61.6, "chat", 4)
    assert row["source"] == "Qwen2.5-Coder Technical Report, arXiv 2409.12186v3, table 16"
    assert (row["answers"], row["cut"], row["tokens"]) == (4, 1, 40)
    assert row["inside"] is True and row["low"] < 61.6 < row["high"]
    assert sum(row["failures"].values()) == 1
    assert row["seconds"] >= 0


def test_benchmarks_without_rows_are_left_out_with_the_reason(table):
    left_out = table[0]["left_out"]
    assert {"mbpp", "mbpp+", "cruxeval-input-cot", "multipl-e-java"} <= left_out.keys()
    assert "MbppPlus" in left_out["mbpp"]


def test_the_table_is_written_as_markdown_and_json(table, tmp_path):
    assert json.loads((tmp_path / "out/published.json").read_text()) == table[0]
    text = (tmp_path / "out/published.md").read_text()
    assert text == markdown(table[0])
    assert "| humaneval | chat | 4 | 75.0 [30.1, 95.4] | 61.6 | yes | 1 of 4 | 40 |" in text
    assert "| humaneval+ | chat | 4 | 50.0 [15.0, 85.0] | 57.3 | yes | answers of humaneval |  |  |  |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {11}
    assert "- mbpp was not measured: " in text


def test_a_score_of_the_first_tasks_is_not_compared(tiny_checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    table = measure_published(
        str(tiny_checkpoint), tmp_path / "out", compared_with="qwen/qwen2.5-coder-7b-instruct", only=["humaneval"],
        data=str(data), limit=2, engine=ScriptedEngine(tiny_checkpoint),
    )  # fmt: skip
    (row,) = table["rows"]
    assert (row["tasks"], row["inside"], row["published"]) == (2, None, 88.4)
    assert "Only the first 2 tasks" in markdown(table)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen2.5-Coder-7B-Instruct"),
        ("/models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "Qwen2.5-Coder-0.5B-Instruct"),
        ("Qwen/Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-1.5B"),
    ],
)
def test_a_released_model_is_recognized_by_its_name(path, name):
    assert recognize(path).model.name == name


@pytest.mark.parametrize(
    ("end", "name"), [(151645, "Qwen2.5-Coder-0.5B-Instruct"), (151643, "Qwen2.5-Coder-0.5B"), (2, None)]
)
def test_a_trained_model_is_recognized_by_its_shape_and_end_token(end, name, tmp_path):
    from alignment.models import shapes

    config = shapes.config("0.5b")
    config.eos_token_id = end
    config.save_pretrained(tmp_path / "model")
    if name is None:
        with pytest.raises(ValueError, match="name the model with --published"):
            recognize(tmp_path / "model")
    else:
        assert recognize(tmp_path / "model").model.name == name


def test_every_published_score_is_a_percent_of_a_known_benchmark_with_a_source():
    from alignment.evaluation.catalogue import BENCHMARKS

    assert len(published_models()) == 12
    for model in published_models().values():
        assert model.scores.keys() <= BENCHMARKS.keys()
        assert {"humaneval", "humaneval+", "mbpp", "mbpp+"} <= model.scores.keys()
        assert all(
            0 < score.value < 100 and "arXiv 2409.12186v3, table" in score.source for score in model.scores.values()
        )
        for benchmark in ("humaneval", "mbpp"):
            assert model.scores[f"{benchmark}+"].value < model.scores[benchmark].value


def test_base_scores_agree_with_the_published_results_of_the_base_model(data_dir):
    """`all_results.json` of QwenLM/Qwen2.5-Coder, from which the report's tables 5 and 11 were made."""
    results = json.loads((data_dir / "published/qwen2.5-coder-1.5b/scores.json").read_text())
    scores = {name: score.value for name, score in published_model("Qwen2.5-Coder-1.5B").scores.items()}
    assert {name.lower(): value for name, value in results["EvalPlus"].items()} == {
        name: scores[name] for name in ("humaneval", "humaneval+", "mbpp", "mbpp+")
    }
    assert results["CRUX-Eval"] == {
        "Input-CoT": scores["cruxeval-input-cot"],
        "Output-CoT": scores["cruxeval-output-cot"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["M", "--suite", "published", "--temperature", "1"], "measures as published: remove it"),
        (["M", "--suite", "published", "--published", "Qwen2.5-Coder-9B"], "no published scores of 'Qwen2.5-Coder-9B'"),
        (["M", "--suite", "published", "--published", "Qwen2.5-Coder-7B", "--tasks", "fim"], "no published score of"),
        (["M", "--tasks", "humaneval", "--published", "Qwen2.5-Coder-7B"], "belongs to --suite published"),
        (["--completions", "x", "--suite", "published"], "measures a model: name it"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 1
    assert message in capsys.readouterr().err

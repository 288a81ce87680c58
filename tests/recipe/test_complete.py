"""`align complete`: the cursor, the prompt, the cut, and what is printed."""

import json

import pytest

from alignment.cli import main
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.cursor_positions import editor
from alignment.evaluation.cursor_completion import complete, prompt_at
from alignment.evaluation.engines.protocol import Completion
from alignment.evaluation.problem import FimPrompt

FILE = "def total(order):\n    return sum(\n\n\ndef empty():\n    pass\n"


class Scripted:
    """An engine that answers with a given text and keeps its jobs."""

    stop_ids = ()

    def __init__(self, tokenizer, text: str = "", max_length: int = 1000, finish: str = "stop") -> None:
        self.tokenizer, self.text, self.max_length, self.finish = tokenizer, text, max_length, finish
        self.jobs = []

    def generate(self, jobs):
        self.jobs += jobs
        yield from ((job, Completion(self.text, 3, self.finish)) for job in jobs)


@pytest.mark.parametrize(
    ("line", "column", "before"),
    [(2, None, "def total(order):\n    return sum("), (2, 1, "def total(order):\n"), (2, 5, "def total(order):\n    "),
     (1, 18, "def total(order):"), (3, None, "def total(order):\n    return sum(\n"), (7, 1, FILE)],
)  # fmt: skip
def test_the_cursor_splits_the_file(line, column, before):
    prompt = prompt_at(FILE, line, column)
    assert prompt.prefix == before and prompt.prefix + prompt.suffix == FILE


def test_lines_are_counted_as_editors_do():
    """A form feed or a line separator inside a line starts no line, and a carriage return belongs to the line's end."""
    assert prompt_at("a = 1\f\u2028\nb = ", 2, None).prefix == "a = 1\f\u2028\nb = "
    assert prompt_at("a = 1\r\nb = \r\n", 1, None) == FimPrompt("a = 1", "\r\nb = \r\n")


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [(0, None, "no line 0"), (8, None, "no line 8: the file has 7"), (1, 0, "no column 0"), (1, 19, "no column 19")],
)
def test_a_place_outside_of_the_file_is_an_error(line, column, message):
    with pytest.raises(ValueError, match=message):
        prompt_at(FILE, line, column)


def test_prompt_and_cut_are_those_of_the_benchmark_editor(tmp_path, tiny_tokenizer):
    row = {
        "id": "a",
        "prefix": "def total(order):\n",
        "middle": "    return sum(order.lines)\n",
        "suffix": "\n\ndef empty():\n    pass\n",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    benchmark = editor(BenchmarkRequest(benchmark="editor", data=str(tmp_path / "rows.jsonl")))
    problem = benchmark.problems[-1]
    engine = Scripted(tiny_tokenizer, "order.lines)\n\n\ndef other():\n    pass\n")
    prompt = FimPrompt(problem.row["prefix"], problem.row["suffix"])
    completion = complete(engine, prompt, "python", 16)
    assert engine.jobs[0].ids == problem.prompt.encode(tiny_tokenizer)
    assert completion.text == benchmark.assemble(problem, engine.text) == "order.lines)\n"
    assert {tiny_tokenizer.convert_tokens_to_ids(token) for token in benchmark.stop_tokens} == set(
        engine.jobs[0].stop_ids
    )


@pytest.mark.parametrize("cursor", [3, 200, 397])
def test_a_long_file_is_shortened_around_the_cursor(tiny_tokenizer, cursor):
    text = "".join(f"value_{number} = {number}\n" for number in range(400))
    engine = Scripted(tiny_tokenizer, "x", max_length=300)
    completion = complete(engine, prompt_at(text, cursor, None), "python", 50)
    assert completion.shortened and len(engine.jobs[0].ids) == completion.prompt_tokens <= 250
    assert completion.prompt_tokens > 150  # most of the context is used
    shown = tiny_tokenizer.decode(engine.jobs[0].ids)
    assert f"value_{cursor - 1} = {cursor - 1}" in shown


def test_tokens_that_leave_no_room_for_a_prompt_are_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="do not fit into the model's 40 positions"):
        complete(Scripted(tiny_tokenizer, max_length=40), FimPrompt("a", "b"), "python", 40)


@pytest.fixture
def engine(monkeypatch, tiny_tokenizer):
    scripted = Scripted(tiny_tokenizer, "order.lines)\n\ndef more():\n    pass\n")
    scripted.opened = []
    monkeypatch.setattr(
        "alignment.evaluation.engines.selection.open_engine", lambda path: scripted.opened.append(path) or scripted
    )
    return scripted


def test_the_command_prints_the_completion_alone(tmp_path, engine, capsys):
    file = tmp_path / "order.py"
    file.write_text(FILE)
    (tmp_path / "sft" / "model").mkdir(parents=True)
    (tmp_path / "sft" / "artifact.json").write_text("{}")
    assert main(["complete", f"{file}:2", "--model", str(tmp_path / "sft")]) == 0
    printed = capsys.readouterr()
    assert printed.out == "order.lines)\n\n" and printed.err == ""
    assert engine.opened == [str(tmp_path / "sft" / "model")]
    assert main(["complete", f"{file}:2:16", "--model", "m", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["language"] == "python" and document["text"] == "order.lines)\n" and not document["shortened"]


@pytest.mark.parametrize(
    ("place", "model", "message"),
    [
        ("order.py", "m", "write FILE:LINE"),
        ("order.py:99", "m", "order.py: there is no line 99"),
        ("none.py:1", "m", "No such file"),
        ("latin.py:1", "m", "is not UTF-8 text"),
        ("order.py:1", "corpus", "makes no model"),
    ],
)
def test_a_wrong_place_or_model_is_explained(tmp_path, monkeypatch, engine, capsys, place, model, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "order.py").write_text(FILE)
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "artifact.json").write_text("{}")
    assert main(["complete", place, "--model", model]) == 1
    assert message in capsys.readouterr().err

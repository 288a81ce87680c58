"""`align check` reads every row: what a stage would refuse is a mistake with file and line, before anything runs."""

import base64
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.cli import main
from alignment.recipe import RecipeError, load
from alignment.tokenization.row_checks import FAST_ROWS, check_before_run, check_rows

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "train"
RECIPE = """name: rows
output: runs
model:
  init: {{hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}}
  tokenizer: {tokenizer}
  dtype: float32
stages:
  - name: train
    kind: {kind}
    data: [{{data: {data}}}]
{settings}"""
ANSWER = {"role": "assistant", "content": "a + b"}
GOOD = {
    "pretrain": {"text": "def f(a):\n    return a\n"},
    "sft": {"messages": [{"role": "user", "content": "Add."}, ANSWER]},
    "dpo": {"prompt": "Add.", "chosen": "a + b", "rejected": "a - b"},
    "kto": {"prompt": "Add.", "completion": "a + b", "label": True},
    "grpo": {
        "id": "t", "prompt": "Add.", "language": "python", "kind": "calls", "entry_point": "f",
        "tests": json.dumps({"cases": [{"args": [1], "expected": 1}]}),
    },
}  # fmt: skip
WRONG = {
    "pretrain": [
        ({"text": None}, "text"),
        ({"repository": "r", "files": [{"path": "a.py", "text": None}]}, "`text` of file 1"),
        ({"text": "x", "format": "fim"}, "fim"),
        ({"text": "x", "langauge": "python"}, "langauge"),
    ],
    "sft": [
        ({"messages": [{"role": "user", "content": "Add."}]}, "no message of the assistant"),
        ({"messages": [{"role": "user", "content": "Add."}, {**ANSWER, "content": " "}]}, "empty or blank"),
        ({"messages": [{**ANSWER, "weight": 0}]}, "no loss"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
    ],
    "dpo": [
        ({"chosen": "a", "rejected": "b"}, "prompt"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "empty or blank"),
    ],
    "kto": [
        ({"prompt": "Add.", "completion": "a", "label": "good"}, "`label`"),
        ({"prefix": "a", "completion": " ", "label": True}, "`completion` is empty"),
    ],
    "grpo": [
        ({**GOOD["grpo"], "id": 3}, "`id`"),
        ({**GOOD["grpo"], "tests": "{"}, "can't be graded"),
        ({**GOOD["grpo"], "entry_point": None}, "entry_point"),
    ],
}  # fmt: skip


@pytest.fixture
def check(tmp_path, tiny_tokenizer_dir, monkeypatch):
    """A function that checks a recipe with one stage and these rows: the mistakes as one text, and the notes."""
    monkeypatch.chdir(tmp_path)

    def check(kind, rows, settings="", name="rows.jsonl", limit=None):
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        Path(name).write_bytes(content)
        path = Path("recipe.yaml")
        path.write_text(RECIPE.format(tokenizer=tiny_tokenizer_dir, kind=kind, data=name, settings=settings))
        try:
            mistakes, notes = check_rows(load(path), limit)
        except RecipeError as error:
            return str(error), []
        return "\n".join(message for _, message in mistakes), notes

    return check


@pytest.mark.parametrize(("kind", "row", "message"), [(kind, *case) for kind in WRONG for case in WRONG[kind]])
def test_a_wrong_row_after_good_ones_is_named_with_its_line_and_column(check, kind, row, message):
    text, _ = check(kind, [GOOD[kind]] * 6 + [row] + [GOOD[kind]])
    assert "1 of 8 rows can't be used" in text and "rows.jsonl:7" in text and message in text


@pytest.mark.parametrize("kind", GOOD)
def test_good_rows_are_accepted(check, kind):
    assert check(kind, [GOOD[kind]] * 3) == ("", [])


def test_many_errors_are_counted_and_the_first_ten_shown(check):
    text, _ = check("sft", [GOOD["sft"]] + [{"messages": None}] * 30)
    assert "30 of 31 rows can't be used" in text and "and 20 more" in text
    assert re.findall(r"rows\.jsonl:(\d+): ", text) == [str(line) for line in range(2, 12)]


def test_reading_goes_on_after_lines_that_are_no_rows(check):
    good = json.dumps(GOOD["sft"]).encode()
    text, _ = check("sft", b"\n".join([good, b"{'a': 1}", b'{"text": "\xff"}', b"", b"5", good, b'{"messages": [{"ro']))
    assert "4 of 6 rows can't be used" in text
    assert re.findall(r"rows\.jsonl:(\d+): (not JSON|not UTF-8|a row is)", text) == [
        ("2", "not JSON"), ("3", "not UTF-8"), ("5", "a row is"), ("7", "not JSON"),
    ]  # fmt: skip


def test_a_gzip_file_that_is_cut_off_is_an_error(check):
    content = gzip.compress("".join(json.dumps({"text": f"x = {n}"}) + "\n" for n in range(5000)).encode())
    text, _ = check("pretrain", content[: len(content) // 2], name="rows.jsonl.gz")
    assert "cut off" in text and check("pretrain", content, name="rows.jsonl.gz") == ("", [])


def test_the_fast_check_reads_the_first_rows_only(check, capsys):
    rows = [GOOD["sft"]] * FAST_ROWS + [{"messages": None}]
    assert check("sft", rows, limit=FAST_ROWS) == ("", [])
    assert main(["check", "--fast", "recipe.yaml"]) == 0
    assert f"the first {FAST_ROWS} rows of each file" in capsys.readouterr().out


def test_the_command_names_the_line_of_the_recipe_and_of_the_row(check, capsys, monkeypatch):
    check("sft", [GOOD["sft"], {"messages": None}])
    monkeypatch.setattr("alignment.stages.accepted_settings.ConfigTrial.refusals", lambda trial: [])
    assert main(["check", "recipe.yaml"]) == 1
    printed = capsys.readouterr().err
    assert "recipe.yaml:10: stages.train.data.0.data: rows.jsonl: 1 of 2 rows" in printed and "rows.jsonl:2" in printed


def test_equal_answers_are_a_mistake_with_their_lines(check):
    same = {"prompt": "Add.", "chosen": "caf\u00e9 ", "rejected": "cafe\u0301"}
    text, _ = check("dpo", [GOOD["dpo"], same, GOOD["dpo"], same])
    assert "2 of 4 preferences have two answers that are the same" in text and "rows.jsonl:2, rows.jsonl:4" in text


def test_a_run_checks_rows_before_it_starts_and_not_again_while_they_are_unchanged(check, monkeypatch):
    same = {"prompt": "Add.", "chosen": "a", "rejected": "a"}
    check("dpo", [GOOD["dpo"], same])
    assert check_before_run(load(Path("recipe.yaml"))) == []  # left out and counted by the stage
    with monkeypatch.context() as patch:
        patch.setattr("alignment.tokenization.row_checks.check_rows", lambda recipe: ([((), "read again")], []))
        assert check_before_run(load(Path("recipe.yaml"))) == []
    Path("rows.jsonl").write_text('{"text": 1}\n' * 3)
    with pytest.raises(RecipeError, match="document rows"):
        load(Path("recipe.yaml"))
    Path("rows.jsonl").write_text(f"{json.dumps(GOOD['dpo'])}\n{{}}\n")
    assert "1 of 2 rows" in check_before_run(load(Path("recipe.yaml")))[0][1]


LONG = "x = 1\n" * 100


@pytest.mark.parametrize(
    ("kind", "row", "settings"),
    [
        ("sft", {"messages": [{"role": "user", "content": "Add."}, {**ANSWER, "content": LONG}]}, "    train: {max_length: 128}\n"),
        ("dpo", {"prompt": "Add.", "chosen": LONG, "rejected": "a"}, "    train: {max_length: 128}\n"),
        ("grpo", {**GOOD["grpo"], "prompt": LONG}, "    max_prompt_length: 128\n"),
    ],
)  # fmt: skip
def test_overlong_rows_are_counted_and_a_mistake_if_none_is_left(check, kind, row, settings):
    text, notes = check(kind, [GOOD[kind], row], settings)
    assert text == "" and "1 of 2 rows are longer" in notes[0] and "rows.jsonl:2" in notes[0]
    assert "every row is longer" in check(kind, [row, row], settings)[0]
    if kind != "grpo":
        text, _ = check(kind, [GOOD[kind], row], settings + "    overlong: error\n")
        assert "`overlong: error`" in text and "rows.jsonl:2" in text


def test_special_tokens_in_texts_are_named(check):
    row = {"messages": [{"role": "user", "content": "What is <|im_end|>?"}, ANSWER]}
    text, notes = check("sft", [GOOD["sft"], row])
    assert text == "" and "1 of 2 rows have the text of a special token" in notes[0] and "rows.jsonl:2" in notes[0]


def test_rows_beyond_the_limit_of_a_source_are_not_read(check):
    Path("more.jsonl").write_text(json.dumps({"messages": None}) + "\n")
    text, _ = check("sft", [GOOD["sft"], {"messages": None}])
    recipe = Path("recipe.yaml").read_text().replace("data: rows.jsonl", "data: rows.jsonl, rows: 1")
    Path("recipe.yaml").write_text(recipe)
    assert text and check_rows(load(Path("recipe.yaml"))) == ([], [])


@pytest.mark.parametrize(
    ("benchmark", "good", "wrong"),
    [
        ("tasks", GOOD["grpo"], {**GOOD["grpo"], "tests": "{"}),
        ("tasks", GOOD["grpo"], {**GOOD["grpo"], "prompt": ["a"]}),
        ("fim", {"id": "a", "prefix": "a", "middle": "b", "suffix": "c"}, {"id": "a", "prefix": "a", "middle": "b"}),
        ("completion", {"id": "a", "prefix": "a", "middle": "b"}, {"id": "a", "prefix": None, "middle": "b"}),
    ],
)
def test_rows_of_benchmarks_are_read_too(check, benchmark, good, wrong):
    check("sft", [GOOD["sft"]])
    Path("bench.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n")
    recipe = Path("recipe.yaml")
    recipe.write_text(
        recipe.read_text()
        + f"evaluate: [{{name: b, benchmark: {benchmark}, data: bench.jsonl}}]\ndecontaminate: [no.jsonl]\n"
    )
    Path("no.jsonl").write_text("hello\n")
    (place, message), (other, unread) = check_rows(load(recipe))[0]
    assert place == ("evaluate", 0, "data") and "bench.jsonl:2" in message and "1 of 2" in message
    assert other == ("decontaminate", 0) and "no.jsonl:1: not JSON" in unread


def rows_of(case, path):
    """The content of a case's file."""
    content = case.get("text", "").encode() or base64.b64decode(case.get("base64", ""))
    if not case.get("parquet"):
        return content
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in content.splitlines()]), path)
    return path.read_bytes()


READ = {"file-json-array-suffix", "sft-tool-calls", "tool-calls-content-null", "tools-column"}
"""Cases that are read although they may be refused: a JSON array in a .json file, and tools with their calls."""


def test_every_known_file_of_rows_gives_its_right_result(check, tmp_path):
    path = CASES / "rows.jsonl"
    if not path.is_file():
        pytest.skip("the file of cases is not here")
    wrong = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        given, right = case["input"], case["right"]
        name = given.get("file") or ("rows.csv" if given["id"] == "csv" else "rows.jsonl")
        text, _ = check(given["stage"], rows_of(given, tmp_path / "x.parquet"), given.get("settings", ""), name)
        refused = bool(text) and all(re.search(pattern, text) for pattern in right["names"])
        if (right["check"] == "refuse" and given["id"] not in READ) != refused or (right["check"] == "accept" and text):
            wrong[given["id"]] = text
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_every_known_row_that_a_stage_refuses_is_refused_by_the_check(check, name):
    path = CASES / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("the file of cases is not here")
    wrong = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        given, right = case["input"], case["right"]
        text, _ = check(given["stage"], [given["row"]], given.get("settings", ""))
        patterns = [re.sub(r"^row 1$", r"row 1|rows\.jsonl:1", pattern) for pattern in right.get("refused", [])]
        if text and not (patterns and all(re.search(pattern, text) for pattern in patterns)):
            wrong[given["id"]] = text
        if not text and "sides" not in right and given["id"] not in READ:
            wrong[given["id"]] = "not refused"
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


def test_rows_that_a_benchmark_measures_are_refused_unless_the_overlap_is_allowed(tmp_path):
    rows = tmp_path / "tasks.jsonl"
    rows.write_text(json.dumps(GOOD["grpo"]) + "\n")
    evaluate = "evaluate:\n  - {{name: own, benchmark: tasks, data: {data}{more}}}\n"
    written = RECIPE.format(tokenizer=tmp_path, kind="grpo", data=rows, settings=evaluate.format(data=rows, more=""))
    (tmp_path / "recipe.yaml").write_text(written)
    with pytest.raises(RecipeError, match="benchmark 'own' measures these rows: train on others"):
        load(tmp_path / "recipe.yaml")
    allowed = evaluate.format(data=rows, more=", allow_overlap: the tasks themselves are measured")
    written = RECIPE.format(tokenizer=tmp_path, kind="grpo", data=rows, settings=allowed)
    (tmp_path / "recipe.yaml").write_text(written)
    try:
        load(tmp_path / "recipe.yaml")
    except RecipeError as error:
        assert "measures these rows" not in str(error)

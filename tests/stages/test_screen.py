"""Removal of benchmark tasks from training rows of every kind."""

import json

import pytest
from datasets import load_from_disk

from alignment.models import formats
from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets, StageRequest
from alignment.stages import dpo, grpo
from alignment.tokenization.prepare import write_training_rows
from alignment.tokenization.screen import REPORT
from alignment.tokenization.segments import TokenizationRules

SOLUTION = (
    "def merge_intervals(intervals):\n"
    '    """Join all overlapping intervals of a list and return them in ascending order of their starts."""\n'
    "    merged = []\n    for start, end in sorted(intervals):\n        merged.append([start, end])\n    return merged\n"
)
TASK = {
    "id": "held-1", "prompt": "Write merge_intervals, which joins the overlapping intervals that a list of pairs holds.",
    "language": "python", "kind": "asserts", "tests": json.dumps({"code": SOLUTION}),
    "entry_point": "merge_intervals", "source": "t", "split": "test",
}  # fmt: skip
CLEAN = "def greet(name):\n    return f'Hello, {name}'\n"
RULES = TokenizationRules(512, "drop", 0.5, 0.0, "lines", None)


def conversation(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def rows_of(kind, text):
    return {
        "document": {"text": text, "path": "a.py"},
        "repository": {"repository": "r", "files": [{"path": "a.py", "text": CLEAN}, {"path": "b.py", "text": text}]},
        "conversation": {"messages": conversation("Help me, please.", text), "source": "s"},
        "preference": {"prompt": "Help me, please.", "chosen": CLEAN + "1", "rejected": text, "source": "s"},
        "task": {**TASK, "id": f"t-{len(text)}", "prompt": f"Do this:\n{text}", "tests": '{"code": "assert greet"}'},
    }[kind]


@pytest.fixture
def targets(tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_text(json.dumps(TASK) + "\n")
    return ScreenTargets(benchmarks=(BenchmarkRows(name="instruct", benchmark="tasks", data=str(path)),))


def prepared(kind, source, tokenizer, targets, out):
    """The texts of the rows that remain, and the counts."""
    entry = source([rows_of(kind, CLEAN), rows_of(kind, SOLUTION), rows_of(kind, CLEAN + "x = 1\n")])
    if kind in ("task", "preference"):
        trained, prepare = ("grpo", grpo.prepare_tasks) if kind == "task" else ("dpo", dpo.prepare_pairs)
        stage = {"name": trained, "kind": trained, "data": [{"data": entry.data}]}
        counts = prepare(StageRequest.for_stage(stage, out, decontaminate=targets), tokenizer, out)
        rows = list(load_from_disk(str(out / "train")))
        if kind == "task":
            return [json.dumps(row) for row in rows], counts
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        return [tokenizer.decode([token for name in columns for token in row[name]]) for row in rows], counts
    counts = write_training_rows([entry], tokenizer, RULES, 0, out, targets)
    return [tokenizer.decode(row["input_ids"]) for row in load_from_disk(str(out / "train"))], counts


@pytest.mark.parametrize("kind", ["document", "repository", "conversation", "preference", "task"])
def test_a_planted_task_is_removed_from_every_kind_of_row_and_reported(kind, source, tiny_tokenizer, targets, tmp_path):
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    texts, counts = prepared(kind, source, tiny_tokenizer, targets, tmp_path)
    assert len(texts) == 2 and not any("Join all overlapping" in text for text in texts)
    figures = counts["decontamination"]
    assert (figures["rows"], figures["removed"], figures["by_benchmark"]) == (3, 1, {"instruct": 1})
    (line,) = map(json.loads, (tmp_path / REPORT).read_text().splitlines())
    assert (line["row"], line["benchmark"], line["rule"]) == (2, "instruct", "10-gram")
    assert "intervals" in line["words"]


def test_a_folder_of_the_recipe_counts_as_a_benchmark(source, tiny_tokenizer, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "own.jsonl").write_text(json.dumps({"anything": SOLUTION}) + "\n")
    _, counts = prepared("document", source, tiny_tokenizer, ScreenTargets(paths=(folder,)), tmp_path)
    assert counts["decontamination"]["by_benchmark"] == {"own.jsonl": 1}


def test_a_benchmark_that_may_overlap_removes_nothing_and_its_reason_is_logged(
    source, tiny_tokenizer, tmp_path, caplog
):
    allowed = {"instruct": "the grammar is shared by design"}
    with caplog.at_level("INFO"):
        texts, counts = prepared("document", source, tiny_tokenizer, ScreenTargets(allowed=allowed), tmp_path)
    assert len(texts) == 3 and counts["decontamination"]["allowed"] == allowed
    assert "the grammar is shared by design" in caplog.text


def test_missing_benchmark_rows_are_an_error_that_suggests_allow_overlap(source, tiny_tokenizer, targets, tmp_path):
    (tmp_path / "held.jsonl").unlink()
    with pytest.raises(ValueError, match="allow_overlap"):
        prepared("document", source, tiny_tokenizer, targets, tmp_path)


def test_text_that_all_tasks_of_a_benchmark_share_removes_no_row(source, tiny_tokenizer, targets, tmp_path):
    check = json.dumps({"code": "assert greet"})
    frame = (
        "You work in the repository of our web shop. Write the body of the function that the tests of this file call."
    )
    path = tmp_path / "held.jsonl"
    words = [f"{word} every {word}ish thing" for word in ("sort", "join", "split", "count", "rank", "fold") * 4]
    path.write_text(
        "".join(
            json.dumps(TASK | {"id": f"t{n}", "prompt": f"{frame} {text} {n}", "tests": check}) + "\n"
            for n, text in enumerate(words)
        )
    )
    _, counts = prepared("document", source, tiny_tokenizer, targets, tmp_path)
    entry = source([{"text": f"{frame} Ours is another one: greet everybody by name."}, {"text": CLEAN}])
    counts = write_training_rows([entry], tiny_tokenizer, RULES, 0, tmp_path, targets)
    assert counts["decontamination"]["removed"] == 0
    entry = source([{"text": f"{frame} sort every sortish thing 0"}, {"text": CLEAN}])
    counts = write_training_rows([entry], tiny_tokenizer, RULES, 0, tmp_path, targets)
    assert counts["decontamination"]["removed"] == 1

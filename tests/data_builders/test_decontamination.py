"""Benchmark tasks are found in training rows of any kind."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder

from alignment.models import formats
from alignment.rows import reading as row_files
from alignment.rows.messages import conversation_of, is_learned
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.storage.dataset import DatasetWriter

TASK = {
    "task_id": "Own/0",
    "entry_point": "rotate_left",
    "prompt": "def rotate_left(values, count):\n"
    '    """Rotate the list to the left by count places and return a new list of values."""\n',
    "canonical_solution": "    return values[count:] + values[:count]\n",
    "test": "assert rotate_left([1, 2, 3], 1) == [2, 3, 1]",
}
SHORT = {"task_id": 9, "text": "Write a function to add two numbers.", "code": "def add(a, b):\n    return a + b"}
CLEAN = (
    "def summarize(report):\n"
    '    """Put the figures of a report into one line for the people who read it."""\n    return report.line()\n'
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "own.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (TASK, SHORT)))
    return path


@pytest.fixture(scope="module")
def index(benchmark: Path) -> Decontaminator:
    return Decontaminator.from_paths([benchmark])


def test_a_planted_task_is_found_in_every_kind_of_row(index: Decontaminator) -> None:
    planted = TASK["prompt"] + TASK["canonical_solution"]
    message = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": planted}]
    rows: list[dict[str, Any]] = [
        {"text": f"# copied\n\n{planted}"},
        {"messages": message},
        {"prompt": message[:1], "chosen": message[:1], "rejected": message[1:]},
        {"prompt": "Rotate", "tests": json.dumps({"code": planted}), "kind": "asserts"},
    ]
    assert all(index.check_row(row) for row in rows)


def test_layout_case_and_punctuation_do_not_hide_a_task(index: Decontaminator) -> None:
    assert index.check("ROTATE the list -- to the left, by COUNT places;\n  and return a new list")


def test_the_solution_without_its_docstring_is_found(index: Decontaminator) -> None:
    assert index.check(f"x = 1\n\ndef rotate_left(values, count):\n{TASK['canonical_solution']}")


def test_a_short_program_is_found_inside_other_code(index: Decontaminator) -> None:
    match = index.check(f"import os\n\n{SHORT['code']}\n\nprint(add(1, 2))\n")
    assert match and match.rule == "short program"


def test_a_short_body_counts_only_as_a_whole_answer(index: Decontaminator) -> None:
    body = TASK["canonical_solution"]
    assert index.check(body)
    assert index.check(f"Here you are:\n```python\n{body}```\nDone.")
    assert not index.check(f"def other(values, count):\n    log(values)\n{body}    # and more of our own words here\n")


def test_clean_code_and_common_lines_do_not_match(index: Decontaminator) -> None:
    assert not index.check(CLEAN)
    assert not index.check("values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]")


def test_sequences_of_numbers_or_single_letters_and_imports_do_not_match() -> None:
    index = Decontaminator()
    index.add(
        "b",
        [
            {"prompt": "sort 1 2 3 4 5 6 7 8 9 10 11 12 into a b c d e f g h i j k l"},
            {"prompt": "import os\nimport sys\nfrom typing import List, Dict, Tuple, Optional, Any, Union, Set\n"},
        ],
    )
    assert not index.check("1 2 3 4 5 6 7 8 9 10 11 12")
    assert not index.check("a b c d e f g h i j k l")
    assert not index.check("from typing import List, Dict, Tuple, Optional, Any, Union, Set\n")


def test_gzipped_files_and_folders_of_benchmarks_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "own.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(TASK))
    assert Decontaminator.from_paths([tmp_path]).check(TASK["prompt"])


def test_build_clean_removes_and_counts_tasks_secrets_and_duplicates(tmp_path: Path, benchmark: Path) -> None:
    writer = DatasetWriter(tmp_path / "in", "conversation")
    for answer in (CLEAN, CLEAN, TASK["prompt"], 'password = "tr0ub4dor&3"  # the way into our database'):
        writer.write(
            {
                "messages": [{"role": "user", "content": "Help me"}, {"role": "assistant", "content": answer}],
                "source": "x",
            }
        )
    writer.finish("in", {}, {})
    report = run_builder("clean", tmp_path / "out", inputs=[tmp_path / "in"], decontaminate=[benchmark])
    assert report["removed"] == {"contaminated: own.jsonl: 10-gram": 1, "duplicate": 1}
    assert report["redacted"] == {"PASSWORD": 1}
    texts = [row["messages"][1]["content"] for row in row_files.read(tmp_path / "out")]
    assert texts == [CLEAN, 'password = "REDACTED_PASSWORD_1"  # the way into our database']


def test_build_clean_keeps_tools_calls_and_marks_of_answers(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    rows = []
    for key in ("a", "b"):
        call = {"type": "function", "function": {"name": "f", "arguments": {key: 1}}}
        messages: list[dict[str, object]] = [
            {"role": "user", "content": f"Help me with {key}"},
            {"role": "assistant", "content": None, "tool_calls": [call], "train": False},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": f"I called {key}."},
        ]
        rows.append({"messages": messages, "tools": tools})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_builder("clean", tmp_path / "out", inputs=[tmp_path / "rows.jsonl"])
    for row, kept in zip(rows, row_files.read(tmp_path / "out"), strict=True):
        messages, kept_tools = conversation_of(kept, "row 1")
        assert kept_tools == tools and [is_learned(message) for message in messages] == [False, False, False, True]
        expected, _ = conversation_of(row, "row 1")
        assert formats.chat(messages) == formats.chat(expected)


def test_every_task_of_the_real_benchmarks_is_found_by_its_solution() -> None:
    folder = Path(os.environ.get("ALIGN_DATA_DIR", "../shared/data")) / "benchmarks"
    if not folder.is_dir():
        pytest.skip(f"no benchmarks at {folder}; set ALIGN_DATA_DIR")
    files = [folder / "HumanEval.jsonl.gz", folder / "mbpp.jsonl"]
    index = Decontaminator.from_paths(files)
    missed = []
    for row in row_files.read(files[0]):
        if not index.check(f"# found on the web\n{row['prompt']}{row['canonical_solution']}"):
            missed.append(row["task_id"])
    missed += [
        row["task_id"]
        for row in row_files.read(files[1])
        if not index.check(f"# found on the web\n{row['code']}\n# end")
    ]
    assert missed == []

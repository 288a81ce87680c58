"""Every line of JSON in docs/rows.md is a row of the kind that its section describes."""

import json
import re
from pathlib import Path

import pytest

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks import user_rows
from alignment.grading import read_task
from alignment.rows.conversions import convert
from alignment.rows.dialogue_pairs import pair_of
from alignment.rows.feedback_rows import feedback_of
from alignment.rows.kinds import check_columns, check_document, kind_of
from alignment.rows.messages import check_learned, conversation_of
from alignment.stages.grpo import check_task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rows.md"


def examples():
    """(section, row) of every line of the page's blocks of JSON."""
    section, inside = "", False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ").strip("`")
        elif line.startswith("```"):
            inside = line == "```json"
        elif inside:
            yield pytest.param(section, json.loads(line), id=f"{section}-{line[:30]}")


def read_as(kind, row):
    """Read a row as a stage does; raises ValueError for a row of another kind."""
    assert kind_of(row, "row 1") == kind
    check_columns(row, kind, "row 1")
    if kind == "document":
        check_document(row, "row 1")
    elif kind == "conversation":
        messages, tools = conversation_of(row, "row 1")
        check_learned(messages, "row 1")
        return messages, tools
    elif kind == "preference":
        return pair_of(row, "row 1")
    elif kind == "feedback":
        return feedback_of(row, "row 1")
    elif kind == "task" and "tests" in row:
        check_task(row, "row 1")
        read_task(row)
    return row


@pytest.mark.parametrize(("section", "row"), examples())
def test_every_line_of_the_page_is_read(section, row, tmp_path):
    kinds = {"Documents": "document", "Conversations": "conversation", "Tools": "conversation",
             "Preferences": "preference", "Feedback": "feedback", "Tasks": "task"}  # fmt: skip
    if section in kinds:
        assert read_as(kinds[section], row)
    elif section == "Infilling":
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        request = BenchmarkRequest(benchmark="fim", name="fim", data=str(tmp_path / "rows.jsonl"))
        assert user_rows.fim(request).problems
    else:
        form = re.fullmatch(r"format: (\w+)", section)
        assert form, f"no kind of row is known for the section {section!r}"
        pair = bool({"chosen", "preferred_output"} & set(row))
        assert read_as("preference" if pair else "conversation", convert(row, form.group(1), "row 1"))


def test_the_page_has_every_kind_and_every_form():
    sections = {example.values[0] for example in examples()}
    forms = {f"format: {form}" for form in ("sharegpt", "alpaca", "openai")}
    assert sections == {"Documents", "Conversations", "Tools", "Preferences", "Feedback", "Tasks", "Infilling"} | forms

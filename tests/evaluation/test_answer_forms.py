"""Answer forms of tasks: the prompt and the program of each form, and the end of a body."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.evaluation.answer_forms import (
    TEXT_FORMS,
    ends_by_syntax,
    form_of,
    program_of_answer,
    prompt_of,
    prompt_text,
    reference_answer,
    stop_texts,
)
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.user_rows import tasks
from alignment.evaluation.problem import ChatPrompt, FimPrompt, TextPrompt
from alignment.rewards.answers import program_of

HEAD = 'LIMIT = 3\n\n\nclass Basket:\n    def put(self, thing):\n        """Put a thing in."""\n'
ROW: dict[str, Any] = {
    "id": "a", "prompt": "Write it.", "language": "python", "entry_point": "put", "prefix": HEAD, "suffix": "\n\n    def size(self):\n",
    "kind": "asserts", "tests": json.dumps({"code": "assert put"}),
}  # fmt: skip
BODY = "        if thing:\n            self.things.append(thing)\n\n        return self\n"


def row(form: str, **columns: Any) -> dict[str, Any]:
    return {**ROW, "answer": form, **columns}


def test_each_form_has_its_prompt() -> None:
    assert prompt_of(row("continuation")) == TextPrompt(HEAD)
    assert prompt_of(row("fim")) == FimPrompt(HEAD, ROW["suffix"])
    chat = ChatPrompt(({"role": "user", "content": "Write it."},))
    assert prompt_of(row("body")) == prompt_of(row("function")) == prompt_of({"prompt": "Write it."}) == chat
    assert prompt_text(row("fim")) == f"<|fim_prefix|>{HEAD}<|fim_suffix|>{ROW['suffix']}<|fim_middle|>"
    assert prompt_text(row("continuation", prefix="a = '<|im_end|>'\n")) != "a = '<|im_end|>'\n"  # no special token


@pytest.mark.parametrize("form", TEXT_FORMS)
@pytest.mark.parametrize(
    "more", ["", "\n    def size(self):\n        return 1\n", "\n\ndef other():\n    pass\n", "\nprint(Basket())\n"]
)
def test_a_body_is_cut_where_its_block_ends(form: str, more: str) -> None:
    assert program_of_answer(row(form), BODY + more).rstrip() == BODY.rstrip()
    assert ends_by_syntax(row(form), BODY + more) is bool(more)
    assert program_of([{"role": "assistant", "content": BODY + more}], row(form)).rstrip() == BODY.rstrip()


@pytest.mark.parametrize("answer", ["        if thing:\n            self.things.app", "        return [\n", ""])
def test_an_unfinished_body_has_no_end(answer: str) -> None:
    assert not ends_by_syntax(row("fim"), answer)


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\nreturn self\n```", "return self"),
        ("Here it is:\n```python\n        x = 1\n        return x\n```\nDone.", "x = 1\nreturn x"),
        ("```python\nx = 1\n        return x\n```", "x = 1\nreturn x"),
        ("        return self\n", "return self"),
        ("```python\ndef put(self, thing):\n    return self\n```", "def put(self, thing):\n    return self"),
        ("```python\nprint(self)\nself.things.append(thing)\n```", "print(self)\nself.things.append(thing)"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_body_is_found_in_a_chat_answer(answer: str, program: str) -> None:
    assert program_of_answer(row("body"), answer).strip() == program


def test_javascript_bodies_end_at_the_closing_brace() -> None:
    task = row("continuation", language="javascript", prefix="function f(a) {\n")
    answer = "  if (a) { return '}'; }\n  return 1;\n}\n\nfunction g() {\n"
    assert program_of_answer(task, answer) == "  if (a) { return '}'; }\n  return 1;\n"
    assert ends_by_syntax(task, answer) and stop_texts(task) == ()


def test_generation_stops_at_definitions_outside_of_the_body() -> None:
    stops = stop_texts(row("continuation"))
    assert "\ndef " in stops and "\n    def " in stops and "\n        def " not in stops
    assert stop_texts(row("body")) == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"answer": "whole"}, "choose one of function, body, continuation, fim"), ({"answer": "fim", "suffix": None}, "`suffix`"),
     ({"answer": "continuation", "prefix": 3}, "`prefix`")],
)  # fmt: skip
def test_a_wrong_form_is_refused_with_its_place(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"a\.jsonl, row 3") as caught:
        form_of({**ROW, **columns}, "a.jsonl, row 3")
    assert message in str(caught.value)


def test_the_reference_is_an_answer_in_the_form_of_the_row() -> None:
    columns = {"reference": "def put(self, thing):\n    return 1", "reference_body": "        return 1"}
    assert reference_answer({**ROW, **columns}) == f"```python\n{columns['reference']}\n```"
    assert reference_answer(row("body", **columns)) == "```python\nreturn 1\n```"
    assert reference_answer(row("fim", **columns)) == "        return 1\n"
    assert reference_answer(row("fim")) == ""
    for form in ("body", *TEXT_FORMS):
        assert program_of_answer(row(form), reference_answer(row(form, **columns))).strip() == "return 1"


def request(tmp_path: Path, rows: list[dict[str, Any]], mode: Any = None) -> BenchmarkRequest:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return BenchmarkRequest(name="own", benchmark="tasks", data=path, mode=mode)


def test_the_benchmark_of_tasks_follows_the_form_of_its_rows(tmp_path: Path) -> None:
    benchmark = tasks(request(tmp_path, [row("fim"), row("continuation", id="b")]))
    assert benchmark.mode == "base" and "<|fim_pad|>" in benchmark.stop_tokens and benchmark.stop_rate
    assert [type(problem.prompt) for problem in benchmark.problems] == [FimPrompt, TextPrompt]
    assert benchmark.assemble(benchmark.problems[0], BODY + "\nx = 1\n").rstrip() == BODY.rstrip()
    assert tasks(request(tmp_path, [row("body")])).mode == "chat"


@pytest.mark.parametrize(
    ("forms", "mode", "message"), [(["fim", "body"], None, "split the file"), (["fim"], "chat", "remove `mode`")]
)
def test_forms_that_do_not_fit_together_are_refused(forms: list[str], mode: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tasks(request(tmp_path, [row(form, id=form) for form in forms], mode))

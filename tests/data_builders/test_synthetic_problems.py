"""Rows of the grammar: problems whose reference passes its tests, FIM tasks that fit together, repeatable files."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder

from alignment.models.formats import DEFAULT_SYSTEM_PROMPT
from data_builders.synthetic.build_synthetic import build_conversations, build_documents, build_tasks
from data_builders.synthetic.grammar import draw_composition, execute
from data_builders.synthetic.grammar_problems import file_problem, stated_problem
from data_builders.synthetic.real_code import history_documents, standard_library_documents


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def passes(task: dict[str, Any], program: str) -> bool:
    cases = json.loads(task["tests"])["cases"]
    results = execute(program, task["entry_point"], [case["args"][0] for case in cases])
    return results == [case["expected"] for case in cases]


@pytest.mark.parametrize("functions", [0, 1, 2, 12])
def test_reference_answer_runs_by_itself_and_passes(functions: int) -> None:
    generator = random.Random(functions)
    for number in range(20):
        composition = draw_composition(generator, 3, "train")
        problem = (
            file_problem(composition, generator, functions) if functions else stated_problem(composition, generator)
        )
        assert passes(problem.task(f"t-{number}", generator), problem.answer)


def test_file_problem_shows_as_many_functions_as_asked_behind_the_instruction() -> None:
    generator = random.Random(7)
    problem = file_problem(draw_composition(generator, 3, "train"), generator, 9)
    instruction, shown = problem.prompt.split("```python\n")
    assert "solve(" in instruction
    assert shown.count("def ") == 9


def test_no_held_out_function_occurs_in_what_trains(tmp_path: Path) -> None:
    run_builder("synthetic", tmp_path, seed=3, modules=600, repositories=50, standard_library=0, history=0, conversations=600,
          long_conversations=60, rl_tasks=60, heldout_tasks=60)  # fmt: skip
    held = [row["prefix"] + row["middle"] + row["suffix"] for row in read(tmp_path / "heldout-fim.jsonl")]
    bodies = [body_of(source) for source in held]
    trained = "".join((tmp_path / f"{name}.jsonl").read_text() for name in ("documents", "conversations", "long", "rl"))
    assert len(bodies) == 60
    assert not [body for body in bodies if json.dumps(body)[1:-1] in trained]


def test_the_tokenizer_has_whole_tokens_for_the_words_of_a_chat(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    run_builder("synthetic", tmp_path, seed=1, modules=200, repositories=5, standard_library=5000, history=0, conversations=200,
          long_conversations=5, rl_tasks=5, heldout_tasks=5)  # fmt: skip
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    words = len(DEFAULT_SYSTEM_PROMPT.replace(",", " ,").replace(".", " .").split())
    assert len(tokenizer.encode(DEFAULT_SYSTEM_PROMPT).ids) == words


def body_of(source: str) -> str:
    """The lines between the docstring and the end of the function."""
    return "".join(source.splitlines(keepends=True)[2:])


def test_fim_parts_join_to_the_reference_and_the_middle_is_whole_lines(tmp_path: Path) -> None:
    build_tasks(tmp_path / "fim.jsonl", seed=0, split="heldout", form="fim", count=40)
    for task in read(tmp_path / "fim.jsonl"):
        assert task["middle"].startswith("    ") and task["middle"].endswith("\n")
        assert passes(task, task["prefix"] + task["middle"] + task["suffix"])


@pytest.mark.parametrize("form", ["fim", "stated", "file"])
def test_tasks_have_the_contract_and_different_compositions(tmp_path: Path, form: Any) -> None:
    assert build_tasks(tmp_path / "tasks.jsonl", seed=1, split="rl", form=form, count=30) == 30
    rows = read(tmp_path / "tasks.jsonl")
    columns = {"id", "prompt", "language", "kind", "tests", "entry_point", "source", "split"}
    assert {column for row in rows for column in row} - {"prefix", "suffix", "middle"} == columns
    assert len({row["id"] for row in rows}) == 30
    assert {(row["kind"], row["split"]) for row in rows} == {("calls", "rl")}


def test_an_unknown_form_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fim, stated or file"):
        build_tasks(tmp_path / "tasks.jsonl", seed=1, split="rl", form="poem", count=1)  # type: ignore[arg-type]


def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_conversations(tmp_path / f"{name}.jsonl", seed=seed, stated=20, files=10)
        build_documents(tmp_path / f"{name}-documents.jsonl", seed=seed, modules=20, repositories=5, notes=5)
    for kind in ("", "-documents"):
        first, second, third = ((tmp_path / f"{name}{kind}.jsonl").read_bytes() for name in "abc")
        assert first == second != third


def test_documents_have_the_contract(tmp_path: Path) -> None:
    build_documents(tmp_path / "d.jsonl", seed=0, modules=3, repositories=2, notes=2, standard_library=5000)
    rows = read(tmp_path / "d.jsonl")
    assert {frozenset(row) for row in rows} == {
        frozenset(("text", "repository", "path", "commit", "language", "license", "kind"))
    }
    assert {row["kind"] for row in rows} == {"synthetic", "grounding", "code"}


def test_standard_library_choice_depends_on_the_seed_alone() -> None:
    first, second, other = ([row["path"] for row in standard_library_documents(seed, 60_000)] for seed in (0, 0, 1))
    assert first == second != other


def test_history_gives_message_and_patch_and_nothing_outside_a_checkout(tmp_path: Path) -> None:
    assert list(history_documents(tmp_path / "absent", 1000)) == []
    (tmp_path / "a.py").write_text("x = 1\n")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Add a constant"),
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (row,) = history_documents(tmp_path, 1000)
    assert row["text"].startswith("Add a constant") and "+x = 1" in row["text"]
    assert row["kind"] == "commit" and len(row["commit"]) == 40

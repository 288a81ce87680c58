"""The grammar: what a composition means, which split it belongs to, and that nothing leaks between splits."""

import ast
import json
import random

import pytest

from data_builders.synthetic.documents import module_documents, notes_documents, repository_documents
from data_builders.synthetic.grammar import (
    SPLITS,
    Composition,
    count_compositions,
    draw_composition,
    draw_distinct,
    draw_inputs,
    every_step_matters,
    execute,
)
from data_builders.synthetic.operations import OPERATIONS, VARIABLES

BY_NAME = {operation.name: operation for operation in OPERATIONS}


def composed(*names: str) -> Composition:
    return Composition(tuple(BY_NAME[name] for name in names))


def test_operations_have_distinct_names_lines_and_phrases() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    assert len({(operation.takes, operation.line) for operation in OPERATIONS}) == len(OPERATIONS)
    phrases = [phrase for operation in OPERATIONS for phrase in operation.phrases]
    assert len(set(phrases)) == len(phrases)
    assert not any(", then " in phrase or "." in phrase for phrase in phrases)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_operation_reads_only_the_variable_of_its_kind(operation) -> None:
    names = {node.id for node in ast.walk(ast.parse(operation.line)) if isinstance(node, ast.Name)}
    assert VARIABLES[operation.takes] in names
    assert not names & (set(VARIABLES.values()) - {VARIABLES[operation.takes]})


def test_source_computes_the_steps_in_order() -> None:
    source = composed("keep_even", "double", "reverse").source("f")
    assert execute(source, "f", [[1, 2, 4, 5], []]) == [[8, 4], []]


def test_docstring_names_the_steps_in_order() -> None:
    function = ast.parse(composed("upper", "dashes", "head").source("f")).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert ast.get_docstring(function) == (
        "Convert to upper case #1, then replace spaces with dashes #2, then take the first three characters #3."
    )


def test_every_step_is_marked_above_its_line() -> None:
    lines = composed("upper", "dashes").source("f", "").splitlines()
    assert lines == [
        "def f(text):",
        "    #1",
        "    text = text.upper()",
        "    #2",
        '    text = text.replace(" ", "-")',
        "    return text",
    ]


def test_a_step_without_effect_is_refused() -> None:
    assert not every_step_matters(composed("upper", "lower"))
    assert not every_step_matters(composed("reverse", "ascending"))
    assert every_step_matters(composed("ascending", "first_three"))


def test_every_input_of_a_kind_ends_with_the_empty_one() -> None:
    assert draw_inputs("numbers", random.Random(0))[-1] == []
    assert draw_inputs("text", random.Random(0))[-1] == ""


def test_results_survive_json() -> None:
    generator = random.Random(3)
    for _ in range(200):
        composition = draw_composition(generator, generator.choice((1, 2, 3)))
        results = execute(composition.source("f"), "f", draw_inputs(composition.takes, generator))
        assert json.loads(json.dumps(results)) == results


def test_splits_have_about_their_shares() -> None:
    generator = random.Random(1)
    drawn = [draw_composition(generator, 3).split for _ in range(1500)]
    for split, share in SPLITS.items():
        assert abs(100 * drawn.count(split) / len(drawn) - share) < 4


def test_single_operations_are_never_held_out() -> None:
    assert {Composition((operation,)).split for operation in OPERATIONS} == {"train"}


def test_distinct_draws_are_distinct_repeatable_and_of_their_split() -> None:
    first = [composition.key for composition in draw_distinct(5, "heldout", 60, (2, 3))]
    assert first == [composition.key for composition in draw_distinct(5, "heldout", 60, (2, 3))]
    assert len(set(first)) == 60
    assert {composed(*key.split(">")).split for key in first} == {"heldout"}


def lines_of_bodies(text: str) -> list[tuple[str, ...]]:
    """Return the lines of each function's body below the docstring. Calls of helpers are replaced by their lines."""
    bodies: dict[str, tuple[str, ...]] = {}
    code = text.split("```python\n")[-1].removesuffix("```\n")
    for function in ast.parse(code).body:
        if isinstance(function, ast.FunctionDef):
            lines: list[str] = []
            for statement in function.body[1:-1]:
                line = ast.unparse(statement)
                called = line.split(" = ")[-1].split("(")[0]
                lines += bodies.get(called, (line,))
            bodies[function.name] = tuple(lines)
    return list(bodies.values())


def test_no_training_document_holds_a_held_out_composition() -> None:
    held_out = set()
    for split in ("rl", "dev", "heldout"):
        for composition in draw_distinct(0, split, 150, (2, 3)):
            held_out.update(lines_of_bodies(composition.source("f")))
    repositories = list(repository_documents(0, 150))
    joined = [
        {"text": f"{helpers['text']}\n\n{main['text']}"}
        for helpers, main in zip(repositories[::2], repositories[1::2], strict=True)
    ]
    documents = [*module_documents(0, 400), *notes_documents(0, 200), *joined]
    seen = {body for row in documents for body in lines_of_bodies(row["text"])}
    assert len(seen) > 500
    assert not seen & held_out


def test_more_compositions_than_the_grammar_has_are_refused_with_their_number() -> None:
    total = count_compositions("dev", (2,))
    assert len(list(draw_distinct(1, "dev", total, (2,)))) == total
    with pytest.raises(ValueError, match=f"has {total} compositions"):
        list(draw_distinct(1, "dev", total + 1, (2,)))

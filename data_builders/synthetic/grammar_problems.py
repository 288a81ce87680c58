"""Compositions as rows: conversations, executable tasks and fill-in-the-middle tasks.

A problem states all steps of its function. It may also show the file that the function will join; the number of
functions in that file sets the distance between the instruction and the answer.
"""

import json
import random
from dataclasses import dataclass
from typing import Any

from data_builders.synthetic.grammar import (
    Composition,
    draw_composition,
    draw_inputs,
    draw_name,
    draw_names,
    draw_summary,
    execute,
    render,
)
from data_builders.synthetic.operations import VARIABLES

Row = dict[str, Any]

SOURCE = "synthetic"
"""Value of the column `source` in all rows of this grammar."""


@dataclass(frozen=True)
class GrammarProblem:
    """A question and its reference answer, a program that defines `entry_point`."""

    prompt: str
    answer: str
    entry_point: str
    composition: Composition

    def conversation(self) -> Row:
        """Return a conversation of one turn; the answer is a fenced code block."""
        messages = [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": f"```python\n{self.answer}```"},
        ]
        return {"messages": messages, "source": SOURCE}

    def task(self, identifier: str, generator: random.Random) -> Row:
        """Return an executable task of kind `calls`; the expected values are results of the reference answer.

        Args:
            identifier: the row's `id`.
            generator: draws the inputs of the tests.
        """
        return {
            "id": identifier,
            "prompt": self.prompt,
            "language": "python",
            "kind": "calls",
            "tests": call_tests(self.answer, self.entry_point, self.composition, generator),
            "entry_point": self.entry_point,
            "source": SOURCE,
            "split": self.composition.split,
        }


def call_tests(source: str, entry_point: str, composition: Composition, generator: random.Random) -> str:
    """Return the tests of a task as JSON: six inputs and the results of `source` for them."""
    inputs = draw_inputs(composition.takes, generator)
    results = execute(source, entry_point, inputs)
    cases = [{"args": [value], "expected": result} for value, result in zip(inputs, results, strict=True)]
    return json.dumps({"cases": cases, "tolerance": None})


ENTRY_POINT = "solve"
"""Name of the function in all problems, so that the name says nothing about the steps."""


def stated_problem(composition: Composition, generator: random.Random) -> GrammarProblem:
    """Return a problem that states all steps, in one of three wordings; each step is in one of its three phrases."""
    return GrammarProblem(
        _instruction(composition, generator), composition.source(ENTRY_POINT, ""), ENTRY_POINT, composition
    )


def _instruction(composition: Composition, generator: random.Random) -> str:
    signature = f"{ENTRY_POINT}({composition.argument})"
    in_line, listed = (draw_summary(composition, generator, between) for between in (", then ", "\n"))
    return generator.choice(
        (
            f"Write a Python function {signature}: {in_line}.",
            f"Implement {signature} in Python. It should {in_line}.",
            f"Write a Python function {signature} that takes these steps:\n{listed}",
        )
    )


def file_problem(composition: Composition, generator: random.Random, functions: int) -> GrammarProblem:
    """Return a problem that also shows the file that its function will join, after the instruction.

    The functions of the file have no step marks (`#1`): only the instruction has them, far from the answer.

    Args:
        composition: all steps of the function.
        generator: draws everything else.
        functions: functions in the file; more of them put the instruction further from the answer.
    """
    sources = [
        draw_composition(generator, generator.choice((1, 2)), "train").unmarked_source(other)
        for other in draw_names(generator, functions)
    ]
    prompt = (
        f"{_instruction(composition, generator)}\n"
        f"It joins the file `{draw_path(generator)}`:\n```python\n{join_functions(sources)}```"
    )
    return GrammarProblem(prompt, composition.source(ENTRY_POINT, ""), ENTRY_POINT, composition)


def caller_source(name: str, used: str, helper: Composition, rest: Composition) -> str:
    """Return a function that calls `used`, which computes `helper`, and then computes `rest`."""
    steps = [f"{VARIABLES[helper.gives]} = {used}({helper.argument})", *rest.steps()]
    summary = f"apply {used} #1, then {rest.summary(first=2)}"
    return render(name, helper.argument, summary, steps, VARIABLES[rest.gives])


def join_functions(sources: list[str]) -> str:
    """Return functions as one module, with two blank lines between them."""
    return "\n\n".join(sources)


def draw_path(generator: random.Random) -> str:
    """Return a file path such as `shop/orders.py`."""
    package = generator.choice(("app", "core", "lib", "shop", "tools"))
    return f"{package}/{draw_name(generator).split('_')[1]}.py"


def fim_task(composition: Composition, identifier: str, generator: random.Random) -> Row:
    """Return a fill-in-the-middle task: whole lines of the body are missing, perhaps with the return line.

    The row is a task with the additional columns `prefix`, `suffix` and `middle`; the tests run prefix + completion +
    suffix.
    """
    name = draw_name(generator)
    source = composition.source(name)
    lines = source.splitlines(keepends=True)
    first = generator.randint(2, len(lines) - 2)
    last = generator.randint(first + 1, len(lines) - 1)
    return {
        "id": identifier,
        "prompt": "".join(lines[:first]),
        "language": "python",
        "kind": "calls",
        "tests": call_tests(source, name, composition, generator),
        "entry_point": name,
        "source": SOURCE,
        "split": composition.split,
        "prefix": "".join(lines[:first]),
        "suffix": "".join(lines[last:]),
        "middle": "".join(lines[first:last]),
    }

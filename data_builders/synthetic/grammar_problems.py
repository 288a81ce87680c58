"""Make rows from compositions: conversations, executable tasks and fill-in-the-middle tasks.

A problem states all steps of a function. A problem may also show the file to which the function is added. The number of
functions in this file sets the distance between the instruction and the answer.
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
"""Value of the column `source` in all rows from this grammar."""


@dataclass(frozen=True)
class GrammarProblem:
    """A question and its reference answer. The answer is a program that defines the function `entry_point`."""

    prompt: str
    answer: str
    entry_point: str
    composition: Composition

    def conversation(self) -> Row:
        """Make a conversation of one turn, in which the answer is a fenced code block."""
        messages = [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": f"```python\n{self.answer}```"},
        ]
        return {"messages": messages, "source": SOURCE}

    def task(self, identifier: str, generator: random.Random) -> Row:
        """Make an executable task of kind `calls`. The expected values are the results of the reference answer.

        Args:
            identifier: value of the column `id`.
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
    """Return the tests of a task as JSON: six inputs, and the result of `source` for each input."""
    inputs = draw_inputs(composition.takes, generator)
    results = execute(source, entry_point, inputs)
    cases = [{"args": [value], "expected": result} for value, result in zip(inputs, results, strict=True)]
    return json.dumps({"cases": cases, "tolerance": None})


ENTRY_POINT = "solve"
"""Name of the function in all problems, so that the name says nothing about the steps."""


def stated_problem(composition: Composition, generator: random.Random) -> GrammarProblem:
    """Make a problem that states all steps. The wording of the request and the phrase of each step are drawn."""
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
    """Make a problem that states all steps, and then shows the file to which the function is added.

    The functions of the file have no step numbers (`#1`). Only the instruction has step numbers, far from the answer.

    Args:
        composition: all steps of the function.
        generator: draws wordings, names, and the functions of the file.
        functions: number of functions in the file. More functions increase the distance from instruction to answer.
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
    """Return the source of the function `name`, which calls another function and then computes `rest`.

    Args:
        name: name of the function.
        used: name of the function to call.
        helper: composition that the called function computes.
        rest: composition that is applied to the result of the call.
    """
    steps = [f"{VARIABLES[helper.gives]} = {used}({helper.argument})", *rest.steps()]
    summary = f"apply {used} #1, then {rest.summary(first=2)}"
    return render(name, helper.argument, summary, steps, VARIABLES[rest.gives])


def join_functions(sources: list[str]) -> str:
    """Join the sources of functions into a module, with two blank lines between functions."""
    return "\n\n".join(sources)


def draw_path(generator: random.Random) -> str:
    """Draw a file path such as `shop/orders.py`."""
    package = generator.choice(("app", "core", "lib", "shop", "tools"))
    return f"{package}/{draw_name(generator).split('_')[1]}.py"


def fim_task(composition: Composition, identifier: str, generator: random.Random) -> Row:
    """Make a fill-in-the-middle task. The middle consists of whole lines of the body, and may include the return line.

    The row is a task with the additional columns `prefix`, `suffix` and `middle`. The tests run the program that
    consists of the prefix, the completion and the suffix.
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

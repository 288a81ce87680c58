"""From compositions to rows: conversations, executable tasks and fill-in-the-middle tasks.

A problem states all its steps. It may show, behind them, the file that its function will join: how many functions that
file has decides how far the answer stands from what it must do.
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
"""What the `source` column of every row of this grammar says."""


@dataclass(frozen=True)
class Problem:
    """What to ask and the reference answer, a program that defines `entry_point`."""

    prompt: str
    answer: str
    entry_point: str
    composition: Composition

    def conversation(self) -> Row:
        """A conversation of one turn; the answer stands in a fenced block."""
        messages = [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": f"```python\n{self.answer}```"},
        ]
        return {"messages": messages, "source": SOURCE}

    def task(self, identifier: str, generator: random.Random) -> Row:
        """An executable task of kind `calls`; the expected values come from running the reference answer."""
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
    """The tests of a task as JSON: six inputs and what `source` returns for them."""
    inputs = draw_inputs(composition.takes, generator)
    results = execute(source, entry_point, inputs)
    cases = [{"args": [value], "expected": result} for value, result in zip(inputs, results, strict=True)]
    return json.dumps({"cases": cases, "tolerance": None})


ENTRY_POINT = "solve"
"""What every problem asks to call its function: the steps are the task, not the name."""


def stated_problem(composition: Composition, generator: random.Random) -> Problem:
    """A problem that states every step, in one of three wordings, each step in one of its three phrases."""
    return Problem(_instruction(composition, generator), composition.source(ENTRY_POINT, ""), ENTRY_POINT, composition)


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


def file_problem(composition: Composition, generator: random.Random, functions: int) -> Problem:
    """A problem with the file that its function will join, shown behind the instruction.

    The functions of the file carry no marks: the only ones in the prompt are the instruction's, far from the answer.

    Args:
        composition: All steps.
        generator: Source of every choice.
        functions: How many functions the file has: they decide how far the answer stands from what it must do.
    """
    sources = [
        draw_composition(generator, generator.choice((1, 2)), "train").unmarked_source(other)
        for other in draw_names(generator, functions)
    ]
    prompt = (
        f"{_instruction(composition, generator)}\n"
        f"It joins the file `{draw_path(generator)}`:\n```python\n{join_functions(sources)}```"
    )
    return Problem(prompt, composition.source(ENTRY_POINT, ""), ENTRY_POINT, composition)


def caller_source(name: str, used: str, helper: Composition, rest: Composition) -> str:
    """A function that calls `used` (which computes `helper`) and goes on with `rest`."""
    steps = [f"{VARIABLES[helper.gives]} = {used}({helper.argument})", *rest.steps()]
    summary = f"apply {used} #1, then {rest.summary(first=2)}"
    return render(name, helper.argument, summary, steps, VARIABLES[rest.gives])


def join_functions(sources: list[str]) -> str:
    """Functions as one module, two blank lines between them."""
    return "\n\n".join(sources)


def draw_path(generator: random.Random) -> str:
    """A file path such as `shop/orders.py`."""
    package = generator.choice(("app", "core", "lib", "shop", "tools"))
    return f"{package}/{draw_name(generator).split('_')[1]}.py"


def fim_task(composition: Composition, identifier: str, generator: random.Random) -> Row:
    """A fill-in-the-middle task: whole lines of the body are missing, the return line may be one of them.

    The row is a task with `prefix`, `suffix` and `middle` besides; under test is prefix + completion + suffix.
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

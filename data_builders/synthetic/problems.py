"""From compositions to rows: conversations, executable tasks and fill-in-the-middle tasks.

A problem either states all its steps, or comes with a file and names one of its functions as the first step. The second kind
needs what the file says; how many functions the file has decides how long the input is. Its answer repeats the function of
the file, so that it runs by itself.
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


def stated_problem(composition: Composition, generator: random.Random) -> Problem:
    """A problem that states every step, in one of three wordings, each step in one of its three phrases."""
    name = draw_name(generator)
    phrasing = tuple(generator.randrange(3) for _ in composition.operations)
    summary = composition.summary(phrasing)
    signature = f"`{name}({composition.argument})`"
    numbered = "\n".join(f"{i}. {step}" for i, step in enumerate(summary.split(", then "), start=1))
    prompt = generator.choice(
        (
            f"Write a Python function {signature}: {summary}.",
            f"Implement {signature} in Python. It should {summary}.",
            f"Write a Python function {signature} that takes these steps:\n{numbered}",
        )
    )
    return Problem(prompt, composition.source(name), name, composition)


def file_problem(composition: Composition, generator: random.Random, functions: int) -> Problem:
    """A problem whose first steps are a function of the file that comes with it.

    Args:
        composition: All steps, two at least; the file's function takes the first ones.
        generator: Source of every choice.
        functions: How many functions the file has, the one that matters among them.
    """
    cut = generator.randint(1, len(composition.operations) - 1)
    helper, rest = Composition(composition.operations[:cut]), Composition(composition.operations[cut:])
    names = draw_names(generator, functions + 1)
    used, name = names[-2:]
    sources = [draw_composition(generator, generator.choice((1, 2)), "train").source(other) for other in names[:-2]]
    sources.insert(generator.randint(0, len(sources)), helper.source(used))
    phrasing = tuple(generator.randrange(3) for _ in rest.operations)
    prompt = (
        f"File `{draw_path(generator)}`:\n```python\n{join_functions(sources)}```\n"
        f"Write a Python function `{name}({composition.argument})`: apply `{used}`, then {rest.summary(phrasing)}. "
        f"Repeat `{used}` in the answer."
    )
    answer = join_functions([helper.source(used), caller_source(name, used, helper, rest)])
    return Problem(prompt, answer, name, composition)


def caller_source(name: str, used: str, helper: Composition, rest: Composition) -> str:
    """A function that calls `used` (which computes `helper`) and goes on with `rest`."""
    steps = [f"{VARIABLES[helper.gives]} = {used}({helper.argument})", *rest.steps()]
    summary = f"apply {used}, then {rest.summary()}"
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

    The row is a task with `prefix`, `suffix` and `middle` besides; the program under test is prefix + completion + suffix.
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

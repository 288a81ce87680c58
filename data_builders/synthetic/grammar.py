"""Compositions of operations: small documented functions, their splits and their reference results.

A composition consists of one to three operations. Each operation takes a value of the kind that the previous operation
returns. A hash of the operations' names decides the split. A held-out composition does not occur in training data, but
each of its operations occurs there in other compositions.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_builders.synthetic.operations import OPERATIONS, VARIABLES, Operation

SPLITS = {"train": 70, "rl": 15, "dev": 5, "heldout": 10}
"""Percentage of the compositions in each split. `rl` is for preferences and GRPO, `dev` for tuning."""

# A block of words is easier to read than a list of quoted words.  # ruff: noqa: SIM905
_VERBS = """
build clean check count fetch filter find fix get load make merge move pack parse pick plan prepare process read scan
send shape show sort split store sum track trim
""".split()
_NOUNS = """
items rows lines names data files keys notes orders parts points prices records results scores stock tags tasks terms
units users views words logs books cards carts cells codes costs dates days fields goods jobs labels levels links
lists loads
""".split()
_TEXT_WORDS = """
apple Data 42 the quick fox a1 Banana tree on code 7up Zoo eel over Lazy dog x2 banana the idea
""".split()


@dataclass(frozen=True)
class Composition:
    """A function that applies one to three operations in order.

    `takes` is the kind of the input, and `gives` is the kind of the result.
    """

    operations: tuple[Operation, ...]

    @property
    def key(self) -> str:
        """The names of the operations. Two compositions with the same key compute the same function."""
        return ">".join(operation.name for operation in self.operations)

    @property
    def takes(self) -> str:
        return self.operations[0].takes

    @property
    def gives(self) -> str:
        return self.operations[-1].gives

    @property
    def argument(self) -> str:
        """The name of the function's parameter."""
        return VARIABLES[self.takes]

    @property
    def split(self) -> str:
        """The split of this composition, a key of `SPLITS`. A single operation is always in `train`."""
        if len(self.operations) == 1:
            return "train"
        place = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big") % 100
        for split, share in SPLITS.items():
            if place < share:
                return split
            place -= share
        raise AssertionError("the shares add up to 100")

    def steps(self) -> list[str]:
        """Return the lines of the function's body, without indentation and without the `return` line."""
        return [f"{VARIABLES[operation.gives]} = {operation.line}" for operation in self.operations]

    def summary(self, phrasing: tuple[int, ...] | None = None, between: str = ", then ", first: int = 1) -> str:
        """Describe the steps in words: `keep the even numbers #1, then reverse the list #2`.

        The number of a step (`#1`) is also written above the step's line in the code, which connects words and code.

        Args:
            phrasing: index of the phrase to use for each operation. With None, the first phrase is used.
            between: text between two steps.
            first: number of the first step.
        """
        chosen = phrasing or (0,) * len(self.operations)
        return between.join(
            f"{operation.phrases[i]} #{number}"
            for number, (operation, i) in enumerate(zip(self.operations, chosen, strict=True), start=first)
        )

    def cut(self, generator: random.Random) -> tuple["Composition", "Composition"]:
        """Cut the composition in two parts. The first part is in the split `train`."""
        parts = [
            (Composition(self.operations[:i]), Composition(self.operations[i:])) for i in range(1, len(self.operations))
        ]
        return generator.choice([pair for pair in parts if pair[0].split == "train"])

    def source(self, name: str, summary: str | None = None) -> str:
        """Return the function as Python source.

        Args:
            name: name of the function.
            summary: the docstring. With None, it describes the steps. With "", the function has no docstring.
        """
        return render(
            name, self.argument, self.summary() if summary is None else summary, self.steps(), VARIABLES[self.gives]
        )

    def unmarked_source(self, name: str) -> str:
        """Return the function as Python source without step numbers (`#1`)."""
        return re.sub(r" #\d|    #\d\n", "", self.source(name))


def render(name: str, argument: str, summary: str, steps: list[str], returned: str) -> str:
    """Return the source of a function: a docstring if `summary` is not empty, a line per step, and a `return` line."""
    body = "".join(f"    #{number}\n    {step}\n" for number, step in enumerate(steps, start=1))
    docstring = f'    """{summary[0].upper()}{summary[1:]}."""\n' if summary else ""
    return f"def {name}({argument}):\n{docstring}{body}    return {returned}\n"


def draw_summary(composition: Composition, generator: random.Random, between: str = ", then ") -> str:
    """Describe the steps of a composition in words, with a randomly drawn phrase for each step."""
    return composition.summary(tuple(generator.randrange(3) for _ in composition.operations), between)


def execute(source: str, name: str, inputs: list[Any]) -> list[Any]:
    """Run a function of this grammar on each input, and return the results.

    The source is not sandboxed, so it must never come from a model.
    """
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return [namespace[name](value) for value in inputs]


def draw_inputs(kind: str, generator: random.Random, count: int = 6) -> list[Any]:
    """Draw `count` inputs of a kind (`numbers` or `text`). The last input is empty."""
    inputs: list[Any] = []
    for _ in range(count - 1):
        if kind == "numbers":
            inputs.append([generator.randint(-12, 30) for _ in range(generator.randint(4, 8))])
        else:
            inputs.append(" ".join(generator.choice(_TEXT_WORDS) for _ in range(generator.randint(3, 6))))
    inputs.append([] if kind == "numbers" else "")
    return inputs


def draw_name(generator: random.Random) -> str:
    """Draw a function name such as `clean_orders`."""
    return f"{generator.choice(_VERBS)}_{generator.choice(_NOUNS)}"


def draw_names(generator: random.Random, count: int) -> list[str]:
    """Draw `count` different function names."""
    names: list[str] = []
    while len(names) < count:
        name = draw_name(generator)
        if name not in names:
            names.append(name)
    return names


_STARTS = tuple(operation for operation in OPERATIONS if operation.takes in ("numbers", "text"))
_AFTER = {kind: tuple(o for o in OPERATIONS if o.takes == kind) for kind in VARIABLES}


def draw_composition(generator: random.Random, depth: int, split: str | None = None) -> Composition:
    """Draw a composition of `depth` operations from a split, or from all splits if `split` is None.

    Every step of the composition matters, see `every_step_matters`.
    """
    while True:
        operations = [generator.choice(_STARTS)]
        while len(operations) < depth and _AFTER[operations[-1].gives]:
            operations.append(generator.choice(_AFTER[operations[-1].gives]))
        composition = Composition(tuple(operations))
        if (
            len(operations) == depth
            and (split is None or composition.split == split)
            and every_step_matters(composition)
        ):
            return composition


_PROBES = {kind: draw_inputs(kind, random.Random(20), 8) for kind in ("numbers", "text")}
_MATTERS: dict[str, bool] = {}


def every_step_matters(composition: Composition) -> bool:
    """Whether the result of a composition depends on the input and on every step.

    This is tested on eight inputs. There must be at least three different results, and the results must change if a
    step is left out. A step that changes the kind of the value can't be left out, so it is not tested.
    """
    if composition.key not in _MATTERS:
        probes = _PROBES[composition.takes]
        results = execute(composition.source("f"), "f", probes)
        distinct = {repr(result) for result in results}
        shorter = [
            Composition(composition.operations[:i] + composition.operations[i + 1 :])
            for i, operation in enumerate(composition.operations)
            if operation.takes == operation.gives and len(composition.operations) > 1
        ]
        _MATTERS[composition.key] = len(distinct) > 2 and all(
            execute(other.source("f"), "f", probes) != results for other in shorter
        )
    return _MATTERS[composition.key]


def draw_distinct(seed: int, split: str, count: int, depths: tuple[int, ...]) -> Iterator[Composition]:
    """Draw `count` different compositions of a split.

    Args:
        seed: the same seed gives the same compositions.
        split: a key of `SPLITS`.
        count: number of compositions.
        depths: numbers of operations, drawn with equal probability.

    Raises:
        ValueError: the grammar has fewer than `count` compositions.
    """
    generator = random.Random(f"{seed}-{split}")
    seen: set[str] = set()
    repeats = 0
    while len(seen) < count:
        composition = draw_composition(generator, generator.choice(depths), split)
        if composition.key not in seen:
            seen.add(composition.key)
            repeats = 0
            yield composition
            continue
        repeats += 1
        if repeats == SUSPICIOUS_REPEATS and count > (total := count_compositions(split, depths)):
            raise ValueError(f"the grammar has {total} compositions of the split {split!r}, and {count} were asked for")


SUSPICIOUS_REPEATS = 500
"""Number of repeated draws after which `draw_distinct` counts the compositions, to check that enough exist."""


def count_compositions(split: str, depths: tuple[int, ...]) -> int:
    """Count the compositions of a split that can be drawn."""

    def extended(operations: tuple[Operation, ...], depth: int) -> Iterator[Composition]:
        if len(operations) == depth:
            yield Composition(operations)
        else:
            for operation in _AFTER[operations[-1].gives]:
                yield from extended((*operations, operation), depth)

    every = (composition for depth in depths for start in _STARTS for composition in extended((start,), depth))
    return sum(composition.split == split and every_step_matters(composition) for composition in every)

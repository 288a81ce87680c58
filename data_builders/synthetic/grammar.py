"""Compositions of operations: small documented functions, their splits and their reference results.

A composition is one to three operations whose kinds fit together. Which split it belongs to is a hash of its names: a
held-out function is a composition that training never shows, made of steps that training shows in other company.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_builders.synthetic.operations import OPERATIONS, VARIABLES, Operation

SPLITS = {"train": 70, "rl": 15, "dev": 5, "heldout": 10}
"""Percent of the compositions in each split: `rl` gives prompts for preferences and GRPO, `dev` is for tuning."""

# Words in a block read better than a list of quoted ones.  # ruff: noqa: SIM905
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
    """Operations applied one after the other; `takes` and `gives` are the kinds of its input and result."""

    operations: tuple[Operation, ...]

    @property
    def key(self) -> str:
        """The names of the operations; equal keys mean the same function."""
        return ">".join(operation.name for operation in self.operations)

    @property
    def takes(self) -> str:
        return self.operations[0].takes

    @property
    def gives(self) -> str:
        return self.operations[-1].gives

    @property
    def argument(self) -> str:
        """The name of the parameter."""
        return VARIABLES[self.takes]

    @property
    def split(self) -> str:
        """The split this composition belongs to; a single operation always belongs to `train`."""
        if len(self.operations) == 1:
            return "train"
        place = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big") % 100
        for split, share in SPLITS.items():
            if place < share:
                return split
            place -= share
        raise AssertionError("the shares add up to 100")

    def steps(self) -> list[str]:
        """The lines of the body, without indentation and without the return."""
        return [f"{VARIABLES[operation.gives]} = {operation.line}" for operation in self.operations]

    def summary(self, phrasing: tuple[int, ...] | None = None, between: str = ", then ", first: int = 1) -> str:
        """`keep the even numbers #1, then reverse the list #2`, each step in the chosen phrase (by default the first).

        The mark behind a step stands again above its line in the code: that is how a reader finds the line of a step.
        """
        chosen = phrasing or (0,) * len(self.operations)
        return between.join(
            f"{operation.phrases[i]} #{number}"
            for number, (operation, i) in enumerate(zip(self.operations, chosen, strict=True), start=first)
        )

    def cut(self, generator: random.Random) -> tuple["Composition", "Composition"]:
        """A first and a second part, such that the first alone is no held-out function either."""
        parts = [
            (Composition(self.operations[:i]), Composition(self.operations[i:])) for i in range(1, len(self.operations))
        ]
        return generator.choice([pair for pair in parts if pair[0].split == "train"])

    def source(self, name: str, summary: str | None = None) -> str:
        """The function as Python source with `summary` as its docstring (none if empty), ending with a newline."""
        return render(
            name, self.argument, self.summary() if summary is None else summary, self.steps(), VARIABLES[self.gives]
        )

    def unmarked_source(self, name: str) -> str:
        """The function as most code is: a docstring and lines, without the marks that tie them together."""
        return re.sub(r" #\d|    #\d\n", "", self.source(name))


def render(name: str, argument: str, summary: str, steps: list[str], returned: str) -> str:
    """A function of one argument: a docstring of one line unless `summary` is empty, one line per step, a return."""
    body = "".join(f"    #{number}\n    {step}\n" for number, step in enumerate(steps, start=1))
    docstring = f'    """{summary[0].upper()}{summary[1:]}."""\n' if summary else ""
    return f"def {name}({argument}):\n{docstring}{body}    return {returned}\n"


def draw_summary(composition: Composition, generator: random.Random, between: str = ", then ") -> str:
    """The steps of a composition in words, each in one of its three phrases."""
    return composition.summary(tuple(generator.randrange(3) for _ in composition.operations), between)


def execute(source: str, name: str, inputs: list[Any]) -> list[Any]:
    """Results of a function of this grammar (our own source, never a model's) on each input."""
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return [namespace[name](value) for value in inputs]


def draw_inputs(kind: str, generator: random.Random, count: int = 6) -> list[Any]:
    """`count` inputs of a kind (`numbers` or `text`); the last one is empty."""
    inputs: list[Any] = []
    for _ in range(count - 1):
        if kind == "numbers":
            inputs.append([generator.randint(-12, 30) for _ in range(generator.randint(4, 8))])
        else:
            inputs.append(" ".join(generator.choice(_TEXT_WORDS) for _ in range(generator.randint(3, 6))))
    inputs.append([] if kind == "numbers" else "")
    return inputs


def draw_name(generator: random.Random) -> str:
    """A function name such as `clean_orders`."""
    return f"{generator.choice(_VERBS)}_{generator.choice(_NOUNS)}"


def draw_names(generator: random.Random, count: int) -> list[str]:
    """`count` different function names."""
    names: list[str] = []
    while len(names) < count:
        name = draw_name(generator)
        if name not in names:
            names.append(name)
    return names


_STARTS = tuple(operation for operation in OPERATIONS if operation.takes in ("numbers", "text"))
_AFTER = {kind: tuple(o for o in OPERATIONS if o.takes == kind) for kind in VARIABLES}


def draw_composition(generator: random.Random, depth: int, split: str | None = None) -> Composition:
    """A random composition of `depth` operations, of one split if given, in which every step matters."""
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
    """Whether results vary with the input and leaving out any step (where kinds allow) changes some result."""
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
    """`count` different compositions of a split, depths drawn evenly; the same for the same seed.

    Raises:
        ValueError: The grammar has fewer than `count`.
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
"""After so many draws of what was drawn before, it is worth counting whether there is anything else."""


def count_compositions(split: str, depths: tuple[int, ...]) -> int:
    """How many compositions of a split can be drawn."""

    def grown(operations: tuple[Operation, ...], depth: int) -> Iterator[Composition]:
        if len(operations) == depth:
            yield Composition(operations)
        else:
            for operation in _AFTER[operations[-1].gives]:
                yield from grown((*operations, operation), depth)

    every = (composition for depth in depths for start in _STARTS for composition in grown((start,), depth))
    return sum(composition.split == split and every_step_matters(composition) for composition in every)

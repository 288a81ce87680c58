"""Errors of a recipe: each says where it was written, what is wrong, and what to do; all of a recipe come at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Key = str | int
Place = tuple[Key, ...]
"""Where a setting is: keys of mappings and numbers of list items, from the recipe (or the stage) down."""
Mistake = tuple[Place, str]
"""What a check yields: the place of a wrong setting, and what is wrong with it."""


@dataclass(frozen=True)
class RecipeProblem:
    """One mistake of a recipe."""

    file: str
    """The file, or the option of the command line (`--set`)."""
    line: int
    """Line in the file. 0 if the problem has no line."""
    key: str
    """The setting, for example `stages.sft.train.beta`. Empty if the problem concerns no single setting."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class RecipeError(ValueError):
    """All mistakes of a recipe, in the order of its lines."""

    def __init__(self, problems: Sequence[RecipeProblem]):
        assert problems, "an error needs a problem"
        self.problems = sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.key))
        count = f"{len(self.problems)} mistake{'s' if len(self.problems) > 1 else ''} found:"
        super().__init__("\n".join([count, *(f"  {problem}" for problem in self.problems)]))

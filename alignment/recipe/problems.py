"""Errors of a recipe. Each error names file and line, and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Key = str | int
Place = tuple[Key, ...]
"""Path to a setting: keys of mappings and indices of list items, starting at the recipe (or at the stage)."""
Mistake = tuple[Place, str]
"""Result of a check: the place of a wrong setting, and a message that says what is wrong."""


@dataclass(frozen=True)
class RecipeProblem:
    """One mistake in a recipe, with its position."""

    file: str
    """The recipe file, or the command line option (`--set`)."""
    line: int
    """Line number in the file, or 0 if the problem has no line."""
    key: str
    """The setting, for example `stages.sft.train.beta`. Empty if the problem does not concern a single setting."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class RecipeError(ValueError):
    """Raised if a recipe has mistakes. The message lists all mistakes, in the order of their lines."""

    def __init__(self, problems: Sequence[RecipeProblem]):
        assert problems, "an error needs a problem"
        self.problems = sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.key))
        count = f"{len(self.problems)} mistake{'s' if len(self.problems) > 1 else ''} found:"
        super().__init__("\n".join([count, *(f"  {problem}" for problem in self.problems)]))

"""What prompts and validation need from a compiled language: wrong bodies, and the code that a function needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alignment.grading.projects.project_language import ProjectFunction


@dataclass
class NeededDeclarations:
    """The code that a function needs, and the function without its body."""

    declarations: list[str]
    """Package clause, imports, types, constants and signatures of the function's file."""
    stub: str
    """The function up to the opening brace of its body, with the comment above."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """Declarations in other files of the repository, keyed by path."""
    unresolved: set[str] = field(default_factory=set)
    """Names that the function uses and that are declared nowhere."""
    opening: str = ""
    """What stands before the function inside of its file, such as the class around a method."""
    closing: str = ""
    """What closes `opening`."""

    @property
    def head(self) -> str:
        """The file up to the body."""
        return "\n\n".join(filter(None, [*self.declarations, self.opening, self.stub]))

    @property
    def tail(self) -> str:
        """The file after the body, from the closing brace of the function."""
        return f"}}\n{self.closing}".rstrip()

    def other_files(self, comment: str) -> str:
        """Return the declarations in other files, each file after a comment with its path."""
        return "\n\n".join(f"{comment} {path}\n" + "\n\n".join(code) for path, code in sorted(self.others.items()))

    @property
    def size(self) -> int:
        """Number of characters of the needed code, without the stub."""
        return sum(map(len, [*self.declarations, *(code for codes in self.others.values() for code in codes)]))


class ProjectSource(Protocol):
    """How the functions of one language are changed and shown."""

    masked_body: str
    """Replacement of the body of a masked function, which ends the test."""
    mask_line: str
    """Comment line that stands for the body in a prompt, indented."""

    def mutants(self, text: str, function: ProjectFunction, count: int) -> list[str]:
        """Return at most `count` versions of a function with one error each."""
        ...

    def trivial(self, text: str, function: ProjectFunction) -> list[str]:
        """Return versions of a function that do nothing, or return a constant or a parameter."""
        ...

    def needed(self, sources: Mapping[str, str], function: ProjectFunction) -> NeededDeclarations:
        """Collect the code that a function needs from the repository."""
        ...

    def tests_code(self, sources: Mapping[str, str], names: Sequence[str], characters: int) -> str:
        """Return the code of tests, the most important ones first, up to a number of characters."""
        ...

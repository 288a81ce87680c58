"""Analyse and repair Python source text: find the part that parses, and the names that code defines and uses."""

from __future__ import annotations

import ast
import re
import textwrap

PARSE_BUDGET = 1_000_000
"""Largest number of characters that are parsed in the search for code in one answer.

Without this limit, repetitive answers would stall an evaluation.
"""


def longest_valid(code: str, budget: int = PARSE_BUDGET) -> str:
    """Return the longest beginning of the code, in whole lines, that parses. Return "" if no beginning parses.

    Args:
        code: source text.
        budget: largest number of characters to parse. If the search needs more, the result is "".
    """
    code = code.rstrip()
    if parses(code):
        return code
    lines = code.split("\n")
    low = 0
    # Lines are removed from the end one by one, but at least all lines from the first syntax error on.
    end = len(lines)
    while end > low:
        end -= 1
        candidate = "\n".join(lines[:end]).rstrip()
        budget -= len(candidate)
        if not candidate.strip() or budget < 0:
            return ""
        error = _syntax_error(candidate)
        if error is None:
            return candidate
        if error < end and error > 0:
            end = min(end, error)
    return ""


def trim_continuation(prefix: str, completion: str) -> str:
    """Return the longest beginning of a completion, in whole lines, with which `prefix` parses.

    If no beginning parses, return the whole completion.
    """
    if parses(prefix + completion):
        return completion
    lines = completion.split("\n")
    for end in range(len(lines) - 1, 0, -1):
        candidate = "\n".join(lines[:end])
        if parses(prefix + candidate):
            return candidate + "\n"
    return completion


def defined_names(code: str) -> set[str]:
    """Return the names that the code binds at the top level.

    If the code does not parse, return the names of its top-level functions and classes.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", code, re.MULTILINE))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def used_names(code: str) -> set[str]:
    """Return all names in the code. If the code does not parse, return all words."""
    try:
        return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\b[A-Za-z_]\w*\b", code))


def dedent(code: str) -> str:
    """Remove the common indentation of code. The first line may have lost its indentation already."""
    stripped = code.strip("\n")
    if parses(stripped):  # `textwrap.dedent` would change blank lines inside strings
        return stripped
    code = textwrap.dedent(stripped)
    if parses(code):
        return code
    first, _, rest = code.partition("\n")
    if rest and not first[:1].isspace() and first.rstrip()[-1:] != ":":
        repaired = f"{first}\n{textwrap.dedent(rest)}"
        if parses(repaired):
            return repaired
    return code


def parses(code: str) -> bool:
    """Whether text is valid Python."""
    return _syntax_error(code) is None


def _syntax_error(code: str) -> int | None:
    """Return the line of the first syntax error, 0 if the line is unknown, or None if the code parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return 0
    return None

"""Analysis and repair of Python source text: what parses, and which names it defines and uses."""

from __future__ import annotations

import ast
import re
import textwrap

PARSE_BUDGET = 1_000_000
"""Characters that are parsed at most while searching one answer for code; without a limit, repetitive answers would stall
an evaluation."""


def longest_valid(code: str, budget: int = PARSE_BUDGET) -> str:
    """Return the longest beginning of the code, in whole lines, that parses. Empty if there is none.

    Args:
        code: source text.
        budget: characters to parse at most; the search ends with an empty result beyond it.
    """
    code = code.rstrip()
    if parses(code):
        return code
    lines = code.split("\n")
    low = 0
    # Lines are removed from the end one by one, but never fewer than up to the line of the first syntax error.
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
    """Return the longest beginning of a left-to-right completion that parses after its prefix; all of it if none does."""
    if parses(prefix + completion):
        return completion
    lines = completion.split("\n")
    for end in range(len(lines) - 1, 0, -1):
        candidate = "\n".join(lines[:end])
        if parses(prefix + candidate):
            return candidate + "\n"
    return completion


def defined_names(code: str) -> set[str]:
    """Names that the top level of the code binds; if it does not parse, those of its functions and classes."""
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
    """Return all names in the code; all words if it does not parse."""
    try:
        return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\b[A-Za-z_]\w*\b", code))


def dedent(code: str) -> str:
    """Remove common indentation, also if only the first line has lost its own."""
    stripped = code.strip("\n")
    if parses(stripped):  # `textwrap.dedent` would change lines of blanks inside of strings
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
    """Return the line of the first syntax error, 0 if it names no line, or None for code that parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return 0
    return None

"""Find where a filled-in function body ends, as editors and SAFIM's harness do before they use a completion.

A model that does not stop by itself goes on with the next function, and the file that contains such a completion no
longer parses. Editors cut by the same rule, so the score of the cut completion is the one that matters for them.
"""

from __future__ import annotations

import io
import re
import tokenize

_STRINGS = r'"(?:\\.|[^"\\\n])*"'
_COMMENTS = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_CHARACTERS = r"'(?:\\.|[^'\\\n])'"
"""Matches a character literal, but not Rust's lifetimes (`'a`), which have no second quote."""
_SCRIPT_STRINGS = r"'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"
_BRACES = re.compile(f"{_COMMENTS}|{_STRINGS}|{_CHARACTERS}|[{{}}]", re.DOTALL)
_SCRIPT_BRACES = re.compile(f"{_COMMENTS}|{_STRINGS}|{_SCRIPT_STRINGS}|[{{}}]", re.DOTALL)
_SCRIPT_LANGUAGES = frozenset({"javascript", "typescript", "php", "go", "kotlin"})
_NO_BRACES = frozenset({"ruby", "lua", "shell", "bash", "julia", "haskell", "elixir", "r"})


def cut_at_body_end(prefix: str, completion: str, language: str) -> str:
    """Return the completion up to the end of the body that the cursor is in.

    Python: up to the first statement that is indented less than the body. Languages with braces: up to the brace that
    closes a block which the completion did not open. Strings and comments are skipped. Completions in languages with
    other blocks are returned unchanged.

    Args:
        prefix: the file's text in front of the completion.
        completion: the generated text.
        language: the language of the file, for example `python`.
    """
    if language == "python":
        return _cut_python(prefix, completion)
    if language in _NO_BRACES:
        return completion
    return _cut_braces(completion, _SCRIPT_BRACES if language in _SCRIPT_LANGUAGES else _BRACES)


def _cut_python(prefix: str, completion: str) -> str:
    """Cut a Python completion at the first line that Python's tokenizer does not count to the indented block in which
    the completion begins.
    """
    start = prefix[prefix.rfind("\n") + 1 :]
    text = start + completion
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None or not lines[first][:1].isspace():
        return completion  # the cursor is at the top level of the file, which has no end
    end = _end_of_block("\n".join(lines[first:]))
    if end is None:
        return completion
    kept = lines[: first + end]
    indent = len(lines[first]) - len(lines[first].lstrip())
    while len(kept) > first + 1 and _outside(kept[-1], indent):
        kept.pop()
    return ("\n".join(kept) + "\n")[len(start) :]


def _end_of_block(block: str) -> int | None:
    """Return how many lines the indented block at the beginning of a text has, or None if the text ends inside that
    block.
    """
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(f"if 1:\n{block}\n").readline):
            if token.type == tokenize.INDENT:
                depth += 1
            elif token.type == tokenize.DEDENT:
                depth -= 1
            if depth == 0 and token.type == tokenize.DEDENT:
                line = token.start[0] - 2
                return line if line < block.count("\n") + 1 else None
    except IndentationError as error:  # a line between the block's indentation and the outer one: outside of the block
        return (error.lineno or 2) - 2
    except tokenize.TokenError:  # the completion ends inside of a bracket or a string
        return None
    return None


def _outside(line: str, indent: int) -> bool:
    """Whether the last kept line does not belong to the block: a blank line, or a less indented comment."""
    text = line.strip()
    return not text or (text.startswith("#") and len(line) - len(line.lstrip()) < indent)


def _cut_braces(completion: str, pattern: re.Pattern[str]) -> str:
    depth = 0
    for match in pattern.finditer(completion):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth < 0:
                return completion[: match.start()]
    return completion

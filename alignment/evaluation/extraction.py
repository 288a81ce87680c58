"""Extraction of the program from a chat model's answer.

Answers come as one fenced code block, as several, as bare code, as prose around code, indented, quoted, cut off by the
token limit, or without the imports that the code uses. `extract_code` returns one program for the whole answer.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from alignment.evaluation.python_code import (
    PARSE_BUDGET,
    add_imports,
    dedent,
    defined_names,
    longest_valid,
    parses,
    used_names,
    without_scripts,
)

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`~]*)(?P<rest>[^\n`]*)$", re.MULTILINE)
_LATE_FENCE = re.compile(r"`{3,}[ \t]*[\w+#.{}-]*[ \t]*")
_TERMINAL = re.compile(r"\x1b(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")
_SPECIAL = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text)\|>")
_CORRECTION = re.compile(r"(?i)\b(?:correct(?:ed|ion)|fixed|revised|final|improved|mistake|wrong|bug|instead of)\b")
_TAGS = {
    "python": ("python", "python3", "py", "py3", "python2"),
    "javascript": ("javascript", "js", "node", "jsx", "mjs"),
    "typescript": ("typescript", "ts", "tsx"),
    "cpp": ("cpp", "c++", "cc", "cxx", "c"),
    "csharp": ("csharp", "cs", "c#"),
    "shell": ("shell", "sh", "bash", "zsh"),
    "go": ("go", "golang"),
    "rust": ("rust", "rs"),
    "ruby": ("ruby", "rb"),
    "perl": ("perl", "pl"),
    "r": ("r",),
}
"""Language -> tags of its fenced code blocks."""


def extract_code(answer: str, *, language: str = "python", entry_point: str | None = None) -> str:
    """Return the program in an answer.

    Of several fenced blocks, those in the right language are used. For Python the block that defines the entry point is
    taken, with helpers that it needs from other blocks, and without statements that would run an example. Of several
    versions the first one with a body is taken, or the last one that the text before it calls a correction. A block that
    is never closed ends with the answer. If there is no block, or none defines the entry point, the code is the longest
    part of the answer that parses. Python code loses its common indentation and an incomplete last statement, and gets
    missing imports of the standard library.

    Args:
        answer: the answer of the model.
        language: the language of the program.
        entry_point: the function or class that the program must define.
    """
    answer = cleaned(answer)
    blocks = _language_blocks(answer, language)
    if language != "python":
        return _choose([block.content for block in blocks], entry_point) if blocks else answer.strip("\n")
    code = _python_from_blocks(blocks, entry_point) if blocks else ""
    if not code or (entry_point and not (parses(code) and entry_point in defined_names(code))):
        bare = _python_from_prose(answer, entry_point)
        if not code or (parses(bare) and entry_point in defined_names(bare)):
            code = bare
    if entry_point and entry_point in defined_names(code):
        code = without_scripts(code, entry_point)
    return add_imports(code)


def cleaned(answer: str) -> str:
    """Return the answer without reasoning in `<think>`, terminal colours, special tokens, quote marks and unusual
    blanks.
    """
    answer = _TERMINAL.sub("", answer).replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").lstrip("\ufeff")
    answer = _SPECIAL.split(answer, maxsplit=1)[0]
    if "</think>" in answer:
        answer = answer.rsplit("</think>", 1)[1]
    lines = answer.split("\n")
    if any(re.match(r"> ?(?:```|~~~)", line) for line in lines):
        answer = "\n".join(re.sub(r"^> ?", "", line) for line in lines)
    return "\n".join(map(_split_late_fence, answer.split("\n")))


def _split_late_fence(line: str) -> str:
    """Put a fence that opens after text on a line of its own.

    The text is not matched with a regular expression: a line of a hundred thousand blanks and brackets would take
    minutes.
    """
    text, mark, _ = line.partition("`")
    fence = line[len(text) :]
    if not mark or not text.replace(">", " ").strip() or not _LATE_FENCE.fullmatch(fence):
        return line
    return f"{text}\n{fence.rstrip()}"


@dataclass(frozen=True)
class FencedBlock:
    """A fenced code block, and the prose between it and the block before."""

    tag: str
    content: str
    prose_before: str


def fenced_blocks(answer: str) -> list[tuple[str, str]]:
    """Return all fenced code blocks as (tag, content), in order.

    The last one may be unclosed. The content of an indented fence loses the indentation of the fence.
    """
    return [(block.tag, block.content) for block in _all_blocks(answer)]


def _all_blocks(answer: str) -> list[FencedBlock]:
    blocks: list[FencedBlock] = []
    opening: re.Match[str] | None = None
    previous_end = 0

    def close(match: re.Match[str], end: int) -> None:
        tag = match["tag"].lower().strip("{}.")
        blocks.append(FencedBlock(tag, _content(answer, match, end), answer[previous_end : match.start()]))

    for match in _FENCE.finditer(answer):
        if opening is None:
            opening = match
        elif match["marks"][0] == opening["marks"][0] and len(match["marks"]) >= len(opening["marks"]):
            close(opening, match.start())
            previous_end = match.end()
            opening = match if match["tag"] else None  # a fence with a tag opens a block: the last one was not closed
    if opening is not None and (opening["tag"] or not blocks):
        close(opening, len(answer))
    return [block for block in blocks if block.content.strip()]


def _content(answer: str, opening: re.Match[str], end: int) -> str:
    content = answer[opening.end() + 1 : end]
    if re.match(r"[ \t]*(?:def|class|import|from|async|@|#include)\b", opening["rest"]):  # code on the fence's own line
        content = opening["rest"].strip() + "\n" + content
    indent = opening["indent"]
    if not indent:
        return content
    return "\n".join(line.removeprefix(indent) for line in content.split("\n"))


def _language_blocks(answer: str, language: str) -> list[FencedBlock]:
    """Return the blocks tagged with the language; if there are none, those without a tag; if there are none, all."""
    blocks = _all_blocks(answer)
    tags = _TAGS.get(language, (language,))
    tagged = [block for block in blocks if block.tag in tags]
    return tagged or [block for block in blocks if not block.tag] or blocks


def _choose(blocks: list[str], entry_point: str | None) -> str:
    """Of the blocks that name the entry point one that seems to define it; the longest if several or none do."""
    if entry_point:
        naming = [block for block in blocks if re.search(rf"\b{re.escape(entry_point)}\b", block)]
        if naming:
            return max(naming, key=lambda block: (_seems_to_define(block, entry_point), len(block)))
    return max(blocks, key=len)


def _seems_to_define(block: str, entry_point: str) -> bool:
    """Whether code in any language seems to define a name, and not only to call it."""
    name = re.escape(entry_point)
    return bool(re.search(rf"(?:\b(?:def|function|func|fn|sub)\s+{name}\b|\b{name}\s*(?:\(\)\s*\{{|=|<-))", block))


def _python_from_blocks(blocks: list[FencedBlock], entry_point: str | None) -> str:
    codes = []
    for block in blocks:
        code = dedent(block.content)
        codes.append(longest_valid(code) or _python_from_prose(code, entry_point) or code)
    if entry_point is None:
        return max(codes, key=len)
    defining = [index for index, code in enumerate(codes) if entry_point in defined_names(code)]
    with_body = [index for index in defining if not is_stub(codes[index], entry_point)]
    if not defining:
        return _choose(codes, entry_point)
    chosen = (with_body or defining)[0]
    for index in with_body[1:]:
        if _CORRECTION.search("".join(block.prose_before for block in blocks[chosen + 1 : index + 1])):
            chosen = index
    main = codes[chosen]
    missing = used_names(main) - defined_names(main)
    helpers = [code for code in codes if code is not main and defined_names(code) & missing]
    return "\n\n".join([*(without_scripts(code, entry_point) for code in helpers), main])


def is_stub(code: str, entry_point: str) -> bool:
    """Whether a function has nothing but a docstring and `pass`, `...` or `raise`."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry_point:
            statements = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
            return all(isinstance(part, ast.Pass | ast.Raise) for part in statements)
    return False


def _python_from_prose(answer: str, entry_point: str | None = None) -> str:
    """Bare code in prose: the longest run of lines that parses, if possible one that defines the entry point.

    A run begins at a line that looks like the beginning of code.
    """
    text = dedent(answer.strip("\n"))
    if parses(text):
        return text
    lines = answer.strip("\n").split("\n")
    starts = [
        index
        for index, line in enumerate(lines)
        if re.match(r"\s*(?:def |class |import |from \w[\w.]* import |@|async def |[A-Za-z_]\w*\s*=[^=])", line)
    ]
    best, best_rank = "", (False, 0)
    for start in starts[: min(40, max(1, PARSE_BUDGET // (16 * len(text) + 1)))]:
        code = longest_valid(dedent("\n".join(lines[start:])), PARSE_BUDGET // 16)
        rank = (entry_point is not None and entry_point in defined_names(code), len(code))
        if rank > best_rank:
            best, best_rank = code, rank
    return best or (text if entry_point is None else "")

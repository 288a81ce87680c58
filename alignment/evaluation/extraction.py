"""From what a chat model says to the code that it means.

Answers come as one fenced block, as several, as bare code, as prose around code, indented, quoted, cut off by the token
limit, or without the imports that the code uses. `extract_code` takes the answer as a whole and returns one program.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from alignment.evaluation.python_code import (
    PARSED,
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
_BETTER = re.compile(r"(?i)\b(?:correct(?:ed|ion)|fixed|revised|final|improved|mistake|wrong|bug|instead of)\b")
_ALIASES = {
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


def extract_code(answer: str, *, language: str = "python", entry_point: str | None = None) -> str:
    """The program in `answer`.

    Of several fenced blocks those in the right language count; for Python the block that defines the entry point is
    taken, with the helpers that it needs from others, and without what an example of use would run. Of several
    versions the first with a body counts, or the last where the words before it call it a correction. An unclosed
    fence ends with the answer. Without a fence, or where no block defines the entry point, the longest part that
    parses is the code. Python code loses its common indentation and a broken last statement, and gets the standard
    imports that it forgot.
    """
    answer = cleaned(answer)
    blocks = _blocks(answer, language)
    if language != "python":
        return _choose([block.content for block in blocks], entry_point) if blocks else answer.strip("\n")
    code = _python_from_blocks(blocks, entry_point) if blocks else ""
    if not code or (entry_point and not (parses(code) and entry_point in defined_names(code))):
        found = _python_from_prose(answer, entry_point)
        if not code or (parses(found) and entry_point in defined_names(found)):
            code = found
    if entry_point and entry_point in defined_names(code):
        code = without_scripts(code, entry_point)
    return add_imports(code)


def cleaned(answer: str) -> str:
    """Without what surrounds a text on its way: thoughts, terminal colours, special tokens, quote marks, odd blanks."""
    answer = _TERMINAL.sub("", answer).replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").lstrip("\ufeff")
    answer = _SPECIAL.split(answer, maxsplit=1)[0]
    if "</think>" in answer:
        answer = answer.rsplit("</think>", 1)[1]
    lines = answer.split("\n")
    if any(re.match(r"> ?(?:```|~~~)", line) for line in lines):
        answer = "\n".join(re.sub(r"^> ?", "", line) for line in lines)
    return "\n".join(map(_fence_apart, answer.split("\n")))


def _fence_apart(line: str) -> str:
    """A fence that opens behind words gets a line of its own. No regular expression sees the words: a line of a hundred
    thousand blanks and brackets would keep it busy for minutes."""
    text, mark, _ = line.partition("`")
    fence = line[len(text) :]
    if not mark or not text.replace(">", " ").strip() or not _LATE_FENCE.fullmatch(fence):
        return line
    return f"{text}\n{fence.rstrip()}"


@dataclass(frozen=True)
class Block:
    """A fenced block, and the prose between it and the one before."""

    tag: str
    content: str
    before: str


def fenced_blocks(answer: str) -> list[tuple[str, str]]:
    """All fenced blocks as (tag, content), in order; the last one may be open. Indented fences lose their indent."""
    return [(block.tag, block.content) for block in _fenced(answer)]


def _fenced(answer: str) -> list[Block]:
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    ended = 0

    def close(match: re.Match[str], end: int) -> None:
        tag = match["tag"].lower().strip("{}.")
        blocks.append(Block(tag, _inside(answer, match, end), answer[ended : match.start()]))

    for match in _FENCE.finditer(answer):
        if opening is None:
            opening = match
        elif match["marks"][0] == opening["marks"][0] and len(match["marks"]) >= len(opening["marks"]):
            close(opening, match.start())
            ended = match.end()
            opening = match if match["tag"] else None  # a new block opens where the last one was never closed
    if opening is not None and (opening["tag"] or not blocks):
        close(opening, len(answer))
    return [block for block in blocks if block.content.strip()]


def _inside(answer: str, opening: re.Match[str], end: int) -> str:
    content = answer[opening.end() + 1 : end]
    if re.match(r"[ \t]*(?:def|class|import|from|async|@|#include)\b", opening["rest"]):  # code on the fence's own line
        content = opening["rest"].strip() + "\n" + content
    indent = opening["indent"]
    if not indent:
        return content
    return "\n".join(line.removeprefix(indent) for line in content.split("\n"))


def _blocks(answer: str, language: str) -> list[Block]:
    blocks = _fenced(answer)
    tags = _ALIASES.get(language, (language,))
    tagged = [block for block in blocks if block.tag in tags]
    return tagged or [block for block in blocks if not block.tag] or blocks


def _choose(blocks: list[str], entry_point: str | None) -> str:
    """The first block that has the entry point, else the longest."""
    if entry_point:
        named = [block for block in blocks if re.search(rf"\b{re.escape(entry_point)}\b", block)]
        if named:
            return max(named, key=lambda block: (_defines(block, entry_point), len(block)))
    return max(blocks, key=len)


def _defines(block: str, entry_point: str) -> bool:
    """Whether it looks as if `block` defined the name and did not merely call it, in whatever language."""
    name = re.escape(entry_point)
    return bool(re.search(rf"(?:\b(?:def|function|func|fn|sub)\s+{name}\b|\b{name}\s*(?:\(\)\s*\{{|=|<-))", block))


def _python_from_blocks(blocks: list[Block], entry_point: str | None) -> str:
    trimmed = []
    for block in blocks:
        code = dedent(block.content)
        trimmed.append(longest_valid(code) or _python_from_prose(code, entry_point) or code)
    if entry_point is None:
        return max(trimmed, key=len)
    defining = [index for index, code in enumerate(trimmed) if entry_point in defined_names(code)]
    full = [index for index in defining if not is_stub(trimmed[index], entry_point)]
    if not defining:
        return _choose(trimmed, entry_point)
    chosen = (full or defining)[0]
    for index in full[1:]:
        if _BETTER.search("".join(block.before for block in blocks[chosen + 1 : index + 1])):
            chosen = index
    main = trimmed[chosen]
    wanted = used_names(main) - defined_names(main)
    helpers = [code for code in trimmed if code is not main and defined_names(code) & wanted]
    return "\n\n".join([*(without_scripts(code, entry_point) for code in helpers), main])


def is_stub(code: str, entry_point: str) -> bool:
    """Whether the function has no more than a docstring and a placeholder."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry_point:
            said = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
            return all(isinstance(part, ast.Pass | ast.Raise) for part in said)
    return False


def _python_from_prose(answer: str, entry_point: str | None = None) -> str:
    """Bare code: the longest run of lines that parses, from a line where code can begin; with the entry point in it,
    where there is such a run."""
    text = dedent(answer.strip("\n"))
    if parses(text):
        return text
    lines = answer.strip("\n").split("\n")
    starts = [
        index
        for index, line in enumerate(lines)
        if re.match(r"\s*(?:def |class |import |from \w[\w.]* import |@|async def |[A-Za-z_]\w*\s*=[^=])", line)
    ]
    best, rank = "", (False, 0)
    for start in starts[: min(40, max(1, PARSED // (16 * len(text) + 1)))]:
        code = longest_valid(dedent("\n".join(lines[start:])), PARSED // 16)
        found = (entry_point is not None and entry_point in defined_names(code), len(code))
        if found > rank:
            best, rank = code, found
    return best or (text if entry_point is None else "")

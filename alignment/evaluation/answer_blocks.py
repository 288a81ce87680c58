"""Clean a chat model's answer, and find the fenced code blocks in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from alignment.evaluation.python_code import dedent, parses

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`~]*)(?P<rest>[^\n`]*)$", re.MULTILINE)
_LATE_FENCE = re.compile(r"(?P<marks>`{3,})[ \t]*(?P<tag>[\w+#.{}-]*)[ \t]*")
_TERMINAL = re.compile(r"\x1b(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")
_BLANKS = re.compile("[\u00a0\u2007\u2009\u202f\u3000]|[\u200b\u2060\ufeff]")
_SPECIAL = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|eom_id|end|return)\|>|</s>|<(?:end_of_turn|eos)>|<｜end▁of▁sentence｜>"
)
_NEXT_TURN = re.compile(r"\s*(?:\Z|<\|(?:im_start|start_header_id|start|endoftext)\|>|<start_of_turn>)")
_THOUGHT = re.compile(r"\s*(?:`{3,}[ \t]*\w*\s*)?<(?P<name>think|thinking|thought|reasoning)>")
_QUOTED_FENCE = re.compile(r"^(?P<quote>>? ?)(?:```|~~~)", re.MULTILINE)
_CODE_ON_FENCE = re.compile(r"[ \t]*(?:def|class|import|from|async|@|#include)\b")
_MOST_FENCES = 8
"""Largest number of fences (lines such as ```` ``` ````) that are tried as the end of a code block. The first fence may
be part of a string in the code."""


_MOST_TAGS = 100
"""Largest number of tags or special tokens of an answer that are examined. Repetitive answers have thousands."""
_MOST_CHARACTERS = 300
"""Largest number of characters of a line, on each side of a tag or token, that are searched for quotes."""


def cleaned(answer: str) -> str:
    """Remove reasoning in `<think>`, terminal colours, special tokens, quote marks and unusual blanks from an answer.

    These parts are kept where they belong to the code: in strings, in comments and in closed code blocks.
    """
    answer = answer.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    if "\x1b" in answer:
        answer = _replace_outside_strings(_TERMINAL, answer)
    if _BLANKS.search(answer):
        answer = _replace_outside_strings(_BLANKS, answer)
    first = _QUOTED_FENCE.search(answer)
    if first and first["quote"].startswith(">"):
        answer = re.sub(r"^> ?", "", answer, flags=re.MULTILINE)
    if parses(dedent(answer)):
        return answer
    return _without_thoughts(_first_turn(answer))


def _replace_outside_strings(pattern: re.Pattern[str], answer: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        if _in_string(answer, match.start(), match.end()):
            return match[0]
        return "" if pattern is _TERMINAL or match[0] in "\u200b\u2060\ufeff" else " "

    return pattern.sub(replacement, answer)


def _in_string(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` lies in a string: on the same line, a quote opens before `start` and closes after
    `end`.
    """
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    before = text[max(line_start, start - _MOST_CHARACTERS) : start]
    after = text[end : min(line_end if line_end >= 0 else len(text), end + _MOST_CHARACTERS)]
    quote = _open_quote(before)
    return quote is not None and quote in after


def _open_quote(before: str) -> str | None:
    """Return the quote or backtick that is still open at the end of `before`, or None if none is open."""
    quote, index = None, 0
    while index < len(before):
        char = before[index]
        if char == "\\":
            index += 1
        elif quote is None and char in "\"'`":
            # An apostrophe inside a word does not open a string.
            word_before = char == "'" and index > 0 and before[index - 1].isalpha()
            if not (word_before and before[index + 1 : index + 2].isalpha()):
                quote = char
        elif char == quote:
            quote = None
        index += 1
    return quote


def _is_code(answer: str, match: re.Match[str]) -> bool:
    """Whether a matched tag or special token is part of the code: it lies in a string, a comment or a docstring."""
    start, end = match.span()
    if _in_string(answer, start, end):
        return True
    if any(answer.count(marks, 0, start) % 2 and answer.find(marks, end) >= 0 for marks in ('"""', "'''")):
        return True
    line = answer[answer.rfind("\n", 0, start) + 1 : start]
    return bool(re.search(r"(?:^|\s)(?:#|//)\s", line)) and _NEXT_TURN.match(answer, end) is None


def _first_turn(answer: str) -> str:
    """Return the answer up to the special token that ends the model's turn."""
    tokens = list(itertools.islice(_SPECIAL.finditer(answer), _MOST_TAGS))
    if not tokens:
        return answer
    blocks = [block for block in all_blocks(answer) if block.closed]
    for token in tokens:
        in_block = any(block.start <= token.start() < block.end for block in blocks)
        if _is_code(answer, token) or (in_block and not _NEXT_TURN.match(answer, token.end())):
            continue
        return answer[: token.start()]
    return answer


def _without_thoughts(answer: str) -> str:
    """Return the part of the answer after the reasoning.

    The opening tag of the reasoning may be missing, since some chat templates put that tag into the prompt.
    """
    while opening := _THOUGHT.match(answer):
        for tag in itertools.islice(re.finditer(f"</{opening['name']}>", answer), _MOST_TAGS):
            if not _in_string(answer, tag.start(), tag.end()):
                answer = answer[tag.end() :]
                break
        else:
            return answer
    if "</think>" not in answer:
        return answer
    closed = [block for block in all_blocks(answer) if block.closed]
    end = 0
    for tag in list(re.finditer("</think>", answer))[-_MOST_TAGS:]:
        if not any(block.start <= tag.start() < block.end for block in closed) and not _is_code(answer, tag):
            end = tag.end()
    return answer[end:]


@dataclass(frozen=True)
class FencedBlock:
    """A fenced code block, and the text between the previous block and this one."""

    tag: str
    content: str
    prose_before: str
    start: int
    """Offset in the answer at which the opening fence begins, in characters."""
    end: int
    """Offset in the answer at which the content ends, in characters."""
    closed: bool
    """Whether a closing fence ends the block. If not, the block ends at the next opening fence or at the end of the
    answer."""


@dataclass(frozen=True)
class _Fence:
    """A fence in an answer. It is alone on its line, or at the end of a line of text."""

    start: int
    end: int
    indent: str
    marks: str
    tag: str
    rest: str
    late: bool
    """Whether the line has text before the fence."""


def fenced_blocks(answer: str) -> list[tuple[str, str]]:
    """Return all fenced code blocks as (tag, content), in order.

    The last block may lack a closing fence. The indentation of an opening fence is also removed from the content.
    """
    return [(block.tag, block.content) for block in all_blocks(answer)]


def all_blocks(answer: str) -> list[FencedBlock]:
    """Return all fenced code blocks of an answer. A fence inside a string of the code does not end the block."""
    fences = list(_fences(answer))
    blocks: list[FencedBlock] = []
    index = previous_end = 0
    while index < len(fences):
        opening = fences[index]
        closing = _closing(answer, fences, index)
        if closing is None and not opening.tag and blocks:
            break  # a single fence without a tag after the last block
        end = len(answer) if closing is None else fences[closing].start
        closed = closing is not None and not fences[closing].tag
        blocks.append(
            FencedBlock(
                tag=opening.tag.lower().strip("{}."),
                content=_content(answer, opening, end),
                prose_before=answer[previous_end : opening.start],
                start=opening.start,
                end=end,
                closed=closed,
            )
        )
        if closing is None:
            break
        previous_end = fences[closing].end if closed else end
        index = closing + closed  # if the closing fence has a tag, it opens the next block
    return [block for block in blocks if block.content.strip()]


def _fences(answer: str) -> Iterator[_Fence]:
    """Yield the fences of an answer: lines that are a fence, and fences at the end of a line of text.

    The text before a fence at the end of a line is not matched with a regular expression, which would take minutes for
    a line of a hundred thousand blanks and brackets.
    """
    offset = 0
    for line in answer.split("\n"):
        match = _FENCE.match(line)
        if match:
            special = _SPECIAL.match(match["tag"])
            tag = "" if special else match["tag"]
            yield _Fence(
                offset,
                offset + len(line),
                match["indent"],
                match["marks"],
                tag,
                "" if special else match["rest"],
                False,
            )
        elif "```" in line:
            text, _, _ = line.partition("`")
            late = _LATE_FENCE.fullmatch(line, len(text))
            if not late and line.rstrip().endswith("```"):  # code with backticks before its fence
                start = len(line.rstrip().rstrip("`"))
                text, late = line[:start], _LATE_FENCE.fullmatch(line, start)
                if text.lstrip().startswith("```") or text.count("```") % 2:  # inline code
                    late = None
            if late and text.replace(">", " ").strip():
                start = offset + len(text)
                yield _Fence(start, offset + len(line), "", late["marks"], late["tag"], "", True)
        offset += len(line) + 1


def _closing(answer: str, fences: list[_Fence], index: int) -> int | None:
    """Return the index of the fence that closes the block opened by fence `index`, or None if no fence closes the
    block.

    Usually the first later fence of the same kind closes the block. If this fence lies in a string of the code, the
    fences after it are tried in turn: the first fence up to which the code is complete closes the block.
    """
    opening = fences[index]
    fits = (
        number
        for number in range(index + 1, len(fences))
        if fences[number].marks[0] == opening.marks[0] and len(fences[number].marks) >= len(opening.marks)
    )
    fitting = list(itertools.islice(fits, _MOST_FENCES))
    if not fitting:
        return None
    for number in fitting:
        content = _content(answer, opening, fences[number].start)
        if fences[number].late and _in_comment(answer, fences[number].start):
            continue
        if not _ends_in_string(content):
            if number == fitting[0] or _is_complete(content, opening.tag):
                return number
            continue
        if parses(dedent(content)):
            return number
    ends = [number for number in fitting if not (fences[number].late and _in_comment(answer, fences[number].start))]
    return (ends or fitting)[0]


def _in_comment(answer: str, index: int) -> bool:
    line = answer[answer.rfind("\n", 0, index) + 1 : index]
    return bool(re.search(r"(?:^|\s)(?:#|//)(?:\s|$)", line))


def _ends_in_string(content: str) -> bool:
    """Whether a multi-line string seems to be open at the end of the code: triple quotes or a JavaScript template."""
    if any(content.count(marks) % 2 for marks in ('"""', "'''")):
        return True
    return bool(len(re.findall(r"(?<![\\`])`(?!`)", content)) % 2)


def _is_complete(content: str, tag: str) -> bool:
    """Whether code that contains fences is complete: Python code must parse, and in other languages no multi-line
    string may be open.
    """
    python = not tag or tag.lower().strip("{}.").startswith(("py", "main.py"))
    return parses(dedent(content)) if python else not _ends_in_string(content)


def _content(answer: str, opening: _Fence, end: int) -> str:
    content = answer[opening.end + 1 : end]
    if _CODE_ON_FENCE.match(opening.rest):  # code on the fence's own line
        content = opening.rest.strip() + "\n" + content
    if not opening.indent:
        return content
    return "\n".join(line.removeprefix(opening.indent) for line in content.split("\n"))

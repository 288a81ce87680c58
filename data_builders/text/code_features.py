"""Measures of the form of code that correlate with code quality: layout, names, comments, repetition, literal data.

Each measure is a share of lines, names or characters, scaled to between 0 and 1. The measures count patterns instead of
parsing, so that they work for all languages. A single measure says little about quality. A classifier combines all
measures. In short files, the measures are unreliable, so `_share` reduces them.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEASURES = (
    "comments", "documentation", "dead_code", "repeated_lines", "repeated_blocks", "alike_neighbours", "long_lines",
    "very_long_lines", "deep_nesting", "flat", "tight_signs", "joined_statements", "short_names", "numbered_names", "telling_names",
    "varied_names", "numbers", "literal_lines", "strings", "prints", "silent_handlers", "empty_bodies", "junk_words",
)  # fmt: skip
"""Names of the measures, in the order of `code_form`."""

_SLASH_BLOCK = re.compile(r"/\*.*?\*/", re.DOTALL)
_MARKUP_BLOCK = re.compile(r"<!--.*?-->", re.DOTALL)
_QUOTED_BLOCK = re.compile(r"^[ \t]*[rRuUbB]{0,2}(?:\"\"\".*?\"\"\"|\'\'\'.*?\'\'\')", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"\s*(?:/\*.{0,4000}?\*/|(?:[ \t]*(?://|#|--|;|%)[^\n]*\n)+)", re.DOTALL)
_COMMENT = ("//", "#", "-- ", "--|", ";;", "; ", "% ", "%%", "* ", "*/", "REM ", "rem ")
_NO_COMMENT = ("#include", "#define", "#if", "#else", "#elif", "#endif", "#pragma", "#undef", "#import", "#error", "#line",
               "#region", "#endregion", "#[", "#![", "#{", "#:", "#(")  # fmt: skip
_MARKS = "/#*;%- \t"
_INDENTED_COMMENT = re.compile(r"(?:#|//|;|%|--) {3,}\S")
_CODE_IN_COMMENT = re.compile(
    r".*[;{}]$|[\w.\[\]'\"$]+ ?[-+*/]?=[^=].*|[$\w.]+\(.*\)[:,]?$|@\w+\(.*|"
    r"(?:if|for|while|elif|else|def|class|return|import|from|public|private|let|var|const|try|except|with|switch|case)\b.*[:({=]$|"
    r"(?:return|import) [\w.]+$"
)
_DOCUMENTATION = ("/**", '"""', "'''", 'r"""', "<!--")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|`[^`\n]*`')
_WORD = re.compile(r"[A-Za-z_]\w*|\d[\w.]*")
_NUMBERED = re.compile(r"[A-Za-z_]+\d{1,2}")
_SIZED = re.compile(r"(?i)[a-z_]*(?:int|float|double|uint|char|str|utf|base|sha|md|crc|aes|http|v|version|py|python|java|id3|level|s|k8|i18|"
                    r"oauth|h|junit|log|vec|mat|conv|x|f|u|i|r|b)_?\d{1,2}")  # fmt: skip
_LITERALS = re.compile(r"(?=.*\d)(?:0[xX][0-9a-fA-F]+|[^A-Za-z_])+")
_IMPORT = re.compile(
    r"(?:import|from|using|use|package|require|require_relative|#include|#import|namespace|open|export \{)\b"
)
_JOINED = re.compile(
    r"^\s*(?:(?:if|elif|for|while|except|with)\b[^\n:]*|else|try):[ \t]*(?:return|pass|break|continue|raise|[a-z_][\w.\[\]]* *[=(])",
    re.MULTILINE,
)
_TIGHT = re.compile(r"(?:[=!<>+\-]=|&&|\|\|)(?<=[\w)\]]..)[\w(\"]")
_TIGHT_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.\[\]]*=[^=\s]")
_PRINT = re.compile(
    r"(?:print|println|puts|p|alert|cout|var_dump|print_r|console\.\w+|System\.(?:out|err)\.\w+|fmt\.Print\w*|debugger)\b"
)
_SILENT = (
    re.compile(r"except\b[^\n:]*:\s{0,40}(?:pass|\.\.\.)|except {0,9}:"),
    re.compile(r"catch {0,9}(?:\([^)\n]*\))?\s{0,40}\{\s{0,40}\}"),
    re.compile(r"rescue {0,9};?\s{0,40}end\b"),
)
_EMPTY = re.compile(r"\{\s*\}")
_JUNK = ("asdf\"", "asdf'", "asdf asdf", "qwerty", "blah", "lorem ipsum", "your code here", "homework", "deleteme", "dont touch", "don't touch",
         "no idea why", "desktop\\", "desktop/", "c:\\users", "# in[", "<<<<<<<", ">>>>>>>", "traceback (most")  # fmt: skip
_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def _share(count: float, total: float, scale: float = 1.0, prior: float = 5.0, usual: float = 0.0) -> float:
    """Compute a scaled share between 0 and 1.

    Args:
        count: number of lines, names or characters with a property.
        total: number of all lines, names or characters.
        scale: factor by which the share is multiplied.
        prior: number that is added to `total`, which makes the share smaller in short files.
        usual: usual share in good code, which is subtracted.
    """
    return max(0.0, min(1.0, scale * (count / (total + prior) - usual)))


def code_form(text: str) -> NDArray[np.float32]:
    """Return the measures in `MEASURES` of a program, each between 0 and 1. A license comment at the top is ignored."""
    text = _without_license(text)
    text, blocks = _without_blocks(text)
    raw = text.split("\n")
    block_lines = [line.strip() for block in blocks for line in block.split("\n")]
    lines = [line for line in map(str.strip, raw) if line]
    comments = [line for line in lines if line.startswith(_COMMENT) and not line.startswith(_NO_COMMENT)]
    if comments:
        lines = [line for line in lines if not line.startswith(_COMMENT) or line.startswith(_NO_COMMENT)]
    code = [line for line in lines if not _IMPORT.match(line)]
    total = len(lines) + len(comments) + len(block_lines)
    dead = sum(map(_is_code, comments))
    dead += sum(
        _is_code(line.strip())
        for block in blocks
        if not block.lstrip().startswith(_DOCUMENTATION)
        for line in block.split("\n")
    )
    documented = sum(block.lstrip().startswith(_DOCUMENTATION) for block in blocks)
    documented += sum(line.startswith(("///", "//!", "-- |", "##")) for line in comments)
    measures = [
        _share(len(comments) + len(block_lines) - dead, total, 5),
        _share(documented, len(code), 10),
        _share(dead, total, 5, usual=0.02),
        *_repetition(code),
        *_layout(raw, code),
        *_names_and_literals(code),
    ]
    lowered = text.lower()
    measures.append(_share(sum(lowered.count(word) for word in _JUNK), len(code), 8))
    return np.array(measures, dtype=np.float32)


def _is_code(comment: str) -> bool:
    """Whether a comment line looks like commented-out code."""
    return bool(_INDENTED_COMMENT.match(comment) or _CODE_IN_COMMENT.match(comment.lstrip(_MARKS)))


def _without_license(text: str) -> str:
    head = _LICENSE.match(text)
    if head and ("icense" in head.group() or "opyright" in head.group()):
        return text[head.end() :]
    return text


def _without_blocks(text: str) -> tuple[str, list[str]]:
    """Return the text without block comments and docstrings, and a list of the removed comments and docstrings."""
    blocks: list[str] = []

    def remove(match: re.Match[str]) -> str:
        start = match.start()
        if start and match.string[start - 1] not in " \t\n;{}(,":
            return match.group()  # part of a path or a pattern, such as `src/*.c`
        blocks.append(match.group())
        return ""

    for mark, pattern in (
        ("/*", _SLASH_BLOCK),
        ("<!--", _MARKUP_BLOCK),
        ('"""', _QUOTED_BLOCK),
        ("'''", _QUOTED_BLOCK),
    ):
        if mark in text:
            text = pattern.sub(remove, text)
    return text, blocks


def _repetition(code: Sequence[str]) -> list[float]:
    """Measure repetition: equal lines, equal blocks of four lines, neighbouring lines that differ only in numbers."""
    long = [line for line in code if len(line) > 8]
    same = len(long) - len(set(long))
    digitless = "\n".join(long).encode("utf-8", "surrogatepass").translate(_DIGITS).split(b"\n")
    windows = list(zip(digitless, digitless[1:], digitless[2:], digitless[3:], strict=False))
    alike = sum(left == right for left, right in itertools.pairwise(digitless))
    alike += sum(left == right and b"0" in left for left, right in zip(digitless, digitless[2:], strict=False))
    return [
        _share(same, len(long), 2.5, usual=0.2),
        _share(len(windows) - len(set(windows)), len(windows), 3, usual=0.05),
        _share(alike, len(long), 5, usual=0.05),
    ]


def _layout(raw: Sequence[str], code: Sequence[str]) -> list[float]:
    """Measure layout: long lines, very long lines, deep nesting, lines without indentation."""
    filled = [line for line in raw if line and not line.isspace()]
    count = len(filled)
    indented = [line[: len(line) - len(line.lstrip())] for line in filled if line[0] in " \t"]
    widths = Counter(len(blank) + 3 * blank.count("\t") for blank in indented)
    unit = 2 if sum(n for width, n in widths.items() if width % 4 == 2) > 0.2 * len(indented) else 4
    deep = sum(n for width, n in widths.items() if width >= 6 * unit)
    return [
        _share(sum(len(line) > 110 for line in code), len(code), 5),
        _share(sum(len(line) for line in code if len(line) > 150), sum(map(len, code)), 3, 200),
        _share(deep, count, 5),
        _share(count - len(indented), count),
    ]


def _names_and_literals(code: Sequence[str]) -> list[float]:
    """Compute the measures of names, literals and so on: the measures from `tight_signs` to `empty_bodies` in
    `MEASURES`.
    """
    whole = "\n".join(code)
    masked = _STRING.sub('""', whole)
    lines = masked.split("\n")
    words = _WORD.findall(masked)
    counted = Counter(words)
    names = {name: number for name, number in counted.items() if not name[0].isdigit()}
    total = sum(names.values())
    single = sum(number for name, number in names.items() if len(name) == 1)
    numbered = sum(
        1 for name in names if name[-1].isdigit() and _NUMBERED.fullmatch(name) and not _SIZED.fullmatch(name)
    )
    telling = sum(len(name) >= 5 for name in names)
    first = words[:400]
    commas = masked.count(",")
    tight = commas - masked.count(", ") - masked.count(",\n") - masked.endswith(",")
    if "$" not in masked:  # shell code, which allows no blanks around these operators
        tight += sum(1 for _ in _TIGHT.finditer(masked)) + sum(1 for line in lines if _TIGHT_ASSIGNMENT.match(line))
    empty = len(_EMPTY.findall(masked)) + sum(line == "pass" or line.endswith((" pass", ":pass")) for line in lines)
    joined = sum(
        ";" in line[:-1] and "for" not in line and "&" not in line and not line.startswith('"') for line in lines
    )
    joined += len(_JOINED.findall(masked))
    return [
        _share(tight, len(lines), 2),
        _share(joined, len(lines), 5),
        _share(single, total, 3, 20, usual=0.08),
        _share(numbered, len(names), 5, 10, usual=0.02),
        _share(telling, len(names), 1, 3),
        _share(len(set(first)), len(first), 1, 10),
        _share(len(words) - total, total, 1.5, 20, usual=0.15),
        _share(sum(1 for line in lines if _LITERALS.fullmatch(line)), len(lines), 2),
        _share(len(whole) - len(masked), len(whole), 2, 100),
        _share(sum(1 for line in lines if _PRINT.match(line)), len(lines), 4),
        _share(sum(len(pattern.findall(masked)) for pattern in _SILENT), len(lines), 15),
        _share(empty, len(lines), 6),
    ]

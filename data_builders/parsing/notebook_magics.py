"""Turn the special lines of IPython cells (magics, shell commands, help requests) into comments or plain Python."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_builders.parsing.python_functions import parse

_OTHER_LANGUAGES = frozenset(
    [
        "bash",
        "sh",
        "script",
        "cmd",
        "system",
        "sx",
        "html",
        "HTML",
        "javascript",
        "js",
        "latex",
        "markdown",
        "svg",
        "SVG",
        "perl",
        "ruby",
        "R",
        "r",
        "sql",
        "bigquery",
        "writefile",
        "file",
        "cython",
        "julia",
        "java",
        "scala",
        "cpp",
        "c",
        "rust",
        "go",
        "node",
        "typescript",
        "ts",
        "powershell",
        "pwsh",
        "css",
        "mermaid",
        "graphviz",
        "dot",
        "fortran",
        "octave",
        "matlab",
        "writetemplate",
        "appendfile",
        "sparql",
        "cypher",
        "manim",
        "tikz",
        "shell",
        "zsh",
        "bat",
        "yaml",
        "json",
    ]
)
"""Cell magics whose cells are not Python."""
_CELL_MAGIC = re.compile(r"%%\s*(!|\w+)")
_RUNNING_MAGIC = re.compile(
    r"%(?:time|timeit|prun|memit|lprun|mprun)\b((?:\s+(?:-[nrplsTDfmuti]\s*[^\s-]\S*|--?[\w-]+))*)\s+(?P<statement>\S.*)$"
)
"""A line magic that executes a statement, with the statement's options."""
_SPECIAL = re.compile(
    r"%\s?[A-Za-z_]|!\S|\?{1,2}\s*[\w.*%]|%{0,2}[\w.*]+(?:\[[^\]]*\])?\?{1,2}\s*;?\s*$|(?:pip3?|conda|mamba)\s+(?:install|uninstall|list|freeze)\b"
)
_ASSIGNED = re.compile(r"(?P<target>[^=#'\"!%]+?)\s*=\s*(?P<command>[%!]\s*[\w{$./~].*)$")
_TOKEN = re.compile(r"\"\"\"|'''|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?|#.*|[\[({]|[\])}]|\\$", re.DOTALL)


def plain_python(source: str) -> str:
    """Return the source of an IPython cell as Python. What a line magic or shell command did becomes a comment.

    The statement of `%time` and similar magics stays. A cell in another language becomes a comment as a whole.
    """
    lines = source.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    magic = _CELL_MAGIC.match(lines[first])
    if magic is None:
        return "\n".join(_plain_lines(lines))
    rest = "\n".join(_plain_lines(lines[first + 1 :]))
    if magic.group(1) in _OTHER_LANGUAGES or magic.group(1) == "!" or parse(rest) is None:
        return "\n".join(f"# {line}".rstrip() for line in lines)
    return "\n".join([*lines[:first], f"# {lines[first]}", *([rest] if lines[first + 1 :] else [])])


def _plain_lines(lines: list[str]) -> Iterator[str]:
    """Yield the lines, with special lines changed. Lines inside strings, brackets and continued lines stay."""
    state = _State()
    is_continued_command = False
    for line in lines:
        if is_continued_command:
            is_continued_command = line.rstrip().endswith("\\")
            yield f"# {line}".rstrip()
            continue
        changed = _plain_line(line) if state.is_line_start else None
        if changed is None:
            state.read(line)
            yield line
        else:
            is_continued_command = line.rstrip().endswith("\\")
            yield changed


def _plain_line(line: str) -> str | None:
    """Return the replacement of a special line, or None if the line is plain Python."""
    text = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    if (running := _RUNNING_MAGIC.match(text)) and parse(running["statement"]) is not None:
        return indent + running["statement"]
    if _SPECIAL.match(text):
        return f"{indent}pass  # {text}" if indent else f"# {text}"
    if (assigned := _ASSIGNED.match(text)) and parse(f"{assigned['target']} = None") is not None:
        return f"{indent}{assigned['target']} = None  # {assigned['command']}"
    return None


class _State:
    """Whether the next line of a cell starts a statement: no string, bracket or continued line is open."""

    def __init__(self) -> None:
        self.quote = ""
        self.depth = 0
        self.is_continued = False

    @property
    def is_line_start(self) -> bool:
        return not self.quote and self.depth <= 0 and not self.is_continued

    def read(self, line: str) -> None:
        """Update the state by one line."""
        self.is_continued = False
        place = 0
        while place < len(line):
            if self.quote:
                end = re.compile(rf"(?:\\.|(?!{self.quote}).)*({self.quote})?").match(line, place)
                if end is None or end.group(1) is None:
                    return
                self.quote, place = "", end.end()
                continue
            token = _TOKEN.search(line, place)
            if token is None:
                return
            text, place = token.group(), token.end()
            if text in ('"""', "'''"):
                self.quote = text
            elif text in "[({":
                self.depth += 1
            elif text in "])}":
                self.depth -= 1
            elif text == "\\":
                self.is_continued = True
            elif text.startswith("#"):
                return

"""Convert Jupyter notebooks to scripts (with `# %%` before each cell) and to Markdown with code and outputs."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import Any

from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.languages import LANGUAGES, line_comment
from data_builders.parsing.notebook_magics import plain_python

MAX_OUTPUT = 2000
"""Maximum number of characters of a cell's output. Longer output is cut."""
WIDTH = 100
"""Width at which text cells are wrapped in a script. A notebook stores a paragraph as one line, which would be too long
for the code filters."""
_PICTURE = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]{64,}(?:\\?\n[A-Za-z0-9+/=]{20,})*")
_ENCODED = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}|(?:[A-Za-z0-9+/]{60,}\n){4,}[A-Za-z0-9+/]*={0,2}")
"""Encoded data in an output."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Notebook:
    """A notebook converted to two forms: a script and Markdown."""

    language: str
    """Language of the notebook's kernel."""
    script: str
    """Source code in which the text cells are comments."""
    structured: str
    """Markdown in which the code cells and outputs are fenced blocks."""


def convert(text: str) -> Notebook | None:
    """Convert the JSON of a notebook (format 3 or 4). Return None if the text is not a notebook with code."""
    try:
        data = json.loads(text)
        cells = data["cells"] if "cells" in data else [cell for sheet in data["worksheets"] for cell in sheet["cells"]]
        language = _language(data.get("metadata") or {})
        blocks = [block for cell in cells if (block := _cell(cell)) and block[1].strip()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not any(kind == "code" for kind, _, _ in blocks):
        return None
    marker = line_comment(language) or "#"
    script, structured = [], []
    for kind, source, output in blocks:
        if kind == "code":
            source = _PICTURE.sub("data:,", source)
            # Only the kernel of Python has magics. In other languages, `%` and `!` are operators.
            plain = plain_python(source) if language == "python" else source
            script.append(f"{marker} %%\n{plain}")
            structured.append(code_block(source, language))
            if output:
                structured.append(code_block(output, "output"))
        else:
            source = _PICTURE.sub("data:,", source)
            commented = "\n".join(f"{marker} {line}".rstrip() for line in _wrapped(source))
            script.append(f"{marker} %% [markdown]\n{commented}")
            structured.append(source)
    return Notebook(language, _clean("\n\n".join(script)), _clean("\n\n".join(structured)))


def _wrapped(text: str) -> list[str]:
    """Break a text into lines of at most `WIDTH` characters. Longer words are not broken."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return lines


def _language(metadata: dict[str, Any]) -> str:
    name = (
        (metadata.get("language_info") or {}).get("name")
        or (metadata.get("kernelspec") or {}).get("language")
        or "python"
    )
    name = str(name).lower().split("-")[0]
    name = {"ipython": "python", "ir": "r", "c++17": "c++", "bash": "shell"}.get(name, name)
    return name if name in LANGUAGES else "python"


def _cell(cell: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return (kind, source, output) of a cell of the kind `code` or `text`, or None for any other cell."""
    kind = cell.get("cell_type")
    source = _joined(cell.get("source", cell.get("input", "")))
    if kind == "code":
        return "code", source.rstrip("\n"), _outputs(cell.get("outputs") or [])
    return ("text", source.rstrip("\n"), "") if kind in {"markdown", "heading", "raw"} else None


def _joined(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def _outputs(outputs: list[dict[str, Any]]) -> str:
    """Return the text output and the errors of a cell. Pictures and HTML are left out."""
    parts = []
    for output in outputs:
        if output.get("output_type") in {"error", "pyerr"}:
            parts.append(f"{output.get('ename', '')}: {output.get('evalue', '')}\n")
            continue
        data = output.get("data") or output
        parts.append(_joined(data.get("text/plain") or data.get("text") or ""))
    text = _ANSI.sub("", "".join(part if part.endswith("\n") or not part else f"{part}\n" for part in parts)).rstrip(
        "\n"
    )
    text = _ENCODED.sub("...", _PICTURE.sub("data:,", text))
    return text if len(text) <= MAX_OUTPUT else f"{text[:MAX_OUTPUT]}\n..."


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON can contain but UTF-8 cannot, and add a line break at the end of the text."""
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"

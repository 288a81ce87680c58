"""From what a chat model says to the code that it means.

Answers come as one fenced block, as several, as bare code, as prose around code, indented, cut off by the token limit,
or without the imports that the code uses. `extract_code` takes the answer as a whole and returns one program.
"""

from __future__ import annotations

import ast
import re
import textwrap

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`~]*)[^\n`]*$", re.MULTILINE)
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
_TYPING = [
    "Any",
    "Callable",
    "Counter",
    "DefaultDict",
    "Deque",
    "Dict",
    "FrozenSet",
    "Generator",
    "Iterable",
    "Iterator",
    "List",
    "Mapping",
    "NamedTuple",
    "Optional",
    "Sequence",
    "Set",
    "Tuple",
    "Type",
    "TypeVar",
    "Union",
]
_MODULES = [
    "bisect",
    "collections",
    "copy",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "sys",
    "time",
    "datetime",
]
_FROM = {
    "defaultdict": "collections", "deque": "collections", "OrderedDict": "collections", "Counter": "collections",
    "lru_cache": "functools", "cache": "functools", "reduce": "functools", "cmp_to_key": "functools",
    "heappush": "heapq", "heappop": "heapq", "heapify": "heapq",
    "bisect_left": "bisect", "bisect_right": "bisect", "insort": "bisect",
    "permutations": "itertools", "combinations": "itertools", "product": "itertools", "accumulate": "itertools",
    "groupby": "itertools", "zip_longest": "itertools", "chain": "itertools",
    "sqrt": "math", "gcd": "math", "ceil": "math", "floor": "math", "deepcopy": "copy", "dataclass": "dataclasses",
    "Fraction": "fractions", "Decimal": "decimal", "ascii_lowercase": "string", "ascii_uppercase": "string",
}  # fmt: skip


def extract_code(answer: str, *, language: str = "python", entry_point: str | None = None) -> str:
    """The program in `answer`.

    Of several fenced blocks those in the right language count; for Python all that parse together are joined when the
    entry point needs it, else the block that defines the entry point is taken. An unclosed fence ends with the answer.
    Without a fence, the answer itself is the code; for Python, prose before and after it goes. Python code loses its
    common indentation and a broken last statement, and gets the standard imports that it forgot.
    """
    blocks = _blocks(answer, language)
    if language != "python":
        return _choose(blocks, entry_point) if blocks else answer.strip("\n")
    if blocks:
        candidates = [_dedent(block) for block in blocks]
        code = _python_from_blocks(candidates, entry_point)
    else:
        code = _python_from_prose(answer)
    return add_imports(code)


def fenced_blocks(answer: str) -> list[tuple[str, str]]:
    """All fenced blocks as (tag, content), in order; the last one may be open. Indented fences lose their indent."""
    blocks: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(answer):
        if opening is None:
            opening = match
        elif match["marks"][0] == opening["marks"][0] and len(match["marks"]) >= len(opening["marks"]):
            if match["tag"]:  # a new block opens where the last one was never closed
                blocks.append((opening["tag"].lower(), _inside(answer, opening, match.start())))
                opening = match
                continue
            blocks.append((opening["tag"].lower(), _inside(answer, opening, match.start())))
            opening = None
    if opening is not None:
        rest = _inside(answer, opening, len(answer))
        if opening["tag"] or not blocks:
            blocks.append((opening["tag"].lower(), rest))
    return [(tag, content) for tag, content in blocks if content.strip()]


def _inside(answer: str, opening: re.Match[str], end: int) -> str:
    content = answer[opening.end() + 1 : end]
    indent = opening["indent"]
    if not indent:
        return content
    return "\n".join(line.removeprefix(indent) for line in content.split("\n"))


def _blocks(answer: str, language: str) -> list[str]:
    blocks = fenced_blocks(answer)
    tags = _ALIASES.get(language, (language,))
    tagged = [content for tag, content in blocks if tag in tags]
    return tagged or [content for tag, content in blocks if not tag] or [content for _, content in blocks]


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


def _python_from_blocks(blocks: list[str], entry_point: str | None) -> str:
    trimmed = [longest_valid(block) or block for block in blocks]
    if entry_point is None:
        return max(trimmed, key=len)
    defining = [index for index, block in enumerate(trimmed) if entry_point in defined_names(block)]
    if not defining:
        return _choose(trimmed, entry_point)
    main = trimmed[defining[-1]] if len(defining) == 1 else trimmed[defining[0]]
    wanted = _used_names(main) - defined_names(main)
    helpers = [block for block in trimmed if block is not main and defined_names(block) & wanted]
    return "\n\n".join([*(_without_scripts(block) for block in helpers), main])


def _python_from_prose(answer: str) -> str:
    """Bare code: the longest run of lines that parses, from a line where code can begin."""
    text = answer.strip("\n")
    if _parses(_dedent(text)):
        return _dedent(text)
    lines = text.split("\n")
    starts = [
        index
        for index, line in enumerate(lines)
        if re.match(r"\s*(?:def |class |import |from \w[\w.]* import |@|async def |[A-Za-z_]\w*\s*=[^=])", line)
    ]
    best = ""
    for start in starts[: min(20, max(1, PARSED // (16 * len(text) + 1)))]:
        code = longest_valid(_dedent("\n".join(lines[start:])), PARSED // 16)
        if len(code) > len(best):
            best = code
    return best or _dedent(text)


PARSED = 1_000_000
"""Characters of one answer that are parsed in search of its code: an answer that repeats itself must not stall a run."""


def longest_valid(code: str, budget: int = PARSED) -> str:
    """`code` up to the last line with which it still parses; empty when no line does, or none within the budget."""
    code = code.rstrip()
    if _parses(code):
        return code
    lines = code.split("\n")
    low = 0
    # Every cut is tried from the end, but a syntax error names a line past which no cut can help.
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
    """As much of a left-to-right completion as parses behind its prefix; all of it where nothing does."""
    if _parses(prefix + completion):
        return completion
    lines = completion.split("\n")
    for end in range(len(lines) - 1, 0, -1):
        candidate = "\n".join(lines[:end])
        if _parses(prefix + candidate):
            return candidate + "\n"
    return completion


def add_imports(code: str) -> str:
    """Put imports of the standard library before code that uses their names and forgot them."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    bound = _bound_names(tree)
    free = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - bound
    lines = [f"import {name}" for name in _MODULES if name in free]
    if "np" in free:
        lines.append("import numpy as np")
    if "pd" in free:
        lines.append("import pandas as pd")
    typing = [name for name in _TYPING if name in free and name not in _FROM]
    if typing:
        lines.append(f"from typing import {', '.join(typing)}")
    lines += [f"from {module} import {name}" for name, module in _FROM.items() if name in free]
    if not lines:
        return code
    head = "\n".join(lines)
    future = re.match(r"(?:from __future__ import [^\n]*\n)+", code)
    if future:
        return code[: future.end()] + head + "\n" + code[future.end() :]
    return f"{head}\n\n{code}"


def defined_names(code: str) -> set[str]:
    """Names that the top level of Python code binds."""
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
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def _used_names(code: str) -> set[str]:
    try:
        return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\b[A-Za-z_]\w*\b", code))


def _bound_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _without_scripts(code: str) -> str:
    """Helper blocks give definitions only: a usage example must not run before the solution."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    kept = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
    return "\n\n".join(ast.unparse(node) for node in tree.body if isinstance(node, kept))


def _dedent(code: str) -> str:
    """Remove common indentation; also where only the first line lost its own."""
    code = textwrap.dedent(code.strip("\n"))
    if _parses(code):
        return code
    first, _, rest = code.partition("\n")
    if rest and not first[:1].isspace() and first.rstrip()[-1:] != ":":
        repaired = f"{first}\n{textwrap.dedent(rest)}"
        if _parses(repaired):
            return repaired
    return code


def _parses(code: str) -> bool:
    return _syntax_error(code) is None


def _syntax_error(code: str) -> int | None:
    """The line of the first syntax error, 0 where it has none, or None for code that parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return 0
    return None

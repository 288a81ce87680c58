"""Extract the program from a chat model's answer.

An answer may be one fenced code block, several blocks, bare code, prose around code, or inline code. The code may be
indented, quoted, a diff, an interpreter session, numbered, cut off by the token limit, or lack the imports that it
uses. `extract_code` returns one program for the whole answer.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from alignment.evaluation.answer_blocks import FencedBlock, all_blocks, cleaned
from alignment.evaluation.answer_helpers import with_helpers
from alignment.evaluation.answer_versions import Version, version_of
from alignment.evaluation.code_listing import is_diff, without_listing_marks
from alignment.evaluation.python_code import (
    PARSE_BUDGET,
    dedent,
    defined_names,
    longest_valid,
    parses,
    used_names,
)
from alignment.evaluation.python_imports import add_imports
from alignment.evaluation.python_scripts import reads_input, without_scripts

_TAGS = {
    "python": ("python", "py", "py3", "python2", "ipython", "python-repl", "pycon", "doctest"),
    "javascript": ("javascript", "js", "node", "nodejs", "jsx", "mjs", "cjs", "es", "ecmascript"),
    "typescript": ("typescript", "ts", "tsx", "mts"),
    "cpp": ("cpp", "c++", "cc", "cxx", "c", "hpp", "gnu++"),
    "csharp": ("csharp", "cs", "c#"),
    "shell": ("shell", "sh", "bash", "zsh"),
    "go": ("go", "golang"),
    "rust": ("rust", "rs"),
    "ruby": ("ruby", "rb"),
    "perl": ("perl", "pl"),
    "kotlin": ("kotlin", "kt", "kts"),
    "julia": ("julia", "jl"),
    "haskell": ("haskell", "hs"),
    "r": ("r", "rscript"),
}
"""Language -> tags that its fenced code blocks may have, without version numbers."""
_DEFINITION = re.compile(
    r"""
    ^[ \t]*(?:(?:export|default|public|private|protected|internal|static|final|abstract|sealed|async|pub(?:\([^)]*\))?|data|
        partial|inline|unsafe|template\s*<[^>]*>)\s+)*
    (?:class|struct|interface|enum|record|trait|object|module|type|def|fn|fun|func|function|sub|const|let|var|val)\s+\*?(\w+)
    | ^[ \t]*(?:[\w:<>,*&\[\]]+[ \t]+)+[*&]?(?!if|for|while|switch|catch|return|else)(\w+)[ \t]*\([^;{}]*\)[^;{}]*\{
    | ^[ \t]*(\w+)[ \t]*(?:<-|=)[ \t]*function | ^[ \t]*(\w+)[ \t]*\(\)[ \t]*\{ | ^[ \t]*\#define\s+(\w+)
    """,
    re.MULTILINE | re.VERBOSE,
)
_INLINE = re.compile(r"(?<!`)(`{1,3})(?!`)(?:(?:python|py)[ \t]+)?([^`\n]+?)\1(?!`)")


def extract_code(answer: str, *, language: str = "python", entry_point: str | None = None) -> str:
    """Return the program in an answer.

    These rules apply:

    - If there are several fenced blocks, only blocks in the right language are used.
    - For Python, the program is the block that defines the entry point, plus helpers from other blocks that the block
      needs, minus statements that would run an example.
    - If several blocks define the entry point, the first block with a body is used. A later block is used instead if
      the text before it calls it a correction. A block that the text calls wrong is not used.
    - A block without a closing fence ends at the end of the answer.
    - If no block defines the entry point, the program is the longest part of the answer that parses.
    - Python code loses common indentation and an incomplete last statement, and gets missing imports of the standard
      library.

    Args:
        answer: the answer of the model.
        language: the language of the program.
        entry_point: the function or class that the program must define.
    """
    answer = cleaned(answer)
    tiers = [] if language == "python" and _is_whole_program(answer, entry_point) else _tiers(answer, language)
    if language != "python":
        return _other_program(tiers, entry_point) if tiers else without_listing_marks(answer.strip("\n"))
    code = _python_from_tiers(tiers, entry_point)
    if not code or (entry_point and not (parses(code) and entry_point in defined_names(code))):
        bare = _python_from_prose(answer, entry_point)
        if not code or (parses(bare) and entry_point in defined_names(bare)):
            code = bare
    if entry_point and entry_point in defined_names(code):
        code = without_scripts(code, entry_point)
    elif entry_point and _is_body(code):
        return textwrap.indent(code, "    ")
    return add_imports(code)


def _is_whole_program(answer: str, entry_point: str | None) -> bool:
    """Whether the whole answer is valid code that defines the entry point, possibly with fences in strings."""
    code = dedent(answer)
    if not code.strip() or not parses(code):
        return False
    return bool(defined_names(code)) if entry_point is None else entry_point in defined_names(code)


def _language_of(tag: str) -> str:
    """Return the language in the tag of a block, without version, options and file name.

    For example `python3.11` becomes `python`, `main.py` becomes `py`, and `c++17` becomes `c++`.
    """
    tag = re.split(r"[,:;{\s]", tag)[0].removeprefix("language-").removeprefix("lang-")
    if re.search(r"\.[a-z+#]+$", tag):
        tag = tag.rsplit(".", 1)[1]
    return tag if tag in ("py3", "python2") else re.sub(r"[-_]?\d[\d.]*$", "", tag) or tag


def _tiers(answer: str, language: str) -> list[list[FencedBlock]]:
    """Return lists (tiers) of the blocks of an answer, the best list first. Empty lists are left out.

    The first list holds the blocks tagged with the language, the second holds untagged blocks and diffs, the third
    holds blocks whose tag is no other language, and the last holds all blocks.
    """
    blocks = [block for outer in all_blocks(answer) for block in _nested(outer)]
    tags = _TAGS.get(language, (language,))
    plain = [replace(block, content=without_listing_marks(block.content, block.tag)) for block in blocks]
    tagged = _selected(plain, lambda block: _language_of(block.tag) in tags)
    untagged = _selected(plain, lambda block: not block.tag or is_diff(block.content, block.tag))
    foreign = {tag for name, names in _TAGS.items() if name != language for tag in names}
    unknown = _selected(plain, lambda block: _language_of(block.tag) not in foreign | {"text", "output", "console"})
    return [tier for tier in (tagged, untagged, unknown, plain) if tier]


def _selected(blocks: Sequence[FencedBlock], condition: Callable[[FencedBlock], bool]) -> list[FencedBlock]:
    """Return the blocks for which a condition holds.

    Text before a dropped block is added to the next returned block.
    """
    selected, prose = [], ""
    for block in blocks:
        prose += block.prose_before
        if condition(block):
            selected.append(replace(block, prose_before=prose))
            prose = ""
    return selected


def _nested(block: FencedBlock) -> list[FencedBlock]:
    """Return the blocks inside a Markdown block, or the block itself if it is not Markdown."""
    if block.tag not in ("", "md", "markdown", "mdx") or not re.search(
        r"^[ \t]*(?:```|~~~)", block.content, re.MULTILINE
    ):
        return [block]
    if parses(dedent(block.content)):  # the fences lie in a string
        return [block]
    inner = all_blocks(block.content)
    return [replace(part, prose_before=block.prose_before + part.prose_before) for part in inner] or [block]


def _other_program(tiers: Sequence[list[FencedBlock]], entry_point: str | None) -> str:
    """Return the program in a language other than Python: the block that defines the entry point, and its helpers."""
    contents = [[block.content for block in tier] for tier in tiers]
    blocks = contents[0]
    if entry_point:
        blocks = next((tier for tier in contents if any(_seems_to_define(code, entry_point) for code in tier)), blocks)
    main = _choose(blocks, entry_point)
    program = set(with_helpers(main, blocks, _defined, _words, entry_point))
    return "\n".join(part for part in blocks if part in program)


def _defined(code: str) -> set[str]:
    return {name for match in _DEFINITION.finditer(code) for name in match.groups() if name}


def _words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def _choose(blocks: Sequence[str], entry_point: str | None) -> str:
    """Return the block that seems to define the entry point.

    If several blocks seem to define the entry point, return the longest of these blocks. If no block does, return the
    longest block that contains the entry point's name, or else the longest block.
    """
    if entry_point:
        naming = [block for block in blocks if re.search(rf"\b{re.escape(entry_point)}\b", block)]
        if naming:
            return max(naming, key=lambda block: (_seems_to_define(block, entry_point), len(block)))
    return max(blocks, key=len)


def _seems_to_define(block: str, entry_point: str) -> bool:
    """Whether code in any language seems to define a name instead of only calling it."""
    name = re.escape(entry_point)
    pattern = rf"(?:\b(?:def|function|func|fn|fun|sub|class)\s+{name}\b|\b{name}\s*(?:\(\)\s*\{{|=|<-))"
    return bool(re.search(pattern, block)) or entry_point in _defined(block)


@dataclass(frozen=True)
class _PythonBlock:
    """The code of a block, and its introduction: the text before the block and the comments at its beginning."""

    code: str
    introduction: str


def _python_from_tiers(tiers: Sequence[list[FencedBlock]], entry_point: str | None) -> str:
    """Return the program of the first list of blocks whose program defines the entry point.

    If there is no such list, return the program of the first list.
    """
    programs = []
    for tier in tiers:
        blocks = []
        for block in tier:
            code = dedent(block.content)
            code = longest_valid(code) or _python_from_prose(code, entry_point) or code
            comments = re.match(r"(?:\s*#[^\n]*\n){0,3}", code)
            intro = block.prose_before + re.sub(r"#", "", comments[0] if comments else "")
            blocks.append(_PythonBlock(code, intro))
        programs.append(_python_from_blocks(blocks, entry_point))
        if entry_point is None or entry_point in defined_names(programs[-1]):
            return programs[-1]
    return programs[0] if programs else ""


def _python_from_blocks(blocks: Sequence[_PythonBlock], entry_point: str | None) -> str:
    codes = [block.code for block in blocks]
    if entry_point is None:
        ranks = [_program_rank(code) for code in codes]
        candidates = [index for index, rank in enumerate(ranks) if rank == max(ranks)]
        chosen = _best_version(blocks, candidates, prefer_long=True)
    else:
        defining = [index for index, code in enumerate(codes) if entry_point in defined_names(code)]
        if not defining:
            return _choose(codes, entry_point)
        with_body = [index for index in defining if not is_stub(codes[index], entry_point)]
        chosen = _best_version(blocks, with_body or defining)
    main = codes[chosen]
    others = [code for index, code in enumerate(codes) if index != chosen and parses(code)]
    program = set(with_helpers(main, others, defined_names, used_names, entry_point))
    parts = [*(code for code in others if code in program), main]
    if entry_point is None:
        parts += [code for code in codes[chosen + 1 :] if _starts_program(code, main)]
    return "\n\n".join(parts)


def _program_rank(code: str) -> tuple[bool, bool, bool]:
    """Return the rank of a block for answers without an entry point. A larger rank is better.

    Code that parses ranks above other code. Among equals, programs that read input rank higher, then code with
    definitions.
    """
    tree = ast.parse(code) if parses(code) else None
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    has_definitions = tree is not None and any(isinstance(node, kinds) for node in tree.body)
    return tree is not None, reads_input(code), has_definitions


def _starts_program(code: str, main: str) -> bool:
    """Whether a block only starts the program, like a block with the single line `main()`.

    Such a block calls, without arguments, a function that the main block defines but does not call.
    """
    match = re.fullmatch(r"\s*(?:if __name__ == ['\"]__main__['\"]:\s*)?(\w+)\(\)\s*", code)
    return match is not None and match[1] in defined_names(main) and len(re.findall(rf"\b{match[1]}\(", main)) == 1


def _best_version(blocks: Sequence[_PythonBlock], candidates: Sequence[int], *, prefer_long: bool = False) -> int:
    """Return the index of the block to use among several versions of the same code.

    If introductions call some versions a correction, the last correction is used. Otherwise the first version that is
    not called wrong is used, or with `prefer_long` the longest version that is not called wrong.
    """
    versions = {}
    previous = -1
    for index in candidates:
        text = "\n".join(block.introduction for block in blocks[previous + 1 : index + 1])
        versions[index], previous = version_of(text), index
    usable = [index for index in candidates if versions[index] is not Version.WRONG] or list(candidates)
    chosen = max(usable, key=lambda index: len(blocks[index].code)) if prefer_long else usable[0]
    corrections = [index for index in usable if index > usable[0] and versions[index] is Version.CORRECTION]
    return corrections[-1] if corrections else chosen


def is_stub(code: str, entry_point: str) -> bool:
    """Whether the body of a function is only a docstring and `pass`, `...` or `raise`."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    stub = False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry_point:
            statements = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
            stub = all(isinstance(part, ast.Pass | ast.Raise) for part in statements)
    return stub


def _is_body(code: str) -> bool:
    """Whether code is the body of a function: it has a `return` or `yield` outside of any function."""
    if not code.strip() or not parses(code):
        return False
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return False


def _python_from_prose(answer: str, entry_point: str | None = None) -> str:
    """Return the code in prose without fences: the longest run of lines that parses.

    Runs that define the entry point are preferred. A run begins at a line that looks like the beginning of code. If no
    run defines the entry point, inline code that defines it is returned.
    """
    text = dedent(without_listing_marks(answer.strip("\n")))
    if parses(text):
        return text
    lines = answer.strip("\n").split("\n")
    starts = [
        index
        for index, line in enumerate(lines)
        if re.match(
            r"\s*(?:def |class |import |from \w[\w.]* import |@|async def |[A-Za-z_]\w*\s*=[^=]|\s(?:return|if|for|while) )",
            line,
        )
    ]
    best, best_rank = "", (False, 0)
    for start in starts[: min(40, max(1, PARSE_BUDGET // (16 * len(text) + 1)))]:
        code = longest_valid(dedent("\n".join(_run(lines[start:]))), PARSE_BUDGET // 16)
        rank = (entry_point is not None and entry_point in defined_names(code), len(code))
        if rank > best_rank:
            best, best_rank = code, rank
    if not best_rank[0]:
        inline = [match[2].strip() for match in _INLINE.finditer(answer[:50_000])]
        defining = [code for code in inline if parses(code) and re.match(r"(?:async )?def |class |\w+ = lambda", code)]
        if entry_point is not None:
            defining = [code for code in defining if entry_point in defined_names(code)]
        if defining and (entry_point is not None or not best):
            return max(defining, key=len)
    return best or (text if entry_point is None else "")


def _run(lines: Sequence[str]) -> Sequence[str]:
    """Return all lines up to the first line that is indented less than line 1."""
    indent = len(lines[0]) - len(lines[0].lstrip())
    for index, line in enumerate(lines):
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            return lines[:index]
    return lines

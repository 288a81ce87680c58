"""Find the code blocks of an answer that the main block needs: imports, and definitions of the names that are used."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence

_IMPORT = re.compile(
    r"\s*(?:import\b|from\b.*\bimport\b|#include\b|using\b|use\b|require\b|package\b|const\s.*\brequire\(|library\()"
)


def _only_imports(code: str) -> bool:
    """Whether code consists of imports and comments only."""
    lines = [
        line
        for line in code.split("\n")
        if line.strip() and not re.match(r"\s*(?:#\s|//|/\*|\*|\)|\(|\"[\w/.]+\")", line)
    ]
    return bool(lines) and all(_IMPORT.match(line) for line in lines)


def with_helpers(
    main: str,
    blocks: Sequence[str],
    defined: Callable[[str], set[str]],
    used: Callable[[str], set[str]],
    entry_point: str | None,
) -> list[str]:
    """Return the main block and the blocks that belong to it.

    These are blocks that consist of imports, or that define a name which the main block or another helper uses. Each
    block is examined once, so that an answer of thousands of blocks takes time that grows with its length.
    """
    codes = [
        code
        for code in dict.fromkeys(blocks)
        if code != main and (entry_point is None or entry_point not in defined(code))
    ]
    indices_of: dict[str, list[int]] = {}
    for index, code in enumerate(codes):
        for name in defined(code):
            indices_of.setdefault(name, []).append(index)
    imports = {index for index, code in enumerate(codes) if _only_imports(code)}
    candidates = sorted(imports)  # a heap: the first block of the answer is tried first
    program: dict[str, None] = {}
    known: set[str] = set()
    wanted: set[str] = set()

    def add(code: str) -> None:
        program[code] = None
        known.update(defined(code))
        for name in used(code) - wanted:
            wanted.add(name)
            for index in indices_of.get(name, ()):
                heapq.heappush(candidates, index)

    add(main)
    while candidates:
        index = heapq.heappop(candidates)
        code = codes[index]
        if code not in program and (index in imports or defined(code) & wanted - known):
            add(code)
    return list(program)

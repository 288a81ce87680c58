"""Benchmark `editor`: completions at several cursor positions of each held-out function, as an editor asks for them.

Rows are those of `fim`. The cursor stands in the row's `middle`, which the developer is about to write: at its start,
inside a line, at the start of a later line, and inside a later line. The model sees everything before the cursor and
the row's `suffix`; the expected text is the rest of the middle.
"""

from __future__ import annotations

import re

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.user_rows import base_only, rows_of
from alignment.evaluation.body_end import cut_at_body_end
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem
from alignment.evaluation.statistics.text_scores import cursor_scores
from alignment.models import formats

_SHORTEST_LINE = 8
"""Smallest number of characters of a line in which a cursor is placed. In shorter lines nothing is left to guess."""


def editor(request: BenchmarkRequest) -> Benchmark:
    """Load the rows and place the cursors.

    Results are averaged over the positions of a row, which count as one task.
    """
    base_only(request)
    problems: list[Problem] = []
    for row in rows_of(request):
        middle, language = row["middle"], row.get("language") or "python"
        offsets = cursor_offsets(middle)
        for part, offset in enumerate(offsets):
            prefix = row["prefix"] + middle[:offset]
            problems.append(
                Problem(
                    id=f"{row['id']}@{offset}",
                    prompt=FimPrompt(prefix, row["suffix"]),
                    reference=middle[offset:],
                    row={**row, "prefix": prefix, "language": language},
                    cluster=str(row["id"]),
                    part=part,
                )
            )
    return Benchmark(
        name="editor",
        problems=problems,
        max_new_tokens=128,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=_as_editors_cut,
        score=cursor_scores,
        stop_rate=True,
    )


def _as_editors_cut(problem: Problem, completion: str) -> str:
    """Cut a completion where the function body ends."""
    return cut_at_body_end(problem.row["prefix"], completion, problem.row["language"])


def cursor_offsets(middle: str) -> list[int]:
    """Return up to four cursor positions in a middle, in ascending order.

    The positions are the start, the first word after a third of the first line, the first character of the line at half
    of the lines, and the first word after a third of the line at three quarters of the lines. Lines with fewer than
    `_SHORTEST_LINE` characters are skipped.
    """
    starts = [match.start() for match in re.finditer(r"^", middle, re.MULTILINE)]
    lines = list(zip(starts, middle.split("\n"), strict=False))
    usable = [(start, line) for start, line in lines if len(line.strip()) >= _SHORTEST_LINE]
    offsets = {0}
    if usable:
        offsets.add(_inside(*usable[0]))
    if len(usable) > 2:
        start, line = usable[len(usable) // 2]
        offsets |= {start + len(line) - len(line.lstrip()), _inside(*usable[len(usable) * 3 // 4])}
    return sorted(offsets)


def _inside(start: int, line: str) -> int:
    """Return the offset of the first word after a third of a line's characters. `start` is the offset of the line."""
    indent = len(line) - len(line.lstrip())
    third = indent + len(line.strip()) // 3
    word = re.compile(r"(?<!\w)\w").search(line, third + 1)
    return start + (word.start() if word else third)

"""Split a task's tests into visible tests, which an environment shows, and hidden tests, which decide the reward."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from alignment.grading.task import REPOSITORY_KINDS

T = TypeVar("T")


def split_tests(row: Mapping[str, Any], share: float) -> tuple[str, str]:
    """Return the visible and the hidden tests of a task as JSON strings.

    If a row has a column `visible_tests`, this column has the visible tests, and all of `tests` is hidden. Otherwise
    `tests` is split, and the first tests are visible: `share` of the cases (kinds `calls` and `stdio`), or of the
    assertions and test functions (`asserts`), at least one and not all. For the kinds of repositories
    (`REPOSITORY_KINDS`), `tests` lists visible and hidden tests. For the kind `repository`, the verdict is that of
    visible and hidden tests.

    Args:
        row: a task.
        share: share of the tests that are visible.

    Raises:
        ValueError: the tests can't be split.
    """
    if row.get("visible_tests") is not None:
        return row["visible_tests"], row["tests"]
    kind, tests = row.get("kind"), json.loads(row["tests"])
    if kind in ("calls", "stdio"):
        parts = [{**tests, "cases": cases} for cases in _halves(tests["cases"], share)]
    elif kind == "asserts":
        parts = [{**tests, "code": code} for code in _split_code(tests["code"], share)]
    elif kind in REPOSITORY_KINDS and tests.get("visible") and tests.get("hidden"):
        parts = [{**tests, "hidden": []}, {**tests, "visible": []}]
    elif kind == "repository" and tests.get("hidden"):
        withheld = [*tests.get("withheld", ()), *tests["hidden"]]
        parts = [{**tests, "hidden": [], "withheld": withheld}, tests]
    else:
        raise ValueError(f"tests of kind {kind!r} can't be split: give the visible ones in a column `visible_tests`")
    visible, hidden = (json.dumps(part, ensure_ascii=False) for part in parts)
    return visible, hidden


def _halves(items: Sequence[T], share: float) -> tuple[Sequence[T], Sequence[T]]:
    if len(items) < 2:
        raise ValueError(
            "one test can't be both visible and hidden: give more, or visible ones in a column `visible_tests`"
        )
    count = min(max(round(share * len(items)), 1), len(items) - 1)
    return items[:count], items[count:]


def _split_code(code: str, share: float) -> tuple[str, str]:
    """Split the top-level assertions and test functions of a program. All other code is in both parts."""
    try:
        body = ast.parse(code).body
    except SyntaxError as error:
        raise ValueError(f"the assertions are no valid Python: {error}") from None
    tests = [node for node in body if isinstance(node, ast.Assert) or getattr(node, "name", "").startswith("test")]
    visible, hidden = _halves(tests, share)
    without = [[node for node in body if node not in left_out] for left_out in (hidden, visible)]
    first, second = ("\n".join(ast.unparse(node) for node in nodes) + "\n" for nodes in without)
    return first, second

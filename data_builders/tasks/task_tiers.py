"""Tiers of tasks: which forgeable tasks are written, and what the report says about those that are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABOVE_SHARE = "above_forgeable_share"
"""Reason of forgeable tasks that are left out because of `TaskSettings.forgeable_share`."""
APART_REASONS = {
    "not_tried": "the function is a coroutine, a method or generator in JavaScript, or Go code that reaches the process",
    "compares_objects": "tests compare or convert objects that only the program has",
    "passes_objects": "tests pass objects that cannot be copied",
    "fails_apart": "tests need more of the program's process than calls, for example a changed module",
    "unstable_apart": "results differ between runs in two processes",
    "weak_apart": "the tests that work in two processes accept wrong bodies",
}
"""Reasons why a task is of tier B, as keys in `account.json`, and as texts."""


def apart_reason(reason: str, detail: str) -> str:
    """Return the key of `APART_REASONS` for a failure of the original body in two processes.

    Args:
        reason: the value of `Candidate.dropped` after the attempt in two processes.
        detail: the detail of the failed verdict.
    """
    if reason == "unstable":
        return "unstable_apart"
    if reason == "weak_tests":
        return "weak_apart"
    if "cannot be passed to the program" in detail:
        return "passes_objects"
    return "compares_objects" if "not plain data" in detail else "fails_apart"


def cap_forgeable(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Drop forgeable rows (whose tests run in the graded program's process) until they are at most `share` of all rows.

    The forgeable rows with the best mutation scores are kept.
    """
    safe = [row for row in rows if not row["forgeable"]]
    forgeable = [row for row in rows if row["forgeable"]]
    limit = len(forgeable) if share >= 1 else int(share * len(safe) / (1 - share))
    best = {row["id"] for row in sorted(forgeable, key=lambda row: (-row["mutation_score"], row["id"]))[:limit]}
    return [row for row in rows if not row["forgeable"] or row["id"] in best]


def tier_lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say for each repository how many tasks are of which tier, how many are left out, and which setting takes them.

    Args:
        report: the reports of a build by repository and language, as in `account.json`.
    """
    lines = []
    for name, counts in report.items():
        valid, forgeable = counts["valid"], counts["tier_b"]
        if not valid:
            continue
        dropped = counts["left_out"].get(ABOVE_SHARE, 0)
        text = f"{name}: {counts['rows']} of {valid} valid tasks are written; {counts['tier_a']} are of tier A, {forgeable} of tier B"
        if dropped:
            share = forgeable / valid
            text += (
                f". Left out: {dropped} of tier B ({dropped / valid:.0%} of the valid tasks). `settings.forgeable_share: 1` takes"
                f" them; then a program can forge its result on {share:.0%} of the tasks, and rewards refuse these tasks unless"
                " a stage sets `forgeable: allow`"
            )
        if forgeable:
            text += f". Why tier B: {_reasons(counts['tier_b_reasons'])}"
        lines.append(text)
    return lines


def _reasons(counts: Mapping[str, int]) -> str:
    ordered: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{APART_REASONS.get(key, key)} ({count})" for key, count in ordered)

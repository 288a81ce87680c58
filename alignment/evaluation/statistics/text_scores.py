"""Scores by text alone: exact match and edit similarity of what was filled in."""

from __future__ import annotations

from alignment.evaluation.problem import Problem
from alignment.evaluation.statistics.intervals import edit_similarity


def infilling_scores(problem: Problem, completion: str) -> dict[str, float]:
    """Against the true middle; white space around both and at line ends counts for nothing."""
    assert problem.reference is not None
    found, expected = _normal(completion), _normal(problem.reference)
    return {"exact_match": float(found == expected), "edit_similarity": edit_similarity(found, expected)}


def _normal(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())

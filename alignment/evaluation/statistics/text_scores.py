"""Scores that compare an answer with a reference text: exact match and two edit similarities."""

from __future__ import annotations

import difflib

from rapidfuzz.distance import Levenshtein

from alignment.evaluation.problem import Problem


def edit_similarity(first: str, second: str) -> float:
    """1 - d / max(len(first), len(second)), with d the Levenshtein distance in characters; 1 for two empty strings."""
    return Levenshtein.normalized_similarity(first, second)


def fuzz_ratio(first: str, second: str) -> float:
    """`ratio` of the package fuzzywuzzy without its optional C library, which reports whole percents; from 0 to 1.

    That is 2 m / (len(first) + len(second)) with m the characters in matching blocks of `difflib.SequenceMatcher`
    (Ratcliff and Obershelp, 1988). `rapidfuzz.fuzz.ratio` uses the longest common subsequence instead and gives other
    figures.
    """
    if not first and not second:
        return 1.0
    matcher = difflib.SequenceMatcher(None, first, second)
    return round(100 * matcher.ratio()) / 100


def infilling_scores(problem: Problem, completion: str) -> dict[str, float]:
    """Exact match and edit similarity of a filled-in middle; white space around it and at line ends is ignored."""
    assert problem.reference is not None
    answer, expected = _without_outer_space(completion), _without_outer_space(problem.reference)
    return {"exact_match": float(answer == expected), "edit_similarity": edit_similarity(answer, expected)}


def _without_outer_space(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())

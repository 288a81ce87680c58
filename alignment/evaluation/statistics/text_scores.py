"""Compare an answer with a reference text: exact match and two edit similarities."""

from __future__ import annotations

import difflib

from rapidfuzz.distance import Levenshtein

from alignment.evaluation.problem import Problem


def edit_similarity(first: str, second: str) -> float:
    """Compute 1 - d / max(len(first), len(second)), where d is the Levenshtein distance. 1 for two empty strings."""
    return Levenshtein.normalized_similarity(first, second)


def fuzz_ratio(first: str, second: str) -> float:
    """Compute fuzzywuzzy's `ratio` (without the optional C library): whole percents, divided by 100.

    The ratio is 2 m / (len(first) + len(second)), where m is the number of characters in the matching blocks of
    `difflib.SequenceMatcher` (Ratcliff and Obershelp, 1988). `rapidfuzz.fuzz.ratio` uses the longest common subsequence
    instead and returns different values.
    """
    if not first and not second:
        return 1.0
    matcher = difflib.SequenceMatcher(None, first, second)
    return round(100 * matcher.ratio()) / 100


def infilling_scores(problem: Problem, completion: str) -> dict[str, float]:
    """Return exact match and edit similarity of a filled-in middle, ignoring outer white space and line ends."""
    assert problem.reference is not None
    answer, expected = _without_outer_space(completion), _without_outer_space(problem.reference)
    return {"exact_match": float(answer == expected), "edit_similarity": edit_similarity(answer, expected)}


def editor_scores(problem: Problem, completion: str) -> dict[str, float]:
    """Return `infilling_scores` of a filled-in middle, and two scores that ignore text after the expected end of the
    middle.

    `content_similarity` is the edit similarity of the reference and equally many non-blank lines from the start of the
    completion, so it does not fall if the completion goes on too long. `first_line_match` compares the first non-blank
    line.
    """
    scores = infilling_scores(problem, completion)
    answer, expected = (_lines(text) for text in (completion, problem.reference or ""))
    scores["content_similarity"] = edit_similarity("\n".join(answer[: len(expected)]), "\n".join(expected))
    scores["first_line_match"] = float(answer[:1] == expected[:1])
    return scores


def cursor_scores(problem: Problem, completion: str) -> dict[str, float]:
    """Return scores of a completion at a cursor that may stand inside a line.

    `first_line_match` compares the rest of the cursor's line. `accepted_characters` is the share of the expected
    characters that a developer could accept line by line: the lines at the beginning that equal the expected lines,
    without white space at their ends. `edit_similarity` and `content_similarity` are those of `editor_scores`.
    """
    expected, answer = (text.split("\n") for text in (problem.reference or "", completion))
    accepted = 0
    for wanted, line in zip(expected, answer, strict=False):
        if wanted.rstrip() != line.rstrip():
            break
        accepted += len(wanted.strip())
    total = sum(len(line.strip()) for line in expected)
    scores = editor_scores(problem, completion)
    return {
        "first_line_match": float(expected[0].rstrip() == answer[0].rstrip()),
        "accepted_characters": accepted / total if total else 0.0,
        "edit_similarity": scores["edit_similarity"],
        "content_similarity": scores["content_similarity"],
    }


def _lines(text: str) -> list[str]:
    """Return the non-blank lines of a text, without white space at both ends of the text and at line ends."""
    return [line.rstrip() for line in text.strip().splitlines() if line.strip()]


def _without_outer_space(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())

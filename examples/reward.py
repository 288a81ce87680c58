"""A reward of your own for GRPO: Python functions that are documented and have type annotations.

Name it in a stage of kind `grpo`; the path is relative to the recipe:

    rewards:
      - name: tests_passed
      - path: ../examples/reward.py:style
        weight: 0.2
        isolated: true

The sum is `tests_passed + 0.2 * style`. With `isolated: true` the function runs in a process of its own: parsing a
program that is nested very deeply can end the process. The file's content is part of the stage's fingerprint: after an
edit the stage is trained anew. `docs/rewards.md` says what a reward gets and what it must return.
"""

from __future__ import annotations

import ast
from typing import Any

from alignment.evaluation.extraction import extract_code


def style(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    """Score the share of functions with a docstring and the share of annotated parameters, half each, 0 to 1.

    Args:
        prompts: the text of the question, one per completion. Not needed here.
        completions: the answers as the model wrote them, with Markdown around the code.
        columns: the other columns of the batch, one value per completion each.

    Returns:
        One score per completion: None if the task is in another language, 0 if the program has no function or does not
        parse.
    """
    scores: list[float | None] = []
    for completion, language in zip(completions, columns["language"], strict=True):
        if language == "python":
            scores.append(_style(extract_code(completion)))
        else:
            scores.append(None)  # None, not 0: this reward says nothing about other languages
    return scores


def _style(program: str) -> float:
    # An exception would end the training: catch what a completion can cause.
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not functions:
        return 0.0
    parameters = [parameter for function in functions for parameter in function.args.args]
    documented = sum(ast.get_docstring(function) is not None for function in functions) / len(functions)
    annotated = (
        sum(parameter.annotation is not None for parameter in parameters) / len(parameters) if parameters else 1.0
    )
    return 0.5 * documented + 0.5 * annotated

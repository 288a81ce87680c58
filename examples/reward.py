"""Example of your own reward for GRPO: it scores whether Python functions have docstrings and type annotations.

To use the reward, name it in a stage of kind `grpo`. The path is relative to the recipe:

    rewards:
      - name: tests_passed
      - path: ../examples/reward.py:style
        weight: 0.2
        isolated: true

The total reward is `tests_passed + 0.2 * style`. With `isolated: true` the function runs in a separate process, since
parsing a program that is nested very deeply can crash the process. The content of this file is part of the stage's
fingerprint: after an edit the stage runs again. `docs/rewards.md` documents the arguments and the return value of a
reward.
"""

from __future__ import annotations

import ast
from typing import Any

from alignment.evaluation.extraction import extract_code


def style(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    """Score completions from 0 to 1: the mean of the share of functions with a docstring and of annotated parameters.

    Args:
        prompts: the question of each completion. Not used here.
        completions: the model's answers, with Markdown around the code.
        columns: the other columns of the batch. Each has one value per completion.

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
    # An exception would end the training: catch all errors that a completion can cause.
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

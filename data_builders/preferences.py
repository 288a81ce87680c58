"""Builder `preferences`: sample answers from a model, grade the answers, and pair better answers with worse answers.

Answers to tasks are executed: a passing answer is paired with a failing answer. Answers to questions can't be
executed, so a judge model scores them: the best answer is paired with the worst answer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from alignment.evaluation.answer_forms import TEXT_FORMS, form_of, reference_answer
from alignment.grading import open_grader
from alignment.grading.task import tier_of
from alignment.rows import reading as row_files
from alignment.settings import Positive, Reference, Share
from data_builders.builder import BuildContext
from data_builders.models.judge import scores
from data_builders.models.sampled_answers import (
    GradedAnswers,
    SampledAnswer,
    SamplingSettings,
    grade_answers,
    sample_answers,
)
from data_builders.models.writers import TextModel, open_model


class PreferencesSettings(SamplingSettings):
    """Settings of the builder `preferences`."""

    tasks: Reference | None = None
    """Executable tasks. Never use held-out tasks here."""
    questions: Reference | None = None
    """Conversations whose first user messages are questions. Answers can't be executed, so a `judge` scores them."""
    judge: TextModel | None = None
    """The model that scores answers to `questions` by a checklist."""
    min_gap: Share = 0.2
    """Minimum difference between the scores (0 to 1) of the two answers in a judged pair."""
    references: bool = False
    """If no sampled answer to a task passes, use the task's reference answer as the chosen answer."""
    forgeable: Literal["refuse", "allow"] = "refuse"
    """Whether to use tasks whose tests run in the process of the graded program. A program can forge the verdict on these
    tasks, and a forged answer would be the chosen one. `refuse` drops and counts the tasks."""
    pairs_per_prompt: Positive = 2
    """Maximum number of pairs per prompt, so that no prompt has too much weight."""
    limit: Positive | None = None
    """Use only this many tasks, and this many questions, from the start of each file."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.tasks is None and self.questions is None:
            raise ValueError("tasks is missing: give `tasks`, or give `questions` and a `judge`")
        if (self.questions is None) != (self.judge is None):
            raise ValueError("`questions` and `judge` belong together: give both, or neither")
        if self.references and self.tasks is None:
            raise ValueError("`references` needs `tasks`, which is not given: give `tasks`, or remove `references`")
        return self


def build_preferences(settings: PreferencesSettings, context: BuildContext) -> dict[str, Any]:
    """Write pairs of a better and a worse answer, sampled from a model and graded by execution or by a judge.

    Raises:
        ValueError: no pair was found, or no answer could be graded.
    """
    tasks = list(row_files.read(settings.tasks.path(), settings.limit)) if settings.tasks is not None else []
    for number, task in enumerate(tasks, 1):
        if (form := form_of(task, f"{settings.tasks}, row {number}")) in TEXT_FORMS:
            raise ValueError(
                f"{settings.tasks}, row {number}: `answer: {form}` has no chat, but pairs are conversations: build the tasks "
                "with `answer: function` or `answer: body`"
            )
    counts: dict[str, int] = {}
    if settings.forgeable == "refuse":
        safe = [task for task in tasks if tier_of(task) == "A"]
        if len(safe) < len(tasks):
            counts["dropped_forgeable"] = len(tasks) - len(safe)
        tasks = safe
    questions: list[dict[str, Any]] = []
    if settings.questions is not None:
        rows = row_files.read(settings.questions.path(), settings.limit)
        questions = [_question(row, index) for index, row in enumerate(rows)]
    if counts and not tasks and not questions:
        raise ValueError(f"no task is left to sample answers for ({counts}): {_FORGEABLE_ADVICE}")
    if tasks:
        with open_grader(context.sandbox) as grader:
            grader.check()
    answers = sample_answers(settings, context, [*tasks, *questions])
    pairs: list[dict[str, Any]] = []
    if tasks:
        graded, verdicts = grade_answers(context, tasks, answers[: len(tasks)])
        counts |= verdicts
        pairs += _executed_pairs(settings, tasks, graded, random.Random(context.seed), counts)
    if settings.judge is not None:
        pairs += _judged_pairs(settings.judge, settings.min_gap, questions, answers[len(tasks) :], context.seed, counts)
    with (context.out / "preferences.jsonl").open("w", encoding="utf-8") as file:
        for preference in pairs:
            file.write(json.dumps(preference, ensure_ascii=False) + "\n")
    if not pairs:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"no pair of a better and a worse answer was found ({shown}): {_advice(settings.references)}")
    return {"tasks": len(tasks), **counts, "pairs": len(pairs)}


_FORGEABLE_ADVICE = (
    "a program can forge the verdict on every task, because the tests run in its process; `forgeable: allow` uses the tasks "
    "nevertheless"
)


def _advice(references: bool) -> str:
    if references:
        return "sample more answers (`n`), or longer ones (`max_new_tokens`)"
    return "train longer before this stage, sample more answers (`n`), or set `references` to use reference answers"


def _question(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return the first user message of a conversation as a row with `id` and `prompt`."""
    messages = row.get("messages") or []
    prompt = next((message["content"] for message in messages if message.get("role") == "user"), None)
    if prompt is None:
        raise ValueError(f"questions, row {index + 1}: needs a conversation with a user message")
    return {"id": f"{row.get('source', 'question')}:{index}", "prompt": prompt}


def _pair(prompt: str, chosen: str, rejected: str, source: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "source": source,
    }


def _executed_pairs(
    settings: PreferencesSettings,
    tasks: Sequence[dict[str, Any]],
    graded: Sequence[GradedAnswers],
    generator: random.Random,
    counts: dict[str, int],
) -> list[dict[str, Any]]:
    """Pair passing and failing answers of each task.

    The number of pairs whose chosen answer is the task's reference answer is added to `counts`.
    """
    pairs = []
    for task, answers in zip(tasks, graded, strict=True):
        passing, source = answers.passing, "execution"
        if settings.references and not passing and reference_answer(task):
            passing, source = [reference_answer(task)], "reference"
        chosen_pairs = list(choose_pairs(passing, answers.failing, settings.pairs_per_prompt, generator))
        if source == "reference":
            counts["pairs_with_reference"] = counts.get("pairs_with_reference", 0) + len(chosen_pairs)
        pairs += [
            _pair(task["prompt"], chosen, rejected, f"{source}:{task['id']}") for chosen, rejected in chosen_pairs
        ]
    return pairs


def _judged_pairs(
    judge: TextModel,
    min_gap: float,
    questions: Sequence[dict[str, Any]],
    answers: Sequence[Sequence[SampledAnswer]],
    seed: int,
    counts: dict[str, int],
) -> list[dict[str, Any]]:
    """Pair the best answer to each question with the worst answer, if their scores differ by at least `min_gap`."""
    texts = [sorted({answer.text for answer in samples if answer.ended and answer.text.strip()}) for samples in answers]
    judged = [(question["prompt"], text) for question, own in zip(questions, texts, strict=True) for text in own]
    all_scores = iter(scores(open_model(judge), judged, seed))
    pairs = []
    for question, own in zip(questions, texts, strict=True):
        ranked = sorted((score, text) for text in own if (score := next(all_scores)) is not None)
        if len(ranked) > 1 and ranked[-1][0] - ranked[0][0] >= min_gap:
            pairs.append(_pair(question["prompt"], ranked[-1][1], ranked[0][1], f"judge:{question['id']}"))
    counts["questions"], counts["judged_answers"], counts["judged_pairs"] = len(questions), len(judged), len(pairs)
    return pairs


def choose_pairs(
    passing: Sequence[str], failing: Sequence[str], most: int, generator: random.Random
) -> Iterator[tuple[str, str]]:
    """Yield pairs of a passing answer and a failing answer. No answer is used twice.

    A passing answer is paired with the unused failing answer that is nearest in length, so that DPO does not learn to
    prefer short or long answers.

    Args:
        passing: answers that passed.
        failing: answers that failed.
        most: maximum number of pairs.
        generator: draws which passing answers are used.
    """
    chosen = sorted(set(passing))
    unused = sorted(set(failing))
    generator.shuffle(chosen)
    for answer in chosen[:most]:
        if not unused:
            return
        nearest = min(unused, key=lambda other: (abs(len(other) - len(answer)), other))
        unused.remove(nearest)
        yield answer, nearest

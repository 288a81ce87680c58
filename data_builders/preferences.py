"""Builder `preferences`: sample answers from a model, grade the answers, and pair better answers with worse answers.

Answers to tasks are executed: a passing answer is paired with a failing answer. Answers to questions can't be
executed, so a judge model scores them: the best answer is paired with the worst answer.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from alignment.evaluation.extraction import extract_code
from alignment.grading import open_grader
from alignment.models import formats
from alignment.rows import reading as row_files
from alignment.settings import Positive, Reference, Settings, Share
from data_builders.builder import BuildContext
from data_builders.models.judge import scores
from data_builders.models.writers import TextModel, open_model


class PreferencesSettings(Settings):
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
    n: Positive = 8
    """Number of sampled answers per task or question."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature; 0 means greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most likely tokens whose total probability is this number."""
    max_new_tokens: Positive = 512
    """Maximum length of an answer in tokens. An answer that is cut off at this length counts as failed."""
    pairs_per_prompt: Positive = 2
    """Maximum number of pairs per prompt, so that no prompt has too much weight."""
    batch_size: Positive | None = None
    """Number of sequences generated together. By default as many as fit into memory."""
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


@dataclass(frozen=True)
class SampledAnswer:
    """A sampled answer. `ended` is false for an answer that was cut off at `max_new_tokens`."""

    text: str
    ended: bool


@dataclass
class GradedAnswers:
    """The distinct answers to one task that passed or failed. Answers that could not be graded are left out."""

    passing: list[str] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)


def build_preferences(settings: PreferencesSettings, context: BuildContext) -> dict[str, Any]:
    """Write pairs of a better and a worse answer, sampled from a model and graded by execution or by a judge.

    Raises:
        ValueError: no pair was found, or no answer could be graded.
    """
    tasks = list(row_files.read(settings.tasks.path(), settings.limit)) if settings.tasks is not None else []
    questions: list[dict[str, Any]] = []
    if settings.questions is not None:
        rows = row_files.read(settings.questions.path(), settings.limit)
        questions = [_question(row, index) for index, row in enumerate(rows)]
    answers = sample_answers(settings, context, [*tasks, *questions])
    counts: dict[str, int] = {}
    pairs: list[dict[str, Any]] = []
    if tasks:
        graded, counts = grade_answers(context, tasks, answers[: len(tasks)])
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
        if settings.references and not passing and task.get("reference"):
            passing, source = [f"```{task['language']}\n{task['reference']}\n```"], "reference"
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


def sample_answers(
    settings: PreferencesSettings, context: BuildContext, rows: Sequence[Mapping[str, Any]]
) -> list[list[SampledAnswer]]:
    """Sample `settings.n` answers to the `prompt` of each row from the stage's model."""
    from alignment.evaluation.engines.protocol import GenerationJob
    from alignment.evaluation.engines.selection import open_engine

    assert context.model is not None, "the builder `preferences` needs a model"
    engine = open_engine(str(context.model), batch_size=settings.batch_size, dtype=context.dtype)
    jobs = []
    for index, row in enumerate(rows):
        prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"])}]
        ids = engine.tokenizer.encode(formats.chat(prompt, add_generation_prompt=True), add_special_tokens=False)
        for sample in range(settings.n):
            job_seed = random.Random(f"{context.seed}:{row['id']}:{sample}").getrandbits(63)
            jobs.append(
                GenerationJob(
                    key=f"{index}:{sample}",
                    ids=ids,
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    seed=job_seed,
                )
            )
    answers = [[SampledAnswer("", False)] * settings.n for _ in rows]
    for job, completion in engine.generate(jobs):
        index, sample = map(int, job.key.split(":"))
        answers[index][sample] = SampledAnswer(completion.text, completion.finish == "stop")
    return answers


def grade_answers(
    context: BuildContext, tasks: Sequence[dict[str, Any]], answers: Sequence[Sequence[SampledAnswer]]
) -> tuple[list[GradedAnswers], dict[str, int]]:
    """Run the tests of each task on its distinct answers.

    Returns:
        The graded answers of each task, and counts: all answers (`sampled`), answers that were cut off (`unended`), and
        how many verdicts are `passed`, `failed` and `error`.

    Raises:
        ValueError: no answer could be graded, because every verdict is an infrastructure error.
    """
    distinct = [sorted({(answer.text, answer.ended) for answer in samples}) for samples in answers]
    jobs, places = [], []
    for index, (task, texts) in enumerate(zip(tasks, distinct, strict=True)):
        for text, ended in texts:
            if ended:
                program = extract_code(text, language=task["language"], entry_point=task.get("entry_point"))
                jobs.append((task, program))
                places.append((index, text))
    with open_grader(context.sandbox) as grader:
        verdicts = grader.grade_many(jobs)
    counts: Counter[str] = Counter(sampled=sum(map(len, answers)))
    graded = [GradedAnswers() for _ in tasks]
    for index, texts in enumerate(distinct):
        for text, ended in texts:
            if not ended:
                counts["unended"] += 1
                graded[index].failing.append(text)
    for (index, text), verdict in zip(places, verdicts, strict=True):
        counts[verdict.status] += 1
        if verdict.status != "error":
            (graded[index].passing if verdict.status == "passed" else graded[index].failing).append(text)
    if counts["error"] and not counts["passed"] + counts["failed"]:
        raise ValueError(f"no answer could be graded: {verdicts[0].reason}: {verdicts[0].detail}")
    return graded, dict(counts)

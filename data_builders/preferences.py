"""Preferences: sample answers from the stage before, run them, pair what passes with what fails.

What can't be executed is scored by a judge, where one is configured: its pairs are the best answer with the worst.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.grading import open_grader
from alignment.recipe.stage_request import StageRequest
from data_builders.models.writers import Model


def build(
    out: Path,
    *,
    seed: int,
    request: StageRequest,
    tasks: Path | None = None,
    questions: Path | None = None,
    judge: Model | None = None,
    min_gap: float = 0.2,
    references: bool = False,
    n: int = 8,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 512,
    pairs_per_prompt: int = 2,
    batch_size: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Write `preferences.jsonl` and return what was counted.

    Args:
        tasks: Executable tasks; never the held-out ones.
        questions: Conversations whose last answer can't be executed; `judge` says which sampled answer is better.
        judge: The model that scores answers to `questions` by a checklist.
        min_gap: Scores (0 to 1) of a judged pair lie at least so far apart.
        references: Where no sampled answer passes, the task's own reference stands in as the chosen one.
        n: Answers sampled per task.
        temperature: Of the sampling.
        top_p: Of the sampling.
        max_new_tokens: Of an answer; one that does not end by itself counts as failed.
        pairs_per_prompt: At most so many pairs of one prompt, so that easy prompts don't outweigh the rest.
        batch_size: Sequences generated together; by default what fits.
        limit: Only the first so many tasks.
    """
    from alignment.rows import reading as row_files

    for message in check({"tasks": tasks, "questions": questions, "judge": judge, "references": references}):
        raise ValueError(message)
    generator = random.Random(seed)
    rows = list(row_files.read(tasks, limit)) if tasks is not None else []
    asked = [_question(row, index) for index, row in enumerate(row_files.read(questions, limit))] if questions else []
    answers = _sample(request, [*rows, *asked], seed, n, temperature, top_p, max_new_tokens, batch_size)
    counted, graded = _grade(request, rows, answers[: len(rows)]) if rows else ({}, [])
    pairs: list[dict[str, Any]] = []
    for row, (passing, failing) in zip(rows, graded, strict=True):
        source = "execution"
        if references and not passing and row.get("reference"):
            passing, source = [f"```{row['language']}\n{row['reference']}\n```"], "reference"
        found = list(choose_pairs(passing, failing, pairs_per_prompt, generator))
        if source == "reference":
            counted["pairs_with_reference"] = counted.get("pairs_with_reference", 0) + len(found)
        pairs += [_pair(row["prompt"], chosen, rejected, f"{source}:{row['id']}") for chosen, rejected in found]
    if judge is not None:
        pairs += _judged(asked, answers[len(rows) :], judge, min_gap, seed, counted)
    with (out / "preferences.jsonl").open("w", encoding="utf-8") as file:
        for preference in pairs:
            file.write(json.dumps(preference, ensure_ascii=False) + "\n")
    if not pairs:
        raise ValueError(
            f"no pair of a better and a worse answer was found ({_told(counted)}): {_what_to_do(references)}"
        )
    return {"tasks": len(rows), **counted, "pairs": len(pairs)}


def check(settings: Mapping[str, Any]) -> Iterator[str]:
    """What can't be had together."""
    tasks, questions, judge = (settings.get(name) for name in ("tasks", "questions", "judge"))
    if tasks is None and questions is None:
        yield "tasks is missing (or `questions` and a `judge`)"
    if (questions is None) != (judge is None):
        yield "`questions` and `judge` belong together: give both, or neither"
    if settings.get("references") and tasks is None:
        yield "`references` are those of `tasks`, and there are none"


def _pair(prompt: str, chosen: str, rejected: str, source: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "source": source,
    }


def _told(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items())


def _what_to_do(references: bool) -> str:
    if references:
        return "sample more answers (`n`), or longer ones (`max_new_tokens`)"
    return "train longer before, sample more answers (`n`), or let `references` stand in where none passes"


def _question(row: dict[str, Any], index: int) -> dict[str, Any]:
    """A conversation as a question: what the user asked first."""
    messages = row.get("messages") or []
    asked = next((message["content"] for message in messages if message.get("role") == "user"), None)
    if asked is None:
        raise ValueError(f"questions, row {index + 1}: a conversation with a user's message is needed")
    return {"id": f"{row.get('source', 'question')}:{index}", "prompt": asked}


def _judged(
    asked: Sequence[dict[str, Any]],
    answers: Sequence[Sequence[tuple[str, bool]]],
    judge: Model,
    min_gap: float,
    seed: int,
    counted: dict[str, int],
) -> list[dict[str, Any]]:
    """The best answer of each question with the worst that is far enough below it."""
    from data_builders.models.judge import scores
    from data_builders.models.writers import open_model

    texts = [sorted({text for text, ended in samples if ended and text.strip()}) for samples in answers]
    flat = [(row["prompt"], text) for row, own in zip(asked, texts, strict=True) for text in own]
    found = iter(scores(open_model(judge), flat, seed))
    pairs = []
    for row, own in zip(asked, texts, strict=True):
        ranked = sorted((score, text) for text in own if (score := next(found)) is not None)
        if len(ranked) > 1 and ranked[-1][0] - ranked[0][0] >= min_gap:
            pairs.append(_pair(row["prompt"], ranked[-1][1], ranked[0][1], f"judge:{row['id']}"))
    counted["questions"], counted["judged_answers"], counted["judged_pairs"] = len(asked), len(flat), len(pairs)
    return pairs


def choose_pairs(
    passing: Sequence[str], failing: Sequence[str], most: int, generator: random.Random
) -> Iterator[tuple[str, str]]:
    """At most `most` pairs of distinct answers, each passing one with the unused failing one nearest in length.

    Nearness in length keeps DPO from learning that shorter, or longer, is better.
    """
    chosen = sorted(set(passing))
    left = sorted(set(failing))
    generator.shuffle(chosen)
    for answer in chosen[:most]:
        if not left:
            return
        nearest = min(left, key=lambda other: (abs(len(other) - len(answer)), other))
        left.remove(nearest)
        yield answer, nearest


def _sample(
    request: StageRequest,
    rows: Sequence[dict[str, Any]],
    seed: int,
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int | None,
) -> list[list[tuple[str, bool]]]:
    """For every row `n` answers, each with whether it ended by itself."""
    from alignment.evaluation.engines.protocol import GenerationJob
    from alignment.evaluation.engines.selection import open_engine
    from alignment.models import formats

    assert request.model is not None
    engine = open_engine(request.model.checkpoint, batch_size=batch_size)
    jobs = []
    for index, row in enumerate(rows):
        prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"])}]
        ids = engine.tokenizer.encode(formats.chat(prompt, add_generation_prompt=True), add_special_tokens=False)
        for sample in range(n):
            draw = random.Random(f"{seed}:{row['id']}:{sample}").getrandbits(63)
            jobs.append(
                GenerationJob(
                    key=f"{index}:{sample}",
                    ids=ids,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=draw,
                )
            )
    answers: list[list[tuple[str, bool]]] = [[("", False)] * n for _ in rows]
    for job, completion in engine.generate(jobs):
        index, sample = map(int, job.key.split(":"))
        answers[index][sample] = (completion.text, completion.finish == "stop")
    return answers


def _grade(
    request: StageRequest, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[tuple[str, bool]]]
) -> tuple[dict[str, int], list[tuple[list[str], list[str]]]]:
    """Passing and failing answers of every row; an infrastructure error is neither."""
    from alignment.evaluation.extraction import extract_code

    jobs, places = [], []
    for index, (row, texts) in enumerate(zip(rows, answers, strict=True)):
        for text, ended in sorted(set(texts)):
            if ended:
                program = extract_code(text, language=row["language"], entry_point=row.get("entry_point"))
                jobs.append((row, program))
                places.append((index, text))
    with open_grader(request.sandbox) as judge:
        verdicts = judge.grade_many(jobs)
    counted: Counter[str] = Counter(sampled=sum(map(len, answers)))
    result: list[tuple[list[str], list[str]]] = [([], []) for _ in rows]
    for index, texts in enumerate(answers):
        for text, ended in sorted(set(texts)):
            if not ended:
                counted["unended"] += 1
                result[index][1].append(text)
    for (index, text), verdict in zip(places, verdicts, strict=True):
        counted[verdict.status] += 1
        if verdict.status != "error":
            result[index][0 if verdict.status == "passed" else 1].append(text)
    if counted["error"] and not counted["passed"] + counted["failed"]:
        raise ValueError(f"no answer could be graded: {verdicts[0].reason}: {verdicts[0].detail}")
    return dict(counted), result

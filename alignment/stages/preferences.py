"""Preferences from execution: sample answers from the stage before, run them, pair what passes with what fails."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.stages.request import Request


def build(
    out: Path,
    *,
    seed: int,
    request: Request,
    tasks: Path,
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
        n: Answers sampled per task.
        temperature: Of the sampling.
        top_p: Of the sampling.
        max_new_tokens: Of an answer; one that does not end by itself counts as failed.
        pairs_per_prompt: At most so many pairs of one prompt, so that easy prompts don't outweigh the rest.
        batch_size: Sequences generated together; by default what fits.
        limit: Only the first so many tasks.
    """
    from alignment.stages import rows as row_files

    rows = list(row_files.read(tasks, limit))
    answers = _sample(request, rows, seed, n, temperature, top_p, max_new_tokens, batch_size)
    counted, graded = _grade(request, rows, answers)
    generator = random.Random(seed)
    pairs = 0
    with (out / "preferences.jsonl").open("w", encoding="utf-8") as file:
        import json

        for row, (passing, failing) in zip(rows, graded, strict=True):
            for chosen, rejected in choose_pairs(passing, failing, pairs_per_prompt, generator):
                pairs += 1
                preference = {
                    "prompt": [{"role": "user", "content": row["prompt"]}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                    "source": f"execution:{row['id']}",
                }
                file.write(json.dumps(preference, ensure_ascii=False) + "\n")
    return {"tasks": len(rows), **counted, "pairs": pairs}


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
    request: Request,
    rows: Sequence[dict[str, Any]],
    seed: int,
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int | None,
) -> list[list[tuple[str, bool]]]:
    """For every row `n` answers, each with whether it ended by itself."""
    from alignment import formats
    from alignment.evaluation.engines import open_engine
    from alignment.evaluation.generate import Job

    assert request.model is not None
    engine = open_engine(request.model["path"], batch_size=batch_size)
    jobs = []
    for index, row in enumerate(rows):
        prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"])}]
        ids = engine.tokenizer.encode(formats.chat(prompt, add_generation_prompt=True), add_special_tokens=False)
        for sample in range(n):
            draw = random.Random(f"{seed}:{row['id']}:{sample}").getrandbits(63)
            jobs.append(
                Job(
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
    request: Request, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[tuple[str, bool]]]
) -> tuple[dict[str, int], list[tuple[list[str], list[str]]]]:
    """Passing and failing answers of every row; an infrastructure error is neither."""
    from alignment.evaluation.extraction import extract_code
    from alignment.stages.execution import grader

    jobs, places = [], []
    for index, (row, texts) in enumerate(zip(rows, answers, strict=True)):
        for text, ended in sorted(set(texts)):
            if ended:
                program = extract_code(text, language=row["language"], entry_point=row.get("entry_point"))
                jobs.append((row, program))
                places.append((index, text))
    with grader(request.sandbox) as judge:
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

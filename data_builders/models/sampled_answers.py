"""Sample answers to tasks or questions from a stage's model, and grade the answers to tasks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from alignment.evaluation.answer_forms import (
    TEXT_FORMS,
    ends_by_syntax,
    form_of,
    program_of_answer,
    prompt_text,
    stop_texts,
)
from alignment.grading import open_grader
from alignment.models import formats
from alignment.models.model_family import ModelFamily, family_of
from alignment.models.source import EngineName
from alignment.progress import Progress
from alignment.settings import Positive, Settings, Share
from data_builders.builder import BuildContext


class SamplingSettings(Settings):
    """Settings of a builder that samples answers from the stage's model."""

    n: Positive = 8
    """Number of sampled answers per task or question."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature; 0 means greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most likely tokens whose total probability is this number."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many most likely tokens; 0 means all. Applied before `top_p`."""
    min_p: Share = 0.0
    """Sample from tokens that are at least this times as likely as the most likely token. Applied after `top_p`."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Make tokens of the prompt and of the answer so far less likely; 1 changes nothing."""
    engine: EngineName = "auto"
    """The engine that generates the answers: `transformers`, `vllm`, or `llamacpp` for a GGUF file. `auto` is llamacpp for a
    GGUF file, vLLM if it is installed and there is a GPU, and transformers otherwise. Use `server` for a server."""
    server: str | None = None
    """Generate with this OpenAI-compatible server, for example `http://127.0.0.1:8000`. It must serve the stage's model,
    whose tokenizer is used. The environment variable ALIGN_SERVER_TOKEN may hold a token."""
    max_new_tokens: Positive = 512
    """Maximum length of an answer in tokens. An answer that is cut off at this length counts as failed, except if the
    end of the body is found in it by syntax (answer forms `continuation` and `fim`)."""
    batch_size: Positive | None = None
    """Number of sequences generated together. By default as many as fit into memory."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.server is not None and self.engine != "auto":
            raise ValueError("`server` names the engine already: remove `engine`")
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


def sample_answers(
    settings: SamplingSettings, context: BuildContext, rows: Sequence[Mapping[str, Any]]
) -> list[list[SampledAnswer]]:
    """Sample `settings.n` answers to each row from the stage's model, in the answer form of the row."""
    from alignment.evaluation.engines.protocol import GenerationJob
    from alignment.evaluation.engines.selection import open_engine, open_server

    assert context.model is not None, "a builder that samples answers needs a model"
    if settings.server is not None:
        engine = open_server(settings.server, context.model, batch_size=settings.batch_size)
    else:
        engine = open_engine(str(context.model), settings.engine, settings.batch_size, context.dtype)
    jobs = []
    for index, row in enumerate(rows):
        ids = engine.tokenizer.encode(_prompt(row, family_of(engine.tokenizer)), add_special_tokens=False)
        text_form = form_of(row) in TEXT_FORMS
        stop_ids = formats.stop_token_ids(engine.tokenizer, formats.FIM_STOP_TOKENS) if text_form else []
        for sample in range(settings.n):
            job_seed = random.Random(f"{context.seed}:{row['id']}:{sample}").getrandbits(63)
            jobs.append(
                GenerationJob(
                    key=f"{index}:{sample}",
                    ids=ids,
                    max_new_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k,
                    min_p=settings.min_p,
                    repetition_penalty=settings.repetition_penalty,
                    seed=job_seed,
                    stop=stop_texts(row),
                    stop_ids=tuple(stop_ids),
                )
            )
    answers = [[SampledAnswer("", False)] * settings.n for _ in rows]
    progress = Progress("answers", len(jobs), "answers", amount_unit="tokens")
    for job, completion in engine.generate(jobs):
        progress.advance(1, completion.tokens)
        index, sample = map(int, job.key.split(":"))
        answers[index][sample] = SampledAnswer(
            completion.text, completion.finish == "stop" or ends_by_syntax(rows[index], completion.text)
        )
    progress.finish()
    return answers


def _prompt(row: Mapping[str, Any], family: ModelFamily) -> str:
    """Return the prompt of a row with its special tokens written out."""
    if form_of(row) in TEXT_FORMS:
        return prompt_text(row)
    message = {"role": "user", "content": formats.escape_special_text(row["prompt"], family)}
    return formats.chat([message], add_generation_prompt=True, family=family)


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
                jobs.append((task, program_of_answer(task, text)))
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

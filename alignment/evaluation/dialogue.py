"""A model's next turn in dialogues, and its continuation of plain text: for `align chat`, `align compare`, `align ui`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.evaluation.engines.protocol import Completion, Engine, GenerationJob
from alignment.models import formats
from alignment.models.model_family import family_of

Message = Mapping[str, str]


@dataclass(frozen=True)
class ReplySettings:
    """How replies are sampled."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


def replies(engine: Engine, dialogues: Sequence[Sequence[Message]], settings: ReplySettings) -> list[Completion]:
    """Return the model's next turn in each dialogue."""
    family = family_of(engine.tokenizer)
    # A special token in a question is text, and must not end the turn.
    escaped = [
        [{**message, "content": formats.escape_special_text(message["content"], family)} for message in messages]
        for messages in dialogues
    ]
    texts = [formats.chat(messages, add_generation_prompt=True, family=family) for messages in escaped]
    return continuations(engine, texts, settings)


def continuations(engine: Engine, texts: Sequence[str], settings: ReplySettings) -> list[Completion]:
    """Return the model's continuation of each text. Special tokens in a text are encoded as such."""
    stops = tuple(formats.stop_token_ids(engine.tokenizer, (formats.IM_END, formats.ENDOFTEXT)))
    jobs = [
        GenerationJob(
            str(number), [], settings.max_new_tokens, text=text,
            temperature=settings.temperature, seed=settings.seed, stop_ids=stops,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    completions = {job.key: completion for job, completion in engine.generate(jobs)}
    return [completions[job.key] for job in jobs]

"""What a model adds to instructions that rules made: other words, better answers, translations; best of N, judged.

An answer that a model wrote replaces the rule's only if its code parses, passes the function's tests where a task has
some, and, where a judge is configured, scores at least `min_score`. Otherwise the rule's own stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from alignment.evaluation.extraction import extract_code
from alignment.grading import Grader
from alignment.settings import Positive, Settings, Share
from data_builders.instructions.instruction_kinds import Draft, block
from data_builders.models import judge as judging
from data_builders.models.writers import Author, TextModel, open_model
from data_builders.parsing.python_functions import parse
from data_builders.parsing.syntax_spans import parser

CODE_KINDS = ("implement", "tests", "fix")
PROSE_KINDS = ("explain", "document")


class Refinement(Settings):
    """Models that rewrite and judge conversations; at least one of `writer` and `judge`."""

    writer: TextModel | None = None
    """Rewords questions, and writes answers and translations."""
    judge: TextModel | None = None
    """Scores conversations by a checklist; those below `min_score` are dropped."""
    best_of: Positive = 4
    """Answers that the writer gives to each question; the best one is kept (rejection sampling)."""
    min_score: Share = 0.6
    """Lowest score that is kept, from 0 to 1."""
    reword: bool = True
    """Let the writer reword questions; code in them stays as it is."""
    translate_to: list[str] = Field(default_factory=list)
    """Languages that the writer translates functions to; a translation is kept if it parses."""

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if self.writer is None and self.judge is None:
            raise ValueError("refinement needs a `writer`, a `judge`, or both")
        if self.translate_to and self.writer is None:
            raise ValueError("translate_to needs a `writer`: rules do not translate between languages")
        for language in self.translate_to:
            if parser(language) is None:
                raise ValueError(f"no grammar can check translations to {language!r} (install the extra [syntax])")
        return self


def refine(drafts: list[Draft], settings: Refinement, grader: Grader, seed: int) -> tuple[list[Draft], dict[str, int]]:
    """The drafts rewritten and judged, and what was counted."""
    counted: Counter[str] = Counter()
    judge = open_model(settings.judge) if settings.judge is not None else None
    if settings.writer is not None:
        writer = open_model(settings.writer)
        warmth = settings.writer.temperature
        drafts = drafts + _translated(drafts, settings, writer, warmth, seed, counted)
        drafts = _best(drafts, settings, writer, warmth, judge, grader, seed, counted)
        if settings.reword:
            drafts = _reworded(drafts, writer, warmth, seed, counted)
    if judge is not None:
        found = judging.scores(judge, [(draft.prompt, draft.answer) for draft in drafts], seed)
        counted["judge_said_nothing"] = sum(value is None for value in found)
        kept = [
            draft
            for draft, value in zip(drafts, found, strict=True)
            if value is not None and value >= settings.min_score
        ]
        counted["below_min_score"] = len(drafts) - len(kept) - counted["judge_said_nothing"]
        drafts = kept
    return drafts, dict(counted)


def _best(
    drafts: list[Draft], settings: Refinement, writer: Author, warmth: float, judge: Author | None, grader: Grader,
    seed: int, counted: Counter[str],
) -> list[Draft]:  # fmt: skip
    """Rejection sampling: the writer's best answer, where it has a valid one."""
    asked = [draft for draft in drafts if draft.kind in (*CODE_KINDS, *PROSE_KINDS)]
    texts = writer.answers(
        [_messages(draft.prompt) for draft in asked], settings.best_of, temperature=warmth, seed=seed
    )
    valid = _valid(asked, texts, grader, counted)
    pairs = [(draft.prompt, text) for draft, answers in zip(asked, valid, strict=True) for text in answers]
    scores = iter(judging.scores(judge, pairs, seed) if judge is not None else [1.0] * len(pairs))
    chosen: dict[int, str] = {}
    for draft, answers in zip(asked, valid, strict=True):
        ranked = [(score, -place) for place in range(len(answers)) if (score := next(scores)) is not None]
        if ranked and max(ranked)[0] >= settings.min_score:
            chosen[id(draft)] = answers[-max(ranked)[1]]
    counted["answered_by_the_writer"] = len(chosen)
    return [replace(draft, answer=chosen.get(id(draft), draft.answer)) for draft in drafts]


def _valid(
    asked: Sequence[Draft], texts: Sequence[Sequence[str]], grader: Grader, counted: Counter[str]
) -> list[list[str]]:
    """Of each question the distinct answers that may stand: code that passes its tests, or parses where it has none."""
    jobs: list[tuple[dict[str, Any], str]] = []
    places: list[tuple[int, str]] = []
    valid: list[list[str]] = [[] for _ in asked]
    for index, (draft, answers) in enumerate(zip(asked, texts, strict=True)):
        for text in dict.fromkeys(answers):
            counted["sampled"] += 1
            if draft.kind in PROSE_KINDS:
                if text.strip():
                    valid[index].append(text)
                continue
            entry = draft.task.get("entry_point") if draft.task else None
            program = extract_code(text, language=draft.language, entry_point=entry)
            if parse(program) is None or not program.strip():
                counted["does_not_parse"] += 1
            elif draft.task is None:
                valid[index].append(text)
            else:
                jobs.append((draft.task, program))
                places.append((index, text))
    for (index, text), verdict in zip(places, grader.grade_many(jobs), strict=True):
        if verdict.status == "passed":
            valid[index].append(text)
        else:
            counted["fails_its_tests" if verdict.status == "failed" else "not_graded"] += 1
    return valid


def _reworded(drafts: list[Draft], writer: Author, warmth: float, seed: int, counted: Counter[str]) -> list[Draft]:
    """What is asked in other words; every name in backticks must still be there."""
    prompts = [
        _messages(
            "Say this request to a programmer in other words, in one or two sentences. Keep every name in backticks as "
            f"it is, and reply with the request alone.\n\n{draft.ask}"
        )
        for draft in drafts
    ]
    made = []
    for draft, texts in zip(drafts, writer.answers(prompts, 1, temperature=warmth, seed=seed + 1), strict=True):
        ask = texts[0].strip() if texts else ""
        names = draft.ask.split("`")[1::2]
        good = (
            0 < len(ask) <= 4 * len(draft.ask) + 100 and "```" not in ask and all(f"`{name}`" in ask for name in names)
        )
        counted["reworded"] += good
        made.append(replace(draft, ask=ask) if good else draft)
    return made


def _translated(
    drafts: list[Draft], settings: Refinement, writer: Author, warmth: float, seed: int, counted: Counter[str]
) -> list[Draft]:
    """Functions in other languages, where the writer's code parses without an error."""
    made = []
    for language in settings.translate_to:
        asked = [draft for draft in drafts if draft.kind == "implement"]
        asks = [f"Translate this function to {language}." for _ in asked]
        prompts = [_messages(f"{ask}\n\n{draft.answer}") for ask, draft in zip(asks, asked, strict=True)]
        for draft, ask, texts in zip(
            asked, asks, writer.answers(prompts, settings.best_of, temperature=warmth, seed=seed + 2), strict=True
        ):
            good = next((code for text in texts if (code := _parses(text, language))), "")
            counted["translated"] += bool(good)
            counted["translation_does_not_parse"] += not good
            if good:
                made.append(
                    Draft("translate", ask, draft.answer, block(good, language), draft.source, language=language)
                )
    return made


def _parses(text: str, language: str) -> str:
    """The code of an answer, or "" where its grammar finds an error in it."""
    code = extract_code(text, language=language)
    tool = parser(language)
    tree = tool.parse(code.encode("utf-8", "surrogatepass")) if tool is not None and code.strip() else None
    return code if tree is not None and not tree.root_node.has_error and tree.root_node.child_count else ""


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]

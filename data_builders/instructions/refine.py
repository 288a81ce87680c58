"""Improve rule-made instructions with models: reword questions, sample better answers, translate, score.

An answer of the writer model replaces the rule-made answer only if the code of the new answer parses. If the draft has
a task, the code must also pass the tests. If a judge is configured, the score must be at least `min_score`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import Field, model_validator

from alignment.evaluation.extraction import extract_code
from alignment.grading import Grader
from alignment.settings import Positive, Settings, Share
from data_builders.instructions.instruction_kinds import Draft
from data_builders.models import judge as judging
from data_builders.models.writers import Author, TextModel, open_model
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.python_functions import parse
from data_builders.parsing.syntax_spans import parser

CODE_KINDS = ("implement", "tests", "fix")
PROSE_KINDS = ("explain", "document")


class Refinement(Settings):
    """Models that rewrite and judge conversations. At least one of `writer` and `judge` is required."""

    writer: TextModel | None = None
    """Model that rewords questions and writes answers and translations."""
    judge: TextModel | None = None
    """Model that scores conversations by a checklist. Conversations with a score below `min_score` are dropped."""
    best_of: Positive = 4
    """Number of answers that the writer gives to each question. The best answer is kept (rejection sampling)."""
    min_score: Share = 0.6
    """Minimum score of a conversation, from 0 to 1."""
    reword: bool = True
    """Whether the writer rewords questions. Code in questions is not changed."""
    translate_to: list[str] = Field(default_factory=list)
    """Languages into which the writer translates functions. A translation is kept if its code parses."""

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if self.writer is None and self.judge is None:
            raise ValueError("refinement needs a `writer`, a `judge`, or both")
        if self.translate_to and self.writer is None:
            raise ValueError("`translate_to` needs a `writer`, the model that translates")
        for language in self.translate_to:
            if parser(language) is None:
                raise ValueError(f"translations to {language!r} can't be checked: no grammar parses this language")
        return self


@dataclass
class _Writer:
    """A writer model with the settings of one build."""

    author: Author
    temperature: float
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def answers(self, questions: Sequence[str], n: int, seed_offset: int = 0) -> list[list[str]]:
        """Return up to `n` answers per question. Calls with another `seed_offset` give other samples."""
        conversations = [[{"role": "user", "content": text}] for text in questions]
        return self.author.answers(conversations, n, temperature=self.temperature, seed=self.seed + seed_offset)


def refine(drafts: list[Draft], settings: Refinement, grader: Grader, seed: int) -> tuple[list[Draft], dict[str, int]]:
    """Rewrite and judge drafts with the configured models.

    Args:
        drafts: conversations made by rules.
        settings: the models, and the tasks of each model.
        grader: executes answers of drafts that have a task.
        seed: seed for sampling from both models.

    Returns:
        The drafts that are kept, including translations, and counts for the build report.
    """
    counts: Counter[str] = Counter()
    judge = open_model(settings.judge) if settings.judge is not None else None
    if settings.writer is not None:
        writer = _Writer(open_model(settings.writer), settings.writer.temperature, seed, counts)
        drafts = drafts + _translated(drafts, settings, writer)
        drafts = _with_best_answers(drafts, settings, writer, judge, grader)
        if settings.reword:
            drafts = _reworded(drafts, writer)
    if judge is not None:
        scores = judging.scores(judge, [(draft.prompt, draft.answer) for draft in drafts], seed)
        counts["judge_said_nothing"] = sum(value is None for value in scores)
        good = [
            draft
            for draft, value in zip(drafts, scores, strict=True)
            if value is not None and value >= settings.min_score
        ]
        counts["below_min_score"] = len(drafts) - len(good) - counts["judge_said_nothing"]
        drafts = good
    return drafts, dict(counts)


def _with_best_answers(
    drafts: list[Draft], settings: Refinement, writer: _Writer, judge: Author | None, grader: Grader
) -> list[Draft]:
    """Replace the answer of each draft by the best valid answer that the writer model samples.

    A draft without a valid answer keeps its answer.
    """
    open_drafts = [draft for draft in drafts if draft.kind in (*CODE_KINDS, *PROSE_KINDS)]
    texts = writer.answers([draft.prompt for draft in open_drafts], settings.best_of)
    valid = _valid_answers(open_drafts, texts, grader, writer.counts)
    pairs = [(draft.prompt, text) for draft, answers in zip(open_drafts, valid, strict=True) for text in answers]
    scores = iter(judging.scores(judge, pairs, writer.seed) if judge is not None else [1.0] * len(pairs))
    best: dict[int, str] = {}
    for draft, answers in zip(open_drafts, valid, strict=True):
        # The first of several answers with the same score wins.
        ranked = [(score, -place) for place in range(len(answers)) if (score := next(scores)) is not None]
        if ranked and max(ranked)[0] >= settings.min_score:
            best[id(draft)] = answers[-max(ranked)[1]]
    writer.counts["answered_by_the_writer"] = len(best)
    return [replace(draft, answer=best.get(id(draft), draft.answer)) for draft in drafts]


def _valid_answers(
    drafts: Sequence[Draft], texts: Sequence[Sequence[str]], grader: Grader, counts: Counter[str]
) -> list[list[str]]:
    """Return the valid, distinct answers to each draft.

    If the draft has a task, valid code passes the task's tests. Otherwise valid code parses.
    """
    jobs: list[tuple[dict[str, Any], str]] = []
    places: list[tuple[int, str]] = []
    valid: list[list[str]] = [[] for _ in drafts]
    for index, (draft, answers) in enumerate(zip(drafts, texts, strict=True)):
        for text in dict.fromkeys(answers):
            counts["sampled"] += 1
            if draft.kind in PROSE_KINDS:
                if text.strip():
                    valid[index].append(text)
                continue
            entry = draft.task.get("entry_point") if draft.task else None
            program = extract_code(text, language=draft.language, entry_point=entry)
            if parse(program) is None or not program.strip():
                counts["does_not_parse"] += 1
            elif draft.task is None:
                valid[index].append(text)
            else:
                jobs.append((draft.task, program))
                places.append((index, text))
    for (index, text), verdict in zip(places, grader.grade_many(jobs), strict=True):
        if verdict.status == "passed":
            valid[index].append(text)
        else:
            counts["fails_its_tests" if verdict.status == "failed" else "not_graded"] += 1
    return valid


def _reworded(drafts: list[Draft], writer: _Writer) -> list[Draft]:
    """Reword the request of each draft. The new wording is used only if it contains all names in backticks."""
    questions = [
        "Say this request to a programmer in other words, in one or two sentences. Keep every name in backticks as "
        f"it is, and reply with the request alone.\n\n{draft.ask}"
        for draft in drafts
    ]
    reworded = []
    for draft, texts in zip(drafts, writer.answers(questions, 1, seed_offset=1), strict=True):
        ask = texts[0].strip() if texts else ""
        names = draft.ask.split("`")[1::2]
        is_valid = (
            0 < len(ask) <= 4 * len(draft.ask) + 100 and "```" not in ask and all(f"`{name}`" in ask for name in names)
        )
        writer.counts["reworded"] += is_valid
        reworded.append(replace(draft, ask=ask) if is_valid else draft)
    return reworded


def _translated(drafts: list[Draft], settings: Refinement, writer: _Writer) -> list[Draft]:
    """Translate functions into other languages. Return a new draft for each translation that parses without error."""
    translated = []
    originals = [draft for draft in drafts if draft.kind == "implement"]
    for language in settings.translate_to:
        ask = f"Translate this function to {language}."
        questions = [f"{ask}\n\n{draft.answer}" for draft in originals]
        for draft, texts in zip(originals, writer.answers(questions, settings.best_of, seed_offset=2), strict=True):
            code = next((code for text in texts if (code := _parsed_code(text, language))), "")
            writer.counts["translated"] += bool(code)
            writer.counts["translation_does_not_parse"] += not code
            if code:
                answer = code_block(code, language)
                translated.append(Draft("translate", ask, draft.answer, answer, draft.source, language=language))
    return translated


def _parsed_code(text: str, language: str) -> str:
    """Return the code of an answer, or "" if the answer has no code or the code has a syntax error."""
    code = extract_code(text, language=language)
    tool = parser(language)
    tree = tool.parse(code.encode("utf-8", "surrogatepass")) if tool is not None and code.strip() else None
    return code if tree is not None and not tree.root_node.has_error and tree.root_node.child_count else ""

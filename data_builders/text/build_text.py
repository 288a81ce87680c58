"""Builders of text for continued pretraining: text-code grounding, mathematics, general text, and good code.

Qwen2.5-Coder filters text-code grounding data in four stages, from coarse to fine, each with a small and fast model
(arXiv 2409.12186, section 3.1). The criteria of its stages are not published. Those used here are `prose` (connected
text, not navigation, logs or spam), `technical` (about software), `grounded` (the text explains code that it shows) and
`educational` (a reader learns from it). Each stage is trained on a small file of hand-written seed texts in
`data_builders/text/seeds/`; replace them with your own by the setting `seeds`.

In general text, code is removed: fenced blocks, indented blocks and lines that look like statements.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alignment.models.formats import escape_special_text
from alignment.rows.row_texts import document_text
from alignment.settings import Reference, Share
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_rows import Counts, Prepare, clean_stream
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import lineage, read_datasets
from data_builders.storage.parallel import row_batches
from data_builders.text.classifier import Classifier, train_from
from data_builders.text.code_features import code_form

PROSE_LANGUAGES = frozenset(
    ["", "text", "markdown", "restructuredtext", "tex", "html", "rmarkdown", "jupyter-notebook", "literate-agda",
     "literate-coffeescript", "literate-haskell"]
)  # fmt: skip
"""Languages of text. Rows of other languages are code."""
AMBIGUOUS_LANGUAGES = frozenset(["", "text"])
"""Of these languages, those whose rows may also be code."""
SCORES = [f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}" for tenth in range(10)]
"""Names of the intervals in which scores are counted."""
SEEDS = Path(__file__).parent / "seeds"
GROUNDING_STAGES = ("prose", "technical", "grounded", "educational")
MIN_WORDS = 20
"""General text with fewer words is dropped."""

CODE_DECAY = 0.003
"""Weight decay of the classifier of code. Without it nearly all scores, which users see, are above 0.95."""

_FENCED = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1[ \t]*$\n?", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t)[^\n]*\n?)+")
_STATEMENT = re.compile(
    r"^\s*(?:(?:def|class|import|from|return|if|for|while|public|private|static|const|let|var|function|func|fn|#include|"
    r"package|using|struct|SELECT|INSERT|CREATE)\b[^\n]*[;:{(=]|"
    r"[^\n]*[;{}]\s*|\$ [^\n]+|>>> [^\n]*|[\w.\[\]]+ = [^\n]+)$",
    re.MULTILINE,
)
_MATHEMATICAL = re.compile(
    r"\\(?:frac|sum|int|sqrt|begin|alpha|cdot|le|ge)\b|\$[^$\n]{1,200}\$|"
    r"[=<>≤≥]\s*-?\d|\d\s*[-+*/×÷^]\s*\d|"
    r"\b(?:theorem|lemma|proof|equation|integral|derivative|probability|polynomial|"
    r"triangle|how many)\b",
    re.IGNORECASE,
)


def _document(row: dict[str, Any], text: str, kind: str) -> dict[str, Any]:
    columns = ("repository", "path", "commit", "license")
    return {name: str(row.get(name) or "") for name in columns} | {
        "text": escape_special_text(text), "language": str(row.get("language") or "text"), "kind": kind
    }  # fmt: skip


def without_code(text: str) -> str:
    """Return the text without code: fenced blocks, indented blocks and lines that look like statements."""
    for pattern in (_FENCED, _INDENTED, _STATEMENT):
        text = pattern.sub("", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _is_prose(row: dict[str, Any]) -> bool:
    return str(row.get("language") or "") in PROSE_LANGUAGES


def _general(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
    documents, left_out, shortened = [], Counter[str](), Counter[str]()
    for row in rows:
        if not _is_prose(row):
            left_out["code"] += 1
            continue
        original = document_text(row)
        text = without_code(original)
        shortened["rows"] += text.strip() != original.strip()
        if len(text.split()) < MIN_WORDS:
            left_out["too_short"] += 1
        else:
            documents.append(_document(row, text, "general"))
    return documents, {"left_out": left_out, "with_code": shortened}


def _math(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
    documents, left_out = [], Counter[str]()
    for row in rows:
        if not _is_prose(row):
            left_out["code"] += 1
            continue
        text = document_text(row)
        if _MATHEMATICAL.search(text) or len(re.findall(r"\d+", text)) >= 3:
            documents.append(_document(row, text, "math"))
        else:
            left_out["not_mathematical"] += 1
    return documents, {"left_out": left_out}


@dataclass(frozen=True)
class _ClassifierStages:
    """Keeps rows that every classifier, applied in turn, gives at least `threshold`."""

    models: dict[str, Classifier]
    threshold: float
    kind: str

    def __call__(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
        zeros = dict.fromkeys(["input", *self.models], 0)
        documents, left_out, survivors, survivor_bytes = [], Counter[str](), Counter(zeros), Counter(zeros)
        scores = Counter(dict.fromkeys(SCORES, 0))
        for row in rows:
            if kind := self._unsuitable(row):
                left_out[kind] += 1
                continue
            text = document_text(row)
            survivors["input"] += 1
            survivor_bytes["input"] += len(text)
            for name, model in self.models.items():
                score = model.score(text)
                scores[SCORES[min(int(10 * score), 9)]] += 1
                if score < self.threshold:
                    break
                survivors[name] += 1
                survivor_bytes[name] += len(text)
            else:
                column = {"quality": round(score, 4)} if self.kind == "code" else {}
                documents.append(_document(row, text, self.kind) | column)
        counts: Counts = {"survivors": survivors, "survivor_bytes": survivor_bytes, "left_out": left_out}
        return documents, counts | ({"scores": scores} if self.kind == "code" else {})

    def _unsuitable(self, row: dict[str, Any]) -> str:
        """`code` or `prose` if a row is not input of these stages, else ""."""
        if self.kind == "grounding":
            return "" if _is_prose(row) else "code"
        return "prose" if _is_prose(row) and str(row.get("language") or "") not in AMBIGUOUS_LANGUAGES else ""


class TextSettings(Decontaminated):
    """Settings of the builders `general` and `math`."""

    inputs: list[Reference]
    """Datasets of documents (`text`), or of questions and answers."""


class GroundingSettings(Decontaminated):
    """Settings of the builder `grounding`."""

    inputs: list[Reference]
    """Datasets of documents (`text`), or of questions and answers."""
    threshold: Share = 0.5
    """A stage keeps a text that it gives at least this probability."""
    seeds: dict[Literal["prose", "technical", "grounded", "educational"], Reference] = Field(default_factory=dict)
    """Your own seed rows (`text`, `label` 1 or 0) by stage."""


class QualitySettings(Decontaminated):
    """Settings of the builder `quality`."""

    inputs: list[Reference]
    """Datasets of code."""
    threshold: Share = 0.5
    """Code is kept that the classifier gives at least this probability; 0 keeps all of it."""
    seeds: dict[Literal["code_quality"], Reference] = Field(default_factory=dict)
    """Your own seed rows (`text`, `label` 1 or 0): `code_quality: FILE`."""


def build_general(settings: TextSettings, context: BuildContext) -> dict[str, Any]:
    """General text without code segments; texts with fewer than 20 words left are dropped and counted."""
    return _build(settings, context, "General text", _general, {})


def build_math(settings: TextSettings, context: BuildContext) -> dict[str, Any]:
    """Mathematical text and solved problems; rows without any sign of mathematics are dropped and counted."""
    return _build(settings, context, "Mathematics", _math, {})


def build_grounding(settings: GroundingSettings, context: BuildContext) -> dict[str, Any]:
    """Text that explains code, filtered by four classifiers in turn.

    The report counts rows and bytes after each stage.
    """
    files = {name: SEEDS / f"{name}.jsonl" for name in GROUNDING_STAGES} | _paths(settings.seeds)
    models = {name: train_from(path) for name, path in files.items()}
    stages = _ClassifierStages(models, settings.threshold, "grounding")
    return _build(settings, context, "Text-code grounding", stages, _card_settings(settings))


def build_quality(settings: QualitySettings, context: BuildContext) -> dict[str, Any]:
    """Well written code, by a weak classifier (stage `code_quality`); its score is the column `quality`.

    It judges by form (`code_form`): commented-out code, code pasted repeatedly, dumped data, meaningless names. The report
    counts all scores by tenths, so that you can choose a threshold for your own code. Prose and markup are left out and
    counted: they are input of the builders `grounding` and `general`.
    """
    files = {"code_quality": SEEDS / "code_quality.jsonl"} | _paths(settings.seeds)
    models = {name: train_from(path, code_form, CODE_DECAY) for name, path in files.items()}
    return _build(
        settings, context, "Good code", _ClassifierStages(models, settings.threshold, "code"), _card_settings(settings)
    )


def _paths(seeds: Mapping[Any, Reference]) -> dict[str, Path]:
    return {str(name): path.path() for name, path in seeds.items()}


def _card_settings(settings: GroundingSettings | QualitySettings) -> dict[str, Any]:
    seeds = {name: path.name for name, path in _paths(settings.seeds).items()}
    return {"threshold": settings.threshold, "seeds": seeds}


def _build(
    settings: TextSettings | GroundingSettings | QualitySettings,
    context: BuildContext,
    title: str,
    prepare: Prepare,
    card: dict[str, Any],
) -> dict[str, Any]:
    inputs = [path.path() for path in settings.inputs]
    return clean_stream(
        row_batches(read_datasets(inputs)),
        context.out,
        title,
        card | {"decontaminate": settings.benchmark_names()},
        kind="document",
        workers=context.workers,
        progress=context.show_progress,
        prepare=prepare,
        report={"sources": lineage(inputs)},
        decontaminator=settings.decontaminator(),
    )

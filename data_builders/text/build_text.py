"""Builders of text for continued pretraining: text-code grounding, mathematics, general text, and good code.

Qwen2.5-Coder filters text-code grounding data in four stages, from coarse to fine, each with a small and fast model
(arXiv 2409.12186, section 3.1). The report does not describe the criteria of these stages. This module uses the stages
`prose` (connected text, not navigation, logs or spam), `technical` (about software), `grounded` (the text explains the
code that it shows) and `educational` (a reader learns something). The classifier of a stage is trained on a small file
of hand-written seed texts in `data_builders/text/seeds/`. The setting `seeds` replaces these files with your own.

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
"""Languages of text rows. Rows in other languages are code."""
AMBIGUOUS_LANGUAGES = frozenset(["", "text"])
"""Values of the column `language` that do not tell whether a row is text or code."""
SCORES = [f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}" for tenth in range(10)]
"""Names of the ten intervals of scores (`0.0 to 0.1` and so on) for which the report counts rows."""
SEEDS = Path(__file__).parent / "seeds"
GROUNDING_STAGES = ("prose", "technical", "grounded", "educational")
MIN_WORDS = 20
"""Minimum number of words of general text. Shorter texts are dropped."""

CODE_DECAY = 0.003
"""Weight decay of the code classifier. Without weight decay, nearly all scores in the report would be above 0.95."""

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
    """Remove code from a text: fenced blocks, indented blocks and lines that look like statements."""
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
    """Callable that applies classifiers in turn, and keeps rows for which every score is at least `threshold`."""

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
        """Return "" if the classifiers can judge a row, else what the row is instead of suitable text: `code` or `prose`."""
        if self.kind == "grounding":
            return "" if _is_prose(row) else "code"
        return "prose" if _is_prose(row) and str(row.get("language") or "") not in AMBIGUOUS_LANGUAGES else ""


class TextSettings(Decontaminated):
    """Settings of the builders `general` and `math`."""

    inputs: list[Reference]
    """Datasets of documents (with the column `text`), or of questions and answers."""


class GroundingSettings(Decontaminated):
    """Settings of the builder `grounding`."""

    inputs: list[Reference]
    """Datasets of documents (with the column `text`), or of questions and answers."""
    threshold: Share = 0.5
    """A stage keeps a text if its classifier gives the text at least this probability."""
    seeds: dict[Literal["prose", "technical", "grounded", "educational"], Reference] = Field(default_factory=dict)
    """Your own seed files, keyed by stage. Each row has `text` and `label` (1 or 0)."""


class QualitySettings(Decontaminated):
    """Settings of the builder `quality`."""

    inputs: list[Reference]
    """Datasets of code to filter."""
    threshold: Share = 0.5
    """Minimum probability that the classifier must give to a row of code. 0 keeps all rows."""
    seeds: dict[Literal["code_quality"], Reference] = Field(default_factory=dict)
    """Your own seed file, as `code_quality: FILE`. Each row has `text` and `label` (1 or 0)."""


def build_general(settings: TextSettings, context: BuildContext) -> dict[str, Any]:
    """Write general text without code. Texts that have fewer than 20 words after removing code are dropped."""
    return _build(settings, context, "General text", _general, {})


def build_math(settings: TextSettings, context: BuildContext) -> dict[str, Any]:
    """Write mathematical text and solved problems. Rows without formulas, mathematical terms or numbers are dropped."""
    return _build(settings, context, "Mathematics", _math, {})


def build_grounding(settings: GroundingSettings, context: BuildContext) -> dict[str, Any]:
    """Write text that explains code, filtered by four classifiers in turn.

    The report counts rows and bytes after each stage.
    """
    files = {name: SEEDS / f"{name}.jsonl" for name in GROUNDING_STAGES} | _paths(settings.seeds)
    models = {name: train_from(path) for name, path in files.items()}
    stages = _ClassifierStages(models, settings.threshold, "grounding")
    return _build(settings, context, "Text-code grounding", stages, _card_settings(settings))


def build_quality(settings: QualitySettings, context: BuildContext) -> dict[str, Any]:
    """Write code to which a simple quality classifier gives a high score. The column `quality` has the score.

    The classifier (stage `code_quality`) judges the form of code (`code_form`): commented-out code, repeatedly pasted
    code, dumped data, meaningless names. The report counts all scores in intervals of 0.1, so that you can choose a
    threshold for your own code. Prose and markup are left out and counted. For prose, use the builders `grounding` and
    `general`.
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
        prepare=prepare,
        report={"sources": lineage(inputs)},
        decontaminator=settings.decontaminator(),
    )

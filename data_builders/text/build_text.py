"""Text for continued pretraining: text-code grounding, mathematics, general text, and a weak filter for code quality.

Qwen2.5-Coder sieves text-code grounding data in four stages, each with a small fast model, from coarse to fine, and
calls surviving a stage a quality label (arXiv 2409.12186, section 3.1). What each stage asks is not disclosed; ours
are: `prose` (is it connected text rather than navigation, logs or spam?), `technical` (is it about software?),
`grounded` (does the text explain code that it shows?) and `educational` (would a reader learn from it?). Each has a
file of seed texts in `data_builders/seeds/`, few and hand-written: replace them with your own
(`seeds={"technical": path}`).

General text loses its code: fenced blocks, indented blocks and lines that look like statements.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.models.formats import escape_special_text
from alignment.rows.row_texts import document_text
from data_builders.cleaning.clean_rows import Counts, Prepare, clean_stream
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.storage.dataset import lineage, read_datasets
from data_builders.storage.parallel import row_batches
from data_builders.text.classifier import Classifier, train_from
from data_builders.text.code_features import code_form

PROSE_LANGUAGES = frozenset(
    ["", "text", "markdown", "restructuredtext", "tex", "html", "rmarkdown", "jupyter-notebook", "literate-agda",
     "literate-coffeescript", "literate-haskell"]
)  # fmt: skip
"""What text is taken from. Rows of other languages are code: they are left out, and counted."""
UNSAID = frozenset(["", "text"])
"""Of these, what may be code as well."""
SCORES = [f"{tenth / 10:.1f} to {(tenth + 1) / 10:.1f}" for tenth in range(10)]
SEEDS = Path(__file__).parent / "seeds"
GROUNDING_STAGES = ("prose", "technical", "grounded", "educational")
MIN_WORDS = 20

CODE_DECAY = 0.003
"""Of the classifier of code, whose scores users see: without it nearly all of them lie above 0.95."""

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
    """The text with its code segments removed and the gaps closed."""
    for pattern in (_FENCED, _INDENTED, _STATEMENT):
        text = pattern.sub("", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _is_prose(row: dict[str, Any]) -> bool:
    return str(row.get("language") or "") in PROSE_LANGUAGES


def _general(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
    made, left_out, shortened = [], Counter[str](), Counter[str]()
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
            made.append(_document(row, text, "general"))
    return made, {"left_out": left_out, "with_code": shortened}


def _math(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
    made, left_out = [], Counter[str]()
    for row in rows:
        if not _is_prose(row):
            left_out["code"] += 1
            continue
        text = document_text(row)
        if _MATHEMATICAL.search(text) or len(re.findall(r"\d+", text)) >= 3:
            made.append(_document(row, text, "math"))
        else:
            left_out["not_mathematical"] += 1
    return made, {"left_out": left_out}


@dataclass(frozen=True)
class _Sieve:
    """Keeps the rows that each classifier in turn gives at least `threshold`."""

    models: dict[str, Classifier]
    threshold: float
    kind: str

    def __call__(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counts]:
        zeros = dict.fromkeys(["input", *self.models], 0)
        made, left_out, survivors, survivor_bytes = [], Counter[str](), Counter(zeros), Counter(zeros)
        scores = Counter(dict.fromkeys(SCORES, 0))
        for row in rows:
            if other := self._other(row):
                left_out[other] += 1
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
                made.append(_document(row, text, self.kind) | column)
        counts: Counts = {"survivors": survivors, "survivor_bytes": survivor_bytes, "left_out": left_out}
        return made, counts | ({"scores": scores} if self.kind == "code" else {})

    def _other(self, row: dict[str, Any]) -> str:
        """What a row is that this sieve does not judge, or ""."""
        if self.kind == "grounding":
            return "" if _is_prose(row) else "code"
        return "prose" if _is_prose(row) and str(row.get("language") or "") not in UNSAID else ""


def _build(
    inputs: Sequence[Path],
    out: Path,
    title: str,
    prepare: Prepare,
    settings: dict[str, Any],
    decontaminate: Sequence[Path],
    workers: int,
    progress: bool | None,
) -> dict[str, Any]:
    settings["decontaminate"] = [Path(path).name for path in decontaminate]
    return clean_stream(
        row_batches(read_datasets(inputs)),
        Path(out),
        title,
        settings,
        kind="document",
        workers=workers,
        progress=progress,
        prepare=prepare,
        report={"sources": lineage(inputs)},
        decontaminator=Decontaminator.from_paths(decontaminate) if decontaminate else None,
    )


def build_general(
    inputs: Sequence[Path],
    out: Path,
    *,
    decontaminate: Sequence[Path] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """General text without code segments; what is left with fewer than 20 words is dropped and counted.

    Args:
        inputs: datasets of documents (`text`), or of questions and answers.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    return _build(inputs, out, "General text", _general, {}, decontaminate, workers, progress)


def build_math(
    inputs: Sequence[Path],
    out: Path,
    *,
    decontaminate: Sequence[Path] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Mathematical text and solved problems; rows without any sign of mathematics are dropped and counted.

    Args:
        inputs: datasets of documents (`text`), or of questions and answers.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    return _build(inputs, out, "Mathematics", _math, {}, decontaminate, workers, progress)


def build_grounding(
    inputs: Sequence[Path],
    out: Path,
    *,
    threshold: float = 0.5,
    seeds: Mapping[str, Path] | None = None,
    decontaminate: Sequence[Path] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Text that explains code, through four classifiers in turn; the report counts rows and bytes after each stage.

    Args:
        inputs: datasets of documents (`text`), or of questions and answers.
        threshold: the probability, between 0 and 1, from which a stage keeps a text.
        seeds: your own seed rows (`text`, `label` 1 or 0) by stage: prose, technical, grounded, educational.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    return _sieve(
        GROUNDING_STAGES,
        "grounding",
        "Text-code grounding",
        inputs,
        out,
        threshold,
        seeds,
        decontaminate,
        workers,
        progress,
    )


def build_quality(
    inputs: Sequence[Path],
    out: Path,
    *,
    threshold: float = 0.5,
    seeds: Mapping[str, Path] | None = None,
    decontaminate: Sequence[Path] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Code that a weak classifier (stage `code_quality`) takes for well written; its score is the column `quality`.

    It judges by form (`code_form`): code that is commented out, pasted again and again, dumped data, names without meaning.
    The report counts all scores by tenths, so that a threshold can be chosen for one's own code; 0 keeps all of it. Prose
    and mark-up are left out, and counted: they are the matter of `build_grounding` and `build_general`.

    Args:
        inputs: datasets of code.
        threshold: the probability, between 0 and 1, from which code is kept.
        seeds: your own seed rows (`text`, `label` 1 or 0): `code_quality: FILE`.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    return _sieve(
        ("code_quality",), "code", "Good code", inputs, out, threshold, seeds, decontaminate, workers, progress
    )


def _sieve(
    stages: Sequence[str],
    kind: str,
    title: str,
    inputs: Sequence[Path],
    out: Path,
    threshold: float,
    seeds: Mapping[str, Path] | None,
    decontaminate: Sequence[Path],
    workers: int,
    progress: bool | None,
) -> dict[str, Any]:
    for name in seeds or {}:
        if name not in stages:
            raise ValueError(f"no stage {name!r}; known: {', '.join(stages)}")
    own = {name: Path((seeds or {}).get(name, SEEDS / f"{name}.jsonl")) for name in stages}
    models = {
        name: train_from(path, code_form, CODE_DECAY) if kind == "code" else train_from(path)
        for name, path in own.items()
    }
    settings = {"threshold": threshold, "seeds": {name: Path(path).name for name, path in (seeds or {}).items()}}
    return _build(inputs, out, title, _Sieve(models, threshold, kind), settings, decontaminate, workers, progress)

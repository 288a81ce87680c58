"""Writes a summary of the training content, in the sections of the AI Office's template for Article 53(1)(d) of the EU AI
Act.

The summary covers what this toolkit trained, not what the base model had learned before. Facts that the artifacts do
not record are marked as to be completed by the provider. The template's sections are kept; the words are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from alignment.provenance.card_sections import counts_text, table
from alignment.provenance.model_facts import DatasetFacts, ModelFacts

TO_COMPLETE = "*to be completed by the provider*"
_SYNTHETIC = ("preferences", "synthetic")
_USER_DATA = ("feedback",)
_SIZES = ((1_000_000_000, "less than 1 billion tokens"), (10_000_000_000_000, "1 billion to 10 trillion tokens"))


def training_content(facts: ModelFacts) -> str:
    """Return the summary as Markdown."""
    parts = [_general(facts), _sources(facts), _processing(facts)]
    return "\n".join(line for part in parts for line in part)


def _general(facts: ModelFacts) -> Iterator[str]:
    yield from (f"# Summary of the training content of {facts.name}", "")
    yield from (
        "Sections follow the template of the European Commission's AI Office for the public summary of training content of "
        "general-purpose AI models. The summary covers the training that this recipe did; for what the base model learned "
        "before, see the summary of its provider.",
        "",
    )
    yield from ("## 1. General information", "", "### 1.1 Provider", "")
    yield from (f"- Provider and contact: {TO_COMPLETE}", f"- Authorised representative, if any: {TO_COMPLETE}", "")
    yield from ("### 1.2 Model", "")
    yield f"- Name and version: {facts.name}, fingerprint `{facts.fingerprint[:12]}`"
    yield f"- Made by modifying: {facts.base or TO_COMPLETE}"
    yield f"- Licence of the model: {facts.license or TO_COMPLETE}"
    yield from (f"- Date on which the model is placed on the market: {TO_COMPLETE}", "")
    yield from ("### 1.3 Modalities, size and characteristics of the training data", "")
    yield "- Modality: text (source code and natural language). No images, audio or video."
    tokens = [item.tokens for item in facts.training if item.tokens is not None]
    yield (
        f"- Size: {_size(sum(tokens))} ({sum(tokens):,} tokens were trained on)" if tokens else f"- Size: {TO_COMPLETE}"
    )
    if dates := sorted(item.finished for item in facts.datasets if item.finished):
        yield f"- Latest date on which training data was collected: {dates[-1]}. The model is not trained continuously."
    if languages := _sum(item.languages for item in facts.datasets):
        yield f"- Programming and markup languages (rows): {counts_text(languages)}"
    yield from (f"- Natural languages: {TO_COMPLETE} (comments and documentation of the sources)", "")


def _size(tokens: int) -> str:
    return next((text for limit, text in _SIZES if tokens < limit), "more than 10 trillion tokens")


def _sources(facts: ModelFacts) -> Iterator[str]:
    own = [item for item in facts.datasets if item.builder and item.builder not in (*_SYNTHETIC, *_USER_DATA)]
    outside = [item for item in facts.datasets if not item.builder]
    yield from ("## 2. Data sources", "", "### 2.1 Publicly available datasets", "")
    yield from _datasets([item for item in outside if item.title == "dataset on the hub"])
    yield from ("### 2.2 Datasets that are not public, from third parties", "")
    yield from _datasets([item for item in outside if item.title != "dataset on the hub"], note=(
        f"Licensed by rightsholders, or obtained otherwise (also files of the provider's own): {TO_COMPLETE}"
    ))  # fmt: skip
    yield from ("### 2.3 Data crawled and scraped from online sources", "", "This toolkit has no crawler.", "")
    yield from ("### 2.4 User data", "")
    yield from _datasets([item for item in facts.datasets if item.builder in _USER_DATA])
    yield from ("### 2.5 Synthetic data", "")
    yield from _datasets([item for item in facts.datasets if item.builder in _SYNTHETIC])
    yield from ("### 2.6 Other sources: repositories of source code", "")
    yield from _datasets(own)
    origins = [origin for origin in facts.lineage.repositories() if origin.role == "learned"]
    if origins:
        rows = [(origin.name, origin.commit or "folder without history", origin.license) for origin in origins]
        yield from table(("Repository", "Commit", "Declared licence"), list(dict.fromkeys(rows)))
        yield from (f"Which of these are the provider's own, and where the others were obtained: {TO_COMPLETE}", "")


def _datasets(datasets: Sequence[DatasetFacts], note: str = "") -> Iterator[str]:
    if not datasets:
        yield from ("None.", "")
        return
    rows = [
        (item.name, item.builder or item.title, item.rows, counts_text(item.licenses), item.finished)
        for item in datasets
    ]
    yield from table(("Dataset", "Made by", "Rows", "Licences (rows)", "Made on"), rows)
    if note:
        yield from (note, "")


def _processing(facts: ModelFacts) -> Iterator[str]:
    yield from ("## 3. Processing of the data", "", "### 3.1 Reservations of rights (text and data mining)", "")
    if licenses := _sum(item.licenses for item in facts.datasets):
        yield from (
            f"Licences were read from the repositories, or declared in the recipe (rows): {counts_text(licenses)}.",
            "",
        )
    yield from (f"Measures to respect reservations of rights: {TO_COMPLETE}", "")
    yield from ("### 3.2 Removal of illegal and unwanted content", "")
    if redacted := _sum(item.redacted for item in facts.datasets):
        yield f"- Secrets and personal data that were replaced: {counts_text(redacted)}"
    if removed := _sum(item.removed for item in facts.datasets):
        yield f"- Files and rows that were removed, by reason: {counts_text(removed)}"
    if contaminated := sum(item.contaminated for item in facts.training):
        yield f"- Training rows that were removed because they share text with a benchmark: {contaminated:,}"
    yield from (f"- Other measures against illegal content: {TO_COMPLETE}", "")
    yield from ("### 3.3 Other information", "")
    rows = [(item.stage, item.kind, item.tokens, item.steps) for item in facts.training]
    yield from table(("Training stage", "Kind", "Tokens", "Steps"), rows) if rows else ("None.", "")


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in counts:
        for name, count in entry.items():
            total[name] = total.get(name, 0) + count
    return total

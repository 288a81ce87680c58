"""Builder `fim`: cut a share of the documents into prefix, middle and suffix for fill-in-the-middle training.

Documents are cut before packing. The defaults are DeepSeek-Coder's: half of the documents, in prefix-suffix-middle
order. The rate of Qwen2.5-Coder is not published. The cut of a file depends only on the seed and the file, not on the
other files.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from alignment.models.formats import FimMode, escape_special_text, fim_document
from alignment.progress import Progress
from alignment.settings import Reference, Settings, Share
from data_builders.builder import BuildContext
from data_builders.parsing.syntax_spans import random_span, syntax_span
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import ordered_map, row_batches


class FimSettings(Settings):
    """Settings for cutting files into fill-in-the-middle documents."""

    rate: Share = 0.5
    """Share of the documents that are cut. The other documents stay unchanged."""
    syntax_rate: Share = 0.5
    """Share of the cut documents whose middle is a node of the syntax tree. Other middles are random spans."""
    spm_rate: Share = 0.0
    """Share of the cut documents in suffix-prefix-middle order. The others are in prefix-suffix-middle order."""


class FimDocumentsSettings(Settings):
    """Settings of the builder `fim`."""

    inputs: list[Reference]
    """Datasets of documents to cut."""
    fim: FimSettings = FimSettings()
    """Settings that decide how many documents are cut, and at which places."""


@dataclass(frozen=True)
class FimCut:
    """A file cut into prefix, middle and suffix.

    `mode` is the order of the three parts. `span` is the method that chose the middle.
    """

    prefix: str
    middle: str
    suffix: str
    mode: FimMode
    span: Literal["random", "syntax"]


def row_random(row: dict[str, Any], seed: int, purpose: str) -> random.Random:
    """Return a random generator for one row. Its seed is a hash of the row's file and text, `seed` and `purpose`."""
    name = "\0".join([str(seed), purpose, *(str(row.get(key) or "") for key in ("repository", "path", "commit"))])
    digest = hashlib.blake2b(
        name.encode("utf-8", "surrogatepass") + b"\0" + str(row["text"]).encode("utf-8", "surrogatepass")
    )
    return random.Random(int.from_bytes(digest.digest()[:8], "big"))


def cut_document(row: dict[str, Any], settings: FimSettings, seed: int) -> FimCut | None:
    """Cut a document into prefix, middle and suffix.

    Return None for a document that is too short, or that is not drawn for cutting (see `FimSettings.rate`).
    """
    rng = row_random(row, seed, "fim")
    if rng.random() >= settings.rate:
        return None
    # Escape before cutting: SPM order joins prefix and middle again, which could otherwise form a special token.
    text = escape_special_text(str(row["text"]))
    mode: FimMode = "spm" if rng.random() < settings.spm_rate else "psm"
    middle = None
    span: Literal["random", "syntax"] = "random"
    if rng.random() < settings.syntax_rate and (middle := syntax_span(text, str(row.get("language") or ""), rng)):
        span = "syntax"
    middle = middle or random_span(text, rng)
    if middle is None:
        return None
    start, end = middle
    return FimCut(text[:start], text[start:end], text[end:], mode, span)


def fim_row(row: dict[str, Any], settings: FimSettings, seed: int) -> dict[str, Any]:
    """Return a copy of a row in which the text is cut and written with special tokens.

    The new column `format` is `fim-MODE-SPAN`, or `plain` if the text is not cut.
    """
    cut = cut_document(row, settings, seed)
    if cut is None:
        return row | {"text": escape_special_text(str(row["text"])), "format": "plain"}
    text = fim_document(cut.prefix, cut.middle, cut.suffix, cut.mode)
    return row | {"text": text, "format": f"fim-{cut.mode}-{cut.span}"}


def _fim_batch(state: tuple[FimSettings, int], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settings, seed = state
    return [fim_row(row, settings, seed) for row in rows]


def build_fim(settings: FimDocumentsSettings, context: BuildContext) -> dict[str, Any]:
    """Cut a share of the documents for fill-in-the-middle, and write all documents as text for other trainers.

    The training stages of a recipe do not read these rows. They read an uncut corpus and cut it (setting `fim`).
    """
    inputs = [path.path() for path in settings.inputs]
    writer = DatasetWriter(context.out, "document", {"format": pa.string()})
    counts: Counter[str] = Counter()
    progress = Progress("fill-in-the-middle", unit="rows")
    batches = ordered_map(
        _fim_batch,
        row_batches(read_datasets(inputs)),
        argument=(settings.fim, context.seed),
        workers=context.workers,
    )
    for rows in batches:
        for row in rows:
            counts[row["format"]] += 1
            writer.write(row)
        progress.advance(len(rows))
    report = {"sources": lineage(inputs), "formats": dict(sorted(counts.items()))}
    used = {"fim": settings.fim.model_dump(), "seed": context.seed}
    return writer.finish("Fill-in-the-middle documents", used, report)

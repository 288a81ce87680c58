"""Builder `fim`: documents of which a share is cut in three for fill-in-the-middle, before any packing.

The defaults are DeepSeek-Coder's: a rate of 0.5 per document, and PSM order; Qwen2.5-Coder does not disclose its own.
How a file is cut depends on the seed and the file alone, not on the order or the number of files.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from alignment.models.formats import FimMode, escape_special_text, fim_document
from alignment.settings import Reference, Settings, Share
from data_builders.builder import BuildContext
from data_builders.parsing.syntax_spans import random_span, syntax_span
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import Progress, ordered_map, row_batches


class FimSettings(Settings):
    """How files become fill-in-the-middle documents."""

    rate: Share = 0.5
    """Share of the documents that are cut; the others stay plain."""
    syntax_rate: Share = 0.5
    """Share of the cut documents whose middle is a node of the syntax tree; the others are cut at random characters."""
    spm_rate: Share = 0.0
    """Share of the cut documents in suffix-prefix-middle order."""


class FimDocumentsSettings(Settings):
    """Settings of the builder `fim`."""

    inputs: list[Reference]
    """Datasets of documents."""
    fim: FimSettings = FimSettings()
    """How many documents are cut, and how."""


@dataclass(frozen=True)
class FimCut:
    """One file cut in three; `span` says how the middle was chosen."""

    prefix: str
    middle: str
    suffix: str
    mode: FimMode
    span: Literal["random", "syntax"]


def row_random(row: dict[str, Any], seed: int, purpose: str) -> random.Random:
    """A random generator that depends on the file, the seed and the purpose only."""
    name = "\0".join([str(seed), purpose, *(str(row.get(key) or "") for key in ("repository", "path", "commit"))])
    digest = hashlib.blake2b(
        name.encode("utf-8", "surrogatepass") + b"\0" + str(row["text"]).encode("utf-8", "surrogatepass")
    )
    return random.Random(int.from_bytes(digest.digest()[:8], "big"))


def cut_document(row: dict[str, Any], settings: FimSettings, seed: int) -> FimCut | None:
    """The document cut in three, or None if it was not drawn for cutting or is too short."""
    rng = row_random(row, seed, "fim")
    if rng.random() >= settings.rate:
        return None
    # Escape before cutting: in SPM order prefix and middle are joined again, and must not form a special token there.
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
    """The row with its text as a model reads it; the column `format` is `plain` or `fim-MODE-SPAN`."""
    cut = cut_document(row, settings, seed)
    if cut is None:
        return row | {"text": escape_special_text(str(row["text"])), "format": "plain"}
    text = fim_document(cut.prefix, cut.middle, cut.suffix, cut.mode)
    return row | {"text": text, "format": f"fim-{cut.mode}-{cut.span}"}


def _fim_batch(state: tuple[FimSettings, int], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settings, seed = state
    return [fim_row(row, settings, seed) for row in rows]


def build_fim(settings: FimDocumentsSettings, context: BuildContext) -> dict[str, Any]:
    """Documents of which a share is cut for fill-in-the-middle, as text with special tokens, for other trainers.

    The stages of a recipe cut documents themselves (`fim:`): they read a corpus as it is, and refuse these rows.
    """
    inputs = [path.path() for path in settings.inputs]
    writer = DatasetWriter(context.out, "document", {"format": pa.string()})
    counts: Counter[str] = Counter()
    progress = Progress("fill-in-the-middle", 0, context.show_progress)
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

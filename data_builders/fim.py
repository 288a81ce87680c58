"""Fill-in-the-middle documents: a share of the files of a corpus, cut in three, before any packing.

DeepSeek-Coder's rate of 0.5 per document and PSM are the defaults; Qwen2.5-Coder does not disclose its own. The
choice for a file depends on the seed and the file alone, not on the order or the number of files.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from alignment.models.formats import FimMode, escape_special_text, fim_document
from data_builders.parsing.syntax_spans import random_span, syntax_span
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import Progress, ordered_map, row_batches
from data_builders.storage.settings import from_mapping


@dataclass(frozen=True)
class FimSettings:
    """How files become fill-in-the-middle documents; all rates are between 0 and 1."""

    rate: float = 0.5
    """Share of the documents that are cut; the others stay plain."""
    syntax_rate: float = 0.5
    """Share of the cut documents whose middle is a node of the syntax tree; the others are cut at random characters."""
    spm_rate: float = 0.0
    """Share of the cut documents in suffix-prefix-middle order."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {value}")


@dataclass(frozen=True)
class Cut:
    """One file cut in three; `span` is `random` or `syntax`."""

    prefix: str
    middle: str
    suffix: str
    mode: FimMode
    span: Literal["random", "syntax"]


def row_random(row: dict[str, Any], seed: int, purpose: str) -> random.Random:
    """A generator that depends on the file and the seed only."""
    name = "\0".join([str(seed), purpose, *(str(row.get(key) or "") for key in ("repository", "path", "commit"))])
    digest = hashlib.blake2b(
        name.encode("utf-8", "surrogatepass") + b"\0" + str(row["text"]).encode("utf-8", "surrogatepass")
    )
    return random.Random(int.from_bytes(digest.digest()[:8], "big"))


def cut(row: dict[str, Any], settings: FimSettings, seed: int) -> Cut | None:
    """Cut a document, or None where the draw says that it stays plain (or it is too short to cut)."""
    rng = row_random(row, seed, "fim")
    if rng.random() >= settings.rate:
        return None
    # Escaped before it is cut: in SPM order prefix and middle are joined again, and no token may form there.
    text = escape_special_text(str(row["text"]))
    mode: FimMode = "spm" if rng.random() < settings.spm_rate else "psm"
    found = None
    span: Literal["random", "syntax"] = "random"
    if rng.random() < settings.syntax_rate and (found := syntax_span(text, str(row.get("language") or ""), rng)):
        span = "syntax"
    found = found or random_span(text, rng)
    if found is None:
        return None
    start, end = found
    return Cut(text[:start], text[start:end], text[end:], mode, span)


def fim_row(row: dict[str, Any], settings: FimSettings, seed: int) -> dict[str, Any]:
    """The row with its text as the model will read it; `format` says which form it took."""
    made = cut(row, settings, seed)
    if made is None:
        return row | {"text": escape_special_text(str(row["text"])), "format": "plain"}
    text = fim_document(made.prefix, made.middle, made.suffix, made.mode)
    return row | {"text": text, "format": f"fim-{made.mode}-{made.span}"}


def _fim_batch(state: tuple[FimSettings, int], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settings, seed = state
    return [fim_row(row, settings, seed) for row in rows]


def build_fim(
    inputs: Sequence[Path],
    out: Path,
    *,
    fim: FimSettings | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Write documents with a share cut for fill-in-the-middle, as text with its special tokens, for other trainers.

    The stages of a recipe cut documents themselves (`fim:`): they take a corpus as it is, and refuse these rows.

    Args:
        inputs: datasets of documents.
        fim: how many documents are cut, and how.
    """
    chosen = from_mapping(FimSettings, fim)
    writer = DatasetWriter(Path(out), "document", {"format": pa.string()})
    counts: Counter[str] = Counter()
    shown = Progress("fill-in-the-middle", 0, progress)
    for made in ordered_map(_fim_batch, row_batches(read_datasets(inputs)), argument=(chosen, seed), workers=workers):
        for row in made:
            counts[row["format"]] += 1
            writer.write(row)
        shown.advance(len(made))
    report = {"sources": lineage(inputs), "formats": dict(sorted(counts.items()))}
    return writer.finish("Fill-in-the-middle documents", {"fim": asdict(chosen), "seed": seed}, report)

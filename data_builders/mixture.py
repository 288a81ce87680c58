"""Builder `mixture`: mix datasets so that each has a given share of the tokens, reproducibly.

Qwen2.5-Coder's best mixture on average is 70% code, 20% text and 10% math (arXiv 2409.12186, table 3). Rows are drawn
without repetition in a seeded random order. The last rows of each part are chosen by length, so that every share is
met within `tolerance`. Token counts are saved in `out/lengths/`, so that an interrupted build does not count again.
"""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BeforeValidator, Field

from alignment.files import write_text
from alignment.progress import Progress
from alignment.rows import reading as row_files
from alignment.rows.kinds import kind_of
from alignment.rows.row_texts import document_text
from alignment.settings import Positive, Reference, Settings, Share
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_rows import extra_columns
from data_builders.storage.dataset import DatasetWriter, lineage
from data_builders.storage.parallel import ordered_map, row_batches
from data_builders.storage.staging import RowStore
from data_builders.storage.token_counts import TokenCounter, token_counter


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class MixturePart(Settings):
    """One part of a mixture."""

    path: Annotated[
        list[Reference],
        BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
        Field(min_length=1),
    ]
    """A dataset, or a list of datasets to treat as one dataset."""
    share: Annotated[float, Field(gt=0)]
    """Share of the part in the tokens. The shares of all parts are scaled so that they add up to 1."""
    repeat: Annotated[float, Field(gt=0)] = 1.0
    """Maximum number of times that each row may be used."""

    def paths(self) -> list[Path]:
        """Return the paths of the part's datasets."""
        return [reference.path() for reference in self.path]


class MixtureSettings(Settings):
    """Settings of the builder `mixture`."""

    parts: Annotated[dict[str, MixturePart], Field(min_length=1)]
    """The parts of the mixture, keyed by name: `{code: {path: corpus, share: 0.7}, ...}`."""
    tokens: Positive | None = None
    """Total number of tokens of the mixture. By default, the largest total for which every part has enough tokens."""
    tokenizer: Reference | None = None
    """Folder with `tokenizer.json`. Without a tokenizer, the number of tokens is estimated as bytes / 3."""
    tolerance: Share = 0.005
    """Largest allowed difference between the requested share of a part and its actual share."""


@dataclass(frozen=True)
class _Selection:
    """The rows that were drawn from each part. All mappings are keyed by the name of the part."""

    shares: dict[str, float]
    """The requested shares, which add up to 1."""
    lengths: dict[str, array[int]]
    """Number of tokens of each row, for each part."""
    rows: dict[str, list[int]]
    """Indices of the rows that were drawn from each part."""

    def tokens(self) -> dict[str, int]:
        return {name: sum(self.lengths[name][index] for index in rows) for name, rows in self.rows.items()}

    def shuffled(self, seed: int) -> list[tuple[str, int]]:
        """Return (name of the part, index of the row) of all drawn rows, in random order."""
        order = [(name, index) for name, rows in self.rows.items() for index in rows]
        random.Random(f"{seed} order").shuffle(order)
        return order


def build_mixture(settings: MixtureSettings, context: BuildContext) -> dict[str, Any]:
    """Mix datasets of documents so that each has the requested share of the tokens.

    Raises:
        ValueError: a part has too few tokens, or its rows are too long to meet its share within the tolerance.
    """
    tokenizer = settings.tokenizer.path() if settings.tokenizer is not None else None
    counter = token_counter(tokenizer)  # raises an error for a wrong path before worker processes start
    lengths = {name: _lengths(name, part.paths(), tokenizer, context) for name, part in settings.parts.items()}
    selection = _select(settings, lengths, context.seed)
    _check_shares(selection, settings.tolerance)
    used = {
        "parts": {
            name: {"path": [path.name for path in part.paths()], "share": part.share, "repeat": part.repeat}
            for name, part in settings.parts.items()
        },
        "tokens": settings.tokens, "tokenizer": tokenizer.name if tokenizer else None,
        "tolerance": settings.tolerance, "seed": context.seed,
    }  # fmt: skip
    return _write(settings.parts, selection, context, used, counter.exact)


def _select(settings: MixtureSettings, lengths: dict[str, array[int]], seed: int) -> _Selection:
    """Draw rows from each part until the part has its share of the tokens."""
    parts = settings.parts
    total_weight = sum(part.share for part in parts.values())
    shares = {name: part.share / total_weight for name, part in parts.items()}
    available = {name: sum(counts) * parts[name].repeat for name, counts in lengths.items()}
    scarcest = min(shares, key=lambda name: available[name] / shares[name])
    most = int(available[scarcest] / shares[scarcest])
    if settings.tokens is not None and settings.tokens > most * (1 + settings.tolerance):
        raise ValueError(
            f"{settings.tokens:,} tokens can't be mixed: {scarcest!r} has {int(available[scarcest]):,} tokens for a share "
            f"of {shares[scarcest]:.3f}, enough for {most:,} tokens of the mixture. Lower `tokens`, add data to this "
            "part, or raise its `repeat`."
        )
    total = min(settings.tokens, most) if settings.tokens is not None else most
    rows = {
        name: _choose(counts, round(total * shares[name]), parts[name].repeat, random.Random(f"{seed} {name}"))
        for name, counts in lengths.items()
    }
    return _Selection(shares, lengths, rows)


def _count(counter: TokenCounter, rows: list[dict[str, Any]]) -> list[int]:
    return counter.count([document_text(row) for row in rows])


def _lengths(name: str, paths: Sequence[Path], tokenizer: Path | None, context: BuildContext) -> array[int]:
    """Count the tokens of each row of a part.

    The counts are saved in the output folder, so that a later build in this folder reuses them.

    The file name of saved counts is a hash of the tokenizer's path and the rows.
    """
    key = hashlib.sha256(str(tokenizer).encode())
    for path in paths:
        for file in row_files.files(path):
            with file.open("rb") as stream:
                key.update(hashlib.file_digest(stream, "sha256").digest())
    cache = context.out / "lengths" / f"{key.hexdigest()[:16]}.json"
    if cache.exists():
        return array("Q", json.loads(cache.read_text()))
    lengths = array("Q")
    progress = Progress(f"counting tokens of {name}", unit="rows")
    for path in paths:
        batches = ordered_map(
            _count,
            row_batches(row_files.read(path)),
            initial=token_counter,
            argument=tokenizer,
            workers=context.workers,
        )
        for counts in batches:
            lengths.extend(counts)
            progress.advance(len(counts))
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_text(cache, json.dumps(list(lengths)))
    return lengths


def _choose(lengths: Sequence[int], target: int, repeat: float, rng: random.Random) -> list[int]:
    """Return indices of rows, in random order, whose lengths add up to about `target`.

    The rows are shuffled, and each row that still fits is taken. At the end, the shortest row that did not fit is added
    if this brings the sum nearer to the target.
    """
    chosen: list[int] = []
    missing = target
    passes = max(1, int(repeat) + (repeat % 1 > 0))
    shortest_left_out: tuple[int, int] | None = None
    for _ in range(passes):
        order = list(range(len(lengths)))
        rng.shuffle(order)
        for index in order:
            if lengths[index] <= missing:
                chosen.append(index)
                missing -= lengths[index]
            elif shortest_left_out is None or lengths[index] < shortest_left_out[0]:
                shortest_left_out = (lengths[index], index)
            if not missing:
                return chosen
    if shortest_left_out and shortest_left_out[0] - missing < missing:
        chosen.append(shortest_left_out[1])
    return chosen


def _check_shares(selection: _Selection, tolerance: float) -> None:
    tokens = selection.tokens()
    total = sum(tokens.values())
    for name, share in selection.shares.items():
        difference = abs(tokens[name] / total - share) if total else 1.0
        if difference > tolerance:
            raise ValueError(
                f"the share of {name!r} would be {tokens[name] / max(total, 1):.4f} instead of {share:.4f}: its rows are "
                f"too few or too long to meet it within {tolerance}. Use more or shorter rows, or a larger `tolerance`."
            )


def _write(
    parts: Mapping[str, MixturePart], selection: _Selection, context: BuildContext, used: dict[str, Any], exact: bool
) -> dict[str, Any]:
    """Copy all rows to a temporary store, then write the drawn rows in random order to the dataset."""
    first: dict[str, int] = {}
    extra: dict[str, pa.DataType] = {}
    with RowStore(context.out / "rows.tmp") as store:
        for name, part in parts.items():
            first[name] = len(store)
            for path in part.paths():
                for row in row_files.read(path):
                    if kind_of(row) != "document":
                        raise ValueError(f"part {name!r} holds {kind_of(row)} rows; a mixture is made of documents")
                    if row.keys() - extra.keys() - {"text"}:
                        columns = extra_columns("document", row)
                        extra |= {column: type_ for column, type_ in columns.items() if column not in extra}
                    store.append(row)
        writer = DatasetWriter(context.out, "document", extra | {"part": pa.string(), "tokens": pa.int64()})
        for name, index in selection.shuffled(context.seed):
            writer.write(store[first[name] + index] | {"part": name, "tokens": selection.lengths[name][index]})
    tokens = selection.tokens()
    total = sum(tokens.values())
    report = {
        "sources": [f"{name}: {origin}" for name, part in parts.items() for origin in lineage(part.paths())],
        "tokens": total, "exact_lengths": exact,
        "part_tokens": tokens,
        "part_shares": {name: round(count / total, 6) if total else 0.0 for name, count in tokens.items()},
        "asked_shares": {name: round(share, 6) for name, share in selection.shares.items()},
    }  # fmt: skip
    return writer.finish("Mixture", used, report)

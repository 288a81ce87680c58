"""Prepare a stage's rows once: rank 0 tokenizes, mixes, shuffles and packs, and all ranks read the result from disk.

The other ranks wait for rank 0 outside of collectives, so that no timeout applies; they watch a heartbeat file to
notice if rank 0 has died. Rows that are dropped, split or masked are counted and reported.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from alignment.files import write_json
from alignment.logs import get_logger
from alignment.models import formats
from alignment.models.formats import IGNORED
from alignment.models.model_family import family_of
from alignment.processes import heartbeat, wait_for
from alignment.recipe.schema import DataSource
from alignment.recipe.stage_request import NO_TARGETS, ScreenTargets, StageRequest
from alignment.tokenization.fim_figures import FimFigures, summarize
from alignment.tokenization.fim_windows import FimWindows, TokenSample
from alignment.tokenization.packing import pack
from alignment.tokenization.screen import REPORT, ContaminationScreen
from alignment.tokenization.segments import PROBES, Segment, TokenizationRules, row_segments
from data_builders.storage.parallel import batched

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

logger = get_logger(__name__)

PROBES_FILE = "probes.json"  # read by alignment.models.contract
_ROWS_PER_CALL = 512
"""Number of rows that are tokenized with one call of the tokenizer."""

EPOCHS = 8
"""Largest number of epochs with different rows, to limit the space on disk. Later epochs repeat these rows."""


class _Sample(NamedTuple):
    """One sample of the training set."""

    ids: list[int]
    labels: list[int]
    """One label per token: the token's id, or `formats.IGNORED`."""
    middle: int
    """Number of tokens in the middle of a FIM sample. 0 for a sample that is not FIM, or that is a piece of a FIM
    sample."""


def prepare_once(request: StageRequest, prepare: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Run `prepare` on rank 0, unless an earlier run has prepared the same rows with the same rules.

    If `prepare` writes `probes.json` (prompts for the check that answers end) or a contamination report, the file is
    copied to the artifact.

    Args:
        request: the request to run the stage.
        prepare: function that writes the training set to a given folder, and returns counts for the artifact.

    Returns:
        The folder with the training set, and the counts, on every rank.
    """
    folder = request.prepared or request.out / "prepared"
    done = folder / "counts.json"
    pulse = request.out / "preparing"
    if request.rank != 0:
        wait_for(done.is_file, pulse, "prepare the data")
        return folder, json.loads(done.read_text())
    if done.is_file():
        logger.info("      using the rows that an earlier run prepared")
    else:
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.mkdir(parents=True)
        with heartbeat(pulse):
            counts = prepare(temporary)
            write_json(temporary / "counts.json", counts)
            temporary.replace(folder)
    for name in (PROBES_FILE, REPORT):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, request.out / name)
    return folder, json.loads(done.read_text())


def write_training_rows(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenizationRules,
    seed: int,
    folder: Path,
    targets: ScreenTargets = NO_TARGETS,
    epochs_for: Callable[[int], int] = lambda rows: 1,
) -> dict[str, Any]:
    """Write the training set of documents and conversations to `folder/train`.

    With context-level FIM, the training set has different rows for each epoch; see
    `alignment.tokenization.epoch_order`.

    Args:
        sources: the stage's `data:` entries, with absolute paths.
        tokenizer: the stage's tokenizer.
        rules: how rows become samples.
        seed: seed of FIM cuts, shares, order and packing.
        folder: output folder. It also gets prompts for the check that answers end, and the contamination report.
        targets: benchmarks and files that training rows must share no text with.
        epochs_for: function that takes the number of rows of one epoch and returns for how many epochs the stage
            trains.

    Returns:
        Counts for the artifact: rows by source, samples, tokens, packed rows, and removed rows. With several epochs,
        the counts by source are counts of the first epoch, and all other counts are averages over epochs.

    Raises:
        ValueError: a row is malformed, or no row is left.
    """
    from datasets import concatenate_datasets

    probes: list[str] = []
    screen = ContaminationScreen.for_targets(targets, folder)
    first = _prepare_epoch(sources, tokenizer, rules, seed, folder, screen, probes, 0)
    epochs = [first]
    if first.figures.samples and rules.context_fim is not None:
        for number in range(1, min(epochs_for(len(first.rows)), EPOCHS)):
            epochs.append(_prepare_epoch(sources, tokenizer, rules, seed, folder, screen, [], number))
    # Epochs differ by a few rows: all get as many as the shortest has, since the trainer counts steps with one number.
    size = min(len(epoch.rows) for epoch in epochs)
    rows = first.rows
    if len(epochs) > 1:
        rows = concatenate_datasets([epoch.rows.select(range(size)) for epoch in epochs])
    rows.save_to_disk(folder / "train")
    for number in range(len(epochs)):
        shutil.rmtree(folder / f"epoch-{number}")
    if probes:
        write_probes(probes, folder)
    totals: dict[str, Any] = {
        "samples": round(sum(epoch.samples for epoch in epochs) / len(epochs)),
        "tokens": round(sum(epoch.tokens for epoch in epochs) / len(epochs)),
    }
    if rules.packing:
        totals["packed"] = size
        available = sum(len(epoch.rows) for epoch in epochs) * rules.max_length
        tokens = sum(epoch.tokens for epoch in epochs)
        totals["packing_efficiency"] = round(tokens / available, 4)  # share that is not padding
    if len(epochs) > 1:
        totals["epochs"] = len(epochs)
    counts = sum((Counter(source) for source in first.by_source.values()), Counter[str]())
    fim = summarize([epoch.figures for epoch in epochs], totals["tokens"], counts, rules)
    return {"sources": first.by_source, **totals, **fim, **screen.counts()}


@dataclass(frozen=True)
class _Epoch:
    """The rows of one epoch, packed and in a random order, with their counts."""

    rows: Dataset
    samples: int
    tokens: int
    figures: FimFigures
    by_source: dict[str, dict[str, int]]


def _prepare_epoch(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenizationRules,
    seed: int,
    folder: Path,
    screen: ContaminationScreen,
    probes: list[str],
    epoch: int,
) -> _Epoch:
    """Tokenize, mix, shuffle and pack one epoch's rows in `folder/epoch-N`. Arguments: see `write_training_rows`."""
    from datasets import concatenate_datasets
    from trl.data_utils import pack_dataset

    work = folder / f"epoch-{epoch}"
    work.mkdir()
    by_source: dict[str, dict[str, int]] = {}
    parts = []
    for number, source in enumerate(sources):
        rng = random.Random(f"{seed}:{number}:{epoch}" if epoch else f"{seed}:{number}")
        counts: Counter[str] = Counter()
        clean = screen.clean_again(source) if epoch else screen.clean_rows(source, counts)
        windows = None
        if rules.context_fim is not None:
            windows = FimWindows(tokenizer, rules.context_fim, rules.max_length, rng, counts)
        segments = row_segments(source, rules, rng, counts, probes, clean, windows, family_of(tokenizer))
        part = _tokenized(segments, source, tokenizer, rules, counts, work / f"source-{number}.arrow")
        name = Path(source.data).name
        by_source[f"{name} ({number + 1})" if name in by_source else name] = dict(counts)
        parts.append(part)
    if sources[0].share is not None:
        parts = _by_share(parts, [source.share or 0.0 for source in sources], seed + epoch, by_source)
    data = concatenate_datasets(parts)
    if not len(data):
        raise ValueError(f"no row is left to train on: {by_source}")
    figures = FimFigures.of(data)
    samples, tokens = len(data), sum(data["length"][:])
    if rules.packing == "fill":
        data = pack(data, rules.max_length, seed + epoch, work)
    else:
        data = data.shuffle(seed=seed + epoch).flatten_indices().remove_columns(["length", "middle"])
        if rules.packing:
            data = pack_dataset(data, rules.max_length, rules.packing).shuffle(seed=seed + epoch).flatten_indices()
    return _Epoch(data, samples, tokens, figures, by_source)


def write_probes(prompts: Sequence[str], folder: Path) -> None:
    """Write a few prompts of the stage's rows. `models.contract` uses them to check that the model's answers end."""
    write_json(folder / PROBES_FILE, prompts[:PROBES])


def _tokenized(
    segments: Iterator[list[Segment] | TokenSample],
    source: DataSource,
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenizationRules,
    counts: Counter[str],
    path: Path,
) -> Dataset:
    """Tokenize the rows of one source into the Arrow file `path`, in batches, so that memory stays bounded."""
    from datasets import Dataset

    lists, counted = pa.list_(pa.int32()), pa.int64()
    schema = pa.schema([("input_ids", lists), ("labels", lists), ("length", counted), ("middle", counted)])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batched(segments, _ROWS_PER_CALL):
            samples = [
                piece
                for sample in _encode(tokenizer, batch)
                for piece in _within_length(sample, rules, source.data, counts)
            ]
            if samples:
                columns: list[list[Any]] = [
                    [sample.ids for sample in samples],
                    [sample.labels for sample in samples],
                    [len(sample.ids) for sample in samples],
                    [sample.middle for sample in samples],
                ]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
    return Dataset.from_file(str(path))


def _encode(tokenizer: PreTrainedTokenizerBase, batch: list[list[Segment] | TokenSample]) -> Iterator[_Sample]:
    """Encode the segments of many rows with one call of the tokenizer."""
    family = family_of(tokenizer)
    plain = {
        text
        for row in batch
        if isinstance(row, list)
        for text, special, _ in row
        if not special and not formats.contains_special_text(text, family)
    }
    texts = sorted(plain - {""})
    ids_of_text: dict[str, list[int]] = {"": []}
    ids_of_special: dict[str, list[int]] = {}
    if texts:
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        ids_of_text |= dict(zip(texts, encoded, strict=True))
    for row in batch:
        if isinstance(row, TokenSample):
            yield _Sample(row.ids, row.ids, row.middle)
            continue
        ids: list[int] = []
        labels: list[int] = []
        lengths: list[int] = []
        for text, special, learned in row:
            if special:
                if text not in ids_of_special:
                    ids_of_special[text] = [formats.token_id(tokenizer, text)]
                part = ids_of_special[text]
            else:
                known = ids_of_text.get(text)
                part = formats.encode_text(tokenizer, text) if known is None else known
            ids += part
            labels += part if learned else [IGNORED] * len(part)
            lengths.append(len(part))
        is_fim = any(special and text == formats.FIM_MIDDLE for text, special, _ in row)
        yield _Sample(ids, labels, lengths[-2] if is_fim else 0)  # the middle stands before <|endoftext|>


def _within_length(sample: _Sample, rules: TokenizationRules, where: str, counts: Counter[str]) -> list[_Sample]:
    """Apply the setting `overlong` to a sample. Return the sample, its pieces, or an empty list if it is dropped."""
    ids, labels, middle = sample
    if len(ids) <= rules.max_length:
        counts["tokens"] += len(ids)
        return [sample]
    counts["overlong"] += 1
    if rules.overlong == "error":
        raise ValueError(f"{where}: a row has {len(ids)} tokens, max_length is {rules.max_length}")
    if rules.overlong == "drop":
        counts["dropped"] += 1
        return []
    size = rules.max_length
    if middle:
        counts["fim_torn"] += 1
    pieces = [_Sample(ids[at : at + size], labels[at : at + size], 0) for at in range(0, len(ids), size)]
    pieces = [piece for piece in pieces if any(label != IGNORED for label in piece.labels)]
    counts["tokens"] += sum(len(piece.ids) for piece in pieces)
    return pieces


def _by_share(
    parts: Sequence[Dataset], shares: Sequence[float], seed: int, by_source: Mapping[str, dict[str, int]]
) -> list[Dataset]:
    """Select rows, in a seeded random order, so that each source makes up its requested share of the tokens.

    The total number of tokens is the largest for which every source has enough tokens for its share.

    Args:
        parts: tokenized rows of each source.
        shares: share of each source. The shares add up to 1.
        seed: seed of the order.
        by_source: counts of each source, in the same order. `used_tokens` is added to each.
    """
    available = [sum(part["length"][:]) for part in parts]
    total = min(tokens / share for tokens, share in zip(available, shares, strict=True) if share > 0)
    selected = []
    for part, share, counts in zip(parts, shares, by_source.values(), strict=True):
        shuffled = part.shuffle(seed=seed)
        target, rows, tokens = share * total, 0, 0
        for length in shuffled["length"][:]:
            if tokens + length / 2 > target:
                break
            tokens += length
            rows += 1
        counts["used_tokens"] = tokens
        selected.append(shuffled.select(range(rows)))
    used = max(sum(counts["used_tokens"] for counts in by_source.values()), 1)
    logger.info(
        "      token shares: %s",
        ", ".join(f"{name} {counts['used_tokens'] / used:.1%}" for name, counts in by_source.items()),
    )
    return selected

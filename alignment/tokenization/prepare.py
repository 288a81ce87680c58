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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alignment.files import write_json
from alignment.logs import get_logger
from alignment.models import formats
from alignment.models.formats import IGNORED
from alignment.processes import heartbeat, wait_for
from alignment.recipe.schema import DataSource
from alignment.recipe.stage_request import NO_TARGETS, ScreenTargets, StageRequest
from alignment.tokenization.packing import PACKED, pack
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

Sample = tuple[list[int], list[int]]
"""Token ids and labels, of the same length."""


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
) -> dict[str, Any]:
    """Write the training set of documents and conversations to `folder/train`.

    Args:
        sources: the stage's `data:` entries, with absolute paths.
        tokenizer: the stage's tokenizer.
        rules: how rows become samples.
        seed: seed of FIM cuts, shares, order and packing.
        folder: output folder. It also gets prompts for the check that answers end, and the contamination report.
        targets: benchmarks and files that training rows must share no text with.

    Returns:
        Counts for the artifact: rows by source, samples, tokens, packed rows, and removed rows.

    Raises:
        ValueError: a row is malformed, or no row is left.
    """
    from datasets import concatenate_datasets
    from trl.data_utils import pack_dataset

    by_source: dict[str, dict[str, int]] = {}
    parts = []
    probes: list[str] = []
    screen = ContaminationScreen.for_targets(targets, folder)
    for number, source in enumerate(sources):
        rng = random.Random(f"{seed}:{number}")
        counts: Counter[str] = Counter()
        segments = row_segments(source, rules, rng, counts, probes, screen)
        part = _tokenized(segments, source, tokenizer, rules, counts, folder / f"source-{number}.arrow")
        name = Path(source.data).name
        by_source[f"{name} ({number + 1})" if name in by_source else name] = dict(counts)
        parts.append(part)
    if sources[0].share is not None:
        parts = _by_share(parts, [source.share or 0.0 for source in sources], seed, by_source)
    data = concatenate_datasets(parts)
    if not len(data):
        raise ValueError(f"no row is left to train on: {by_source}")
    tokens = sum(data["length"][:])
    totals: dict[str, float] = {"samples": len(data), "tokens": tokens}
    if rules.packing == "fill":
        data = pack(data, rules.max_length, seed, folder)
    else:
        data = data.shuffle(seed=seed).flatten_indices().remove_columns("length")
        if rules.packing:
            data = pack_dataset(data, rules.max_length, rules.packing).shuffle(seed=seed).flatten_indices()
    if rules.packing:
        totals["packed"] = len(data)
        totals["packing_efficiency"] = round(tokens / (len(data) * rules.max_length), 4)  # share that is not padding
    data.save_to_disk(folder / "train")
    for number in range(len(sources)):
        (folder / f"source-{number}.arrow").unlink()
    (folder / PACKED).unlink(missing_ok=True)
    if probes:
        write_probes(probes, folder)
    return {"sources": by_source, **totals, **screen.counts()}


def write_probes(prompts: Sequence[str], folder: Path) -> None:
    """Write a few prompts of the stage's rows. `models.contract` uses them to check that the model's answers end."""
    write_json(folder / PROBES_FILE, prompts[:PROBES])


def _tokenized(
    segments: Iterator[list[Segment]],
    source: DataSource,
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenizationRules,
    counts: Counter[str],
    path: Path,
) -> Dataset:
    """Tokenize the rows of one source into the Arrow file `path`, in batches, so that memory stays bounded."""
    from datasets import Dataset

    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("length", pa.int64())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batched(segments, _ROWS_PER_CALL):
            samples = [
                piece
                for sample in _encode(tokenizer, batch)
                for piece in _within_length(sample, rules, source.data, counts)
            ]
            if samples:
                columns: list[list[Any]] = [
                    [ids for ids, _ in samples],
                    [labels for _, labels in samples],
                    [len(ids) for ids, _ in samples],
                ]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
    return Dataset.from_file(str(path))


def _encode(tokenizer: PreTrainedTokenizerBase, batch: list[list[Segment]]) -> Iterator[Sample]:
    """Encode the segments of many rows with one call of the tokenizer."""
    plain = {
        text for row in batch for text, special, _ in row if not special and not formats.contains_special_text(text)
    }
    texts = sorted(plain - {""})
    ids_of_text: dict[str, list[int]] = {"": []}
    ids_of_special: dict[str, list[int]] = {}
    if texts:
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        ids_of_text |= dict(zip(texts, encoded, strict=True))
    for row in batch:
        ids: list[int] = []
        labels: list[int] = []
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
        yield ids, labels


def _within_length(sample: Sample, rules: TokenizationRules, where: str, counts: Counter[str]) -> list[Sample]:
    """Apply the rule `overlong` to a sample and update the counts. Return the sample, its pieces, or nothing."""
    ids, labels = sample
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
    pieces = [(ids[at : at + size], labels[at : at + size]) for at in range(0, len(ids), size)]
    pieces = [piece for piece in pieces if any(label != IGNORED for label in piece[1])]
    counts["tokens"] += sum(len(piece) for piece, _ in pieces)
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

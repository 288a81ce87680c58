"""From rows to token ids, once: tokenized, mixed, shuffled and packed on rank 0, then read by all ranks from disk.

No collective is open while rank 0 works, so nothing times out however long it takes; the other ranks watch its
heartbeat. What is dropped, split or masked is counted and reported.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.models import formats
from alignment.models.formats import IGNORED
from alignment.processes import heartbeat, wait_for
from alignment.recipe.stage_request import NO_TARGETS, ScreenTargets, StageRequest
from alignment.tokenization.packing import PACKED, pack
from alignment.tokenization.screen import REPORT, Screen
from alignment.tokenization.segments import Rules, segments_of
from data_builders.storage.parallel import batched

logger = get_logger(__name__)

PROBES = "probes.json"  # read by alignment.models.contract
_BATCH = 512

Sample = tuple[list[int], list[int]]


def once(request: StageRequest, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Run `make(folder)` on rank 0 alone, unless an earlier run did with the same rows and rules; returns the folder and
    what it counted, on every rank.

    What `make` leaves for the artifact (prompts of the stop probe, the contamination report) is copied there.
    """
    import json

    folder = request.prepared or request.out / "prepared"
    done = folder / "counts.json"
    pulse = request.out / "preparing"
    if request.rank != 0:
        wait_for(done.is_file, pulse, "prepare the data")
        return folder, json.loads(done.read_text())
    if done.is_file():
        logger.info("      rows were prepared before: taken from there")
    else:
        from alignment.files import write_json

        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.mkdir(parents=True)
        with heartbeat(pulse):
            counts = make(temporary)
            write_json(temporary / "counts.json", counts)
            temporary.replace(folder)
    for name in (PROBES, REPORT):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, request.out / name)
    return folder, json.loads(done.read_text())


def training_rows(
    sources: Sequence[Any],
    tokenizer: Any,
    rules: Rules,
    seed: int,
    folder: Path,
    targets: ScreenTargets = NO_TARGETS,
) -> dict[str, Any]:
    """Write the packed training set of documents and conversations to `folder/train`; returns counts.

    `sources` are the stage's `data:` entries with absolute paths. `folder` also gets a few prompts for the stop probe.
    `targets` are what rows must share no text with.
    """
    from datasets import Dataset, concatenate_datasets
    from trl.data_utils import pack_dataset

    counts: dict[str, Any] = {}
    parts = []
    probes: list[str] = []
    screen = Screen.of(targets, folder)
    for number, source in enumerate(sources):
        rng = random.Random(f"{seed}:{number}")
        part, counted = _tokenize(source, tokenizer, rules, rng, folder, number, probes, screen)
        name = Path(source.data).name
        counts[f"{name} ({number + 1})" if name in counts else name] = counted
        parts.append(part)
    if sources[0].share is not None:
        parts = _by_share(parts, [source.share for source in sources], seed, counts)
    data: Dataset = concatenate_datasets(parts)
    if not len(data):
        raise ValueError(f"no row is left to train on: {counts}")
    tokens = sum(data["length"][:])
    totals = {"samples": len(data), "tokens": tokens}
    if rules.packing == "fill":
        data = pack(data, rules.max_length, seed, folder)
    else:
        data = data.shuffle(seed=seed).flatten_indices().remove_columns("length")
        if rules.packing:
            data = pack_dataset(data, rules.max_length, rules.packing).shuffle(seed=seed).flatten_indices()
    if rules.packing:
        totals["packed"] = len(data)
        # Share of each pack that holds real tokens; padding-free batches then carry no padding at all.
        totals["packing_efficiency"] = round(tokens / (len(data) * rules.max_length), 4)
    data.save_to_disk(folder / "train")
    for number in range(len(sources)):
        (folder / f"source-{number}.arrow").unlink()
    (folder / PACKED).unlink(missing_ok=True)
    if probes:
        leave_probes(probes, folder)
    return {"sources": counts, **totals, **screen.counts()}


def leave_probes(prompts: Sequence[str], folder: Path) -> None:
    """A few prompts of the stage's own data, after which the trained model must stop by itself."""
    from alignment.files import write_json

    write_json(folder / PROBES, prompts[:4])


def _tokenize(
    source: Any,
    tokenizer: Any,
    rules: Rules,
    rng: random.Random,
    folder: Path,
    number: int,
    probes: list[str],
    screen: Screen,
) -> tuple[Any, dict[str, int]]:
    """Tokenize one source into an Arrow file on disk, in batches: memory stays bounded."""
    import pyarrow as pa
    from datasets import Dataset

    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32())), ("length", pa.int64())])
    counted: Counter[str] = Counter()
    path = folder / f"source-{number}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batched(segments_of(source, rules, rng, counted, probes, screen), _BATCH):
            samples = [
                piece for sample in _encode(tokenizer, batch) for piece in _fit(sample, rules, source.data, counted)
            ]
            if samples:
                columns = [
                    [ids for ids, _ in samples],
                    [labels for _, labels in samples],
                    [len(ids) for ids, _ in samples],
                ]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
    return Dataset.from_file(str(path)), dict(counted)


def _encode(tokenizer: Any, batch: list[list[tuple[str, bool, bool]]]) -> Iterator[Sample]:
    """Encode many segmented rows with one call of the tokenizer."""
    plain = {
        text for row in batch for text, special, _ in row if not special and not formats.contains_special_text(text)
    }
    texts = sorted(plain - {""})
    known: dict[str, list[int]] = {"": []}
    specials: dict[str, list[int]] = {}
    if texts:
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        known |= dict(zip(texts, encoded, strict=True))
    for row in batch:
        ids: list[int] = []
        labels: list[int] = []
        for text, special, learned in row:
            if special:
                if text not in specials:
                    specials[text] = [formats.token_id(tokenizer, text)]
                part = specials[text]
            else:
                found = known.get(text)
                part = formats.encode_text(tokenizer, text) if found is None else found
            ids += part
            labels += part if learned else [IGNORED] * len(part)
        yield ids, labels


def _fit(sample: Sample, rules: Rules, where: str, counted: Counter[str]) -> list[Sample]:
    """Apply the rule for rows longer than `max_length`; nothing is cut in silence."""
    ids, labels = sample
    if len(ids) <= rules.max_length:
        counted["tokens"] += len(ids)
        return [sample]
    counted["overlong"] += 1
    if rules.overlong == "error":
        raise ValueError(f"{where}: a row has {len(ids)} tokens, max_length is {rules.max_length}")
    if rules.overlong == "drop":
        counted["dropped"] += 1
        return []
    size = rules.max_length
    pieces = [(ids[at : at + size], labels[at : at + size]) for at in range(0, len(ids), size)]
    pieces = [piece for piece in pieces if any(label != IGNORED for label in piece[1])]
    counted["tokens"] += sum(len(piece) for piece, _ in pieces)
    return pieces


def _by_share(parts: list[Any], shares: Sequence[float], seed: int, counts: dict[str, Any]) -> list[Any]:
    """Take rows, in a seeded order, so that the token shares come out: as much as the scarcest source allows."""
    totals = [sum(part["length"][:]) for part in parts]
    whole = min(total / share for total, share in zip(totals, shares, strict=True) if share > 0)
    taken = []
    for part, share, name in zip(parts, shares, counts, strict=True):
        order = part.shuffle(seed=seed)
        wanted, kept, tokens = share * whole, 0, 0
        for length in order["length"][:]:
            if tokens + length / 2 > wanted:
                break
            tokens += length
            kept += 1
        counts[name]["used_tokens"] = tokens
        taken.append(order.select(range(kept)))
    used = sum(counts[name]["used_tokens"] for name in counts)
    shown = ", ".join(f"{name} {counts[name]['used_tokens'] / max(used, 1):.1%}" for name in counts)
    logger.info(f"      token shares: {shown}")
    return taken

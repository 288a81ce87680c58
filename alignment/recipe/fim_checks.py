"""Check fill-in-the-middle settings: a sample that does not fit into a row would be split, and teach wrong ends."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.recipe.problems import Mistake
from alignment.recipe.schema import DataSource, PretrainStage, Recipe, SftStage
from alignment.recipe.stage_parts import FIM_WINDOW
from alignment.rows import reading
from alignment.wording import display

# TRL's default of max_length (SFTConfig of TRL 1.16).
_MAX_LENGTH = 1024
_ROWS = 500
"""Number of rows that are read from the start of a source."""
_BYTES_PER_TOKEN = 3.5
"""Approximate number of bytes per token of code in Qwen2.5's tokenizer, which is not loaded here."""


def check_fim(stage: PretrainStage | SftStage) -> Iterator[Mistake]:
    """Yield a mistake for each setting that would split fill-in-the-middle samples, or that has no effect.

    Places are relative to the stage.
    """
    if stage.fim.level == "document" or not stage.fim.rate:
        return
    length, strategy = stage.train.get("max_length", _MAX_LENGTH), stage.train.get("packing_strategy", "fill")
    if stage.fim.window is not None and isinstance(length, int) and stage.fim.window > length:
        yield ("fim", "window"), f"a sample of {stage.fim.window} tokens does not fit into a row of {length}: reduce it"
    window = min(stage.fim.window or FIM_WINDOW, length) if isinstance(length, int) else FIM_WINDOW
    if stage.fim.context_tokens is not None and stage.fim.context_tokens > window * 3 // 4:
        yield (
            ("fim", "context_tokens"),
            f"{stage.fim.context_tokens} tokens of related files leave too little of a sample of {window}: give at most "
            f"{window * 3 // 4}",
        )
    pretrain = isinstance(stage, PretrainStage)  # `wrapped` is refused for all SFT stages, for another reason
    if stage.train.get("packing", pretrain) and (strategy == "bfd_split" or (pretrain and strategy == "wrapped")):
        yield (
            ("train", "packing_strategy"),
            f"`{strategy}` splits samples, and fill-in-the-middle samples must stay whole: use `fill`, the default",
        )


def torn_documents(recipe: Recipe) -> Iterator[str]:
    """Yield a warning for each data source whose documents do not fit the rows of a stage with document-level FIM.

    Only files that exist are read, and only their first rows. Lengths are estimated from bytes.
    """
    names = [stage.name for stage in recipe.stages]
    for stage in recipe.stages:
        if not isinstance(stage, PretrainStage | SftStage) or stage.fim.level != "document" or not stage.fim.rate:
            continue
        length = stage.train.get("max_length", _MAX_LENGTH)
        for source in stage.data:
            if source.data.stage(names) is not None or not source.data.exists() or not isinstance(length, int):
                continue
            documents, torn = _count(source, length)
            if torn:
                yield (
                    f"stage {stage.name!r}: about {torn} of the first {documents} documents of "
                    f"{display(source.data.path())} are longer than a row of {length} tokens. `fim: {{level: document}}` "
                    "tears their samples apart, which teaches the model not to stop: use `level: context`"
                )


def _count(source: DataSource, length: int) -> tuple[int, int]:
    """Return the number of documents among the first rows of a source, and the number of these documents that are
    longer than a row.
    """
    sizes = []
    for row in reading.read(source.data.path(), min(source.rows or _ROWS, _ROWS)):
        files = row.get("files") if isinstance(row.get("files"), list) else [row]
        texts = [file.get("text") for file in files or [] if isinstance(file, dict)]
        if any(isinstance(text, str) for text in texts):
            sizes.append(sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str)))
    return len(sizes), sum(size > length * _BYTES_PER_TOKEN for size in sizes)

"""Counts of the fill-in-the-middle samples of a training set, for the artifact and the stage's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from alignment.logs import get_logger
from alignment.tokenization.segments import TokenizationRules

if TYPE_CHECKING:
    from datasets import Dataset

logger = get_logger(__name__)


@dataclass(frozen=True)
class FimFigures:
    """Counts of one epoch's fill-in-the-middle (FIM) samples.

    Samples that were cut because they are longer than a row are not counted.
    """

    samples: int
    tokens: int
    """Number of tokens in these samples."""
    middles: Sequence[int]
    """Number of tokens in the middle of each sample."""

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """Count the FIM samples of a dataset with the columns `length` and `middle`."""
        pairs = [
            (length, middle) for length, middle in zip(data["length"][:], data["middle"][:], strict=True) if middle
        ]
        return cls(len(pairs), sum(length for length, _ in pairs), [middle for _, middle in pairs])


def summarize(
    epochs: Sequence[FimFigures], tokens: int, counts: Mapping[str, int], rules: TokenizationRules
) -> dict[str, Any]:
    """Log averages of the figures of all epochs, and return them for the artifact, under the key `fim`.

    Warn if FIM samples were longer than a row and were cut.

    Args:
        epochs: the figures of each epoch.
        tokens: number of tokens in one epoch, including rows without FIM.
        counts: counts of the first epoch: `fim_torn` (FIM samples longer than a row) and `fim_with_files`.
        rules: how rows became samples.

    Returns:
        Averages over epochs. The mapping is empty if the stage has no FIM samples.
    """
    torn, with_files = counts.get("fim_torn", 0), counts.get("fim_with_files", 0)
    samples = round(sum(epoch.samples for epoch in epochs) / len(epochs))
    if not samples and not torn:
        return {}
    middles = [middle for epoch in epochs for middle in epoch.middles]
    figures: dict[str, Any] = {
        "level": "document" if rules.context_fim is None else "context",
        "samples": samples,
        "token_share": round(sum(epoch.tokens for epoch in epochs) / len(epochs) / max(tokens, 1), 4),
        "middle_median_tokens": median(middles) if middles else 0,
        "torn": torn,
    }
    if with_files:
        figures["with_files"] = with_files
    logger.info(
        "      fill-in-the-middle: %d whole samples an epoch with %.1f%% of the tokens, median middle %d tokens",
        samples,
        100 * figures["token_share"],
        figures["middle_median_tokens"],
    )
    if torn:
        logger.warning(
            "%d of %d fill-in-the-middle samples are longer than a row of %d tokens and were torn apart: they teach the "
            "model not to stop. Use `fim: {level: context}`, or a larger max_length.",
            torn,
            torn + samples,
            rules.max_length,
        )
    return {"fim": figures}

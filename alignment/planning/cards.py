"""Memory, arithmetic rate and memory bandwidth of common NVIDIA cards.

From NVIDIA's data sheets of the cards. Rates are dense (without sparsity) in bfloat16 with float32 accumulation; V100 has no
bfloat16, its rate is for float16. If a card is sold in several sizes or forms, the numbers are those of the larger one
(SXM for A100, H100, H200 and B200).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """The data sheet of one type of GPU."""

    memory_gb: int
    """Memory in GB (10^9 bytes)."""
    teraflops: float
    """Peak rate of matrix products in 10^12 operations per second. A multiplication and an addition are two operations."""
    bandwidth_gb: float
    """Peak memory bandwidth in 10^9 bytes per second."""


CARDS: dict[str, Card] = {
    "4090": Card(24, 165.2, 1008),
    "L4": Card(24, 121, 300),
    "A10": Card(24, 125, 600),
    "5090": Card(32, 209.5, 1792),
    "V100": Card(32, 125, 900),
    "A40": Card(48, 149.7, 696),
    "L40S": Card(48, 362, 864),
    "A6000": Card(48, 154.8, 768),
    "A100": Card(80, 312, 2039),
    "H100": Card(80, 989, 3350),
    "H200": Card(141, 989, 4800),
    "B200": Card(180, 2250, 8000),
}
"""The cards by name, smaller memory first."""

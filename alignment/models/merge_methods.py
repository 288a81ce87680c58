"""Names of the methods that merge the weights of several models."""

from __future__ import annotations

from typing import Literal

MergeMethod = Literal["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
TASK_VECTOR_METHODS: tuple[MergeMethod, ...] = ("task_arithmetic", "ties", "dare_linear", "dare_ties")
"""Methods that add differences from a base model (task vectors) to that base model."""
SPARSE_METHODS: tuple[MergeMethod, ...] = ("ties", "dare_linear", "dare_ties")
"""Methods that keep only a share of the values of each difference. The setting `density` is this share."""

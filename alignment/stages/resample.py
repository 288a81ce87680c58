"""A RolloutTrainer that replaces groups of completions that all got the same reward, since their advantages are zero.

This is DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), which TRL 1.16 does not have. After each generation,
groups without spread (all rewards equal) are replaced by groups of other prompts of the dataset, in at most a few
rounds. In each round, every process generates the same number of new groups, because generation is a collective
operation. The process that has to replace the most groups determines this number.

Shapes: R = rows (completions) of one process, in groups of G; P = prompt tokens, C = completion tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from alignment.stages.rollout_trainer import RolloutTrainer

Rollouts = dict[str, Any]
"""TRL's output for a batch of prompts: tensors of shape [R], [R, P] or [R, C], and a few scalars."""
# Advantages below this count as zero. TRL divides by the standard deviation plus 1e-4, so rounding errors stay below
# it.
_NO_SPREAD = 5e-3


class ResamplingTrainer(RolloutTrainer):
    """RolloutTrainer that replaces groups without spread, in at most `resample` rounds per generation.

    Raises:
        ValueError: a group is split between processes, or advantages are not computed per group.
    """

    def __init__(self, *arguments: Any, resample: int, **settings: Any):
        super().__init__(*arguments, **settings)
        self.resample = resample
        config: Any = self.args
        self.size = int(config.num_generations)
        check_whole_groups(config.per_device_train_batch_size * config.steps_per_generation, self.size)
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("`resample` needs multi_objective_aggregation: sum_then_normalize")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Rollouts:
        rollouts: Rollouts = super()._generate_and_score_completions(inputs)
        model: Any = self.model
        dataset: Any = self.train_dataset
        if not model.training:
            return rollouts
        size, replaced = self.size, 0
        for number in range(self.resample):
            dead = groups_without_spread(rollouts["advantages"], size)
            wanted = self._max_over_processes(len(dead))
            if not wanted:
                break
            draw = random.Random(f"{self.args.seed}:{self.state.global_step}:{number}:{self.accelerator.process_index}")
            rows = [dataset[draw.randrange(len(dataset))] for _ in range(wanted)]
            new = self._generate_unlogged([row for row in rows for _ in range(size)])
            useful = sorted(set(range(wanted)) - set(groups_without_spread(new["advantages"], size)))
            places = list(zip(dead, useful, strict=False))
            rollouts = replace_groups(rollouts, new, places, size, self._tokenizer.pad_token_id)
            replaced += len(places)
        share = replaced * size / len(rollouts["advantages"])
        self._metrics["train"]["resampled_groups"].append(self._mean_over_processes(share))
        mask = rollouts["completion_mask"]
        rollouts["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return rollouts

    def _generate_unlogged(self, inputs: list[dict[str, Any]]) -> Rollouts:
        """Generate rollouts without logging their metrics, so that the log describes only the regular prompts."""
        metrics = self._metrics["train"]
        before = {key: len(values) for key, values in metrics.items()}
        rollouts: Rollouts = super()._generate_and_score_completions(inputs)
        for key in list(metrics):
            del metrics[key][before.get(key, 0) :]
        return rollouts

    def _max_over_processes(self, count: int) -> int:
        return int(self.accelerator.gather(torch.tensor([count], device=self.accelerator.device)).max())

    def _mean_over_processes(self, value: float) -> float:
        return float(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).mean())


def check_whole_groups(rows: int, size: int) -> None:
    """Raise ValueError if the rows that a process generates at a time do not make up whole groups of `size` rows."""
    if rows % size:
        raise ValueError(
            f"`resample` needs whole groups in every process: per_device_train_batch_size x steps_per_generation is {rows}. "
            f"Make it a multiple of num_generations ({size})"
        )


def groups_without_spread(advantages: torch.Tensor, size: int) -> list[int]:
    """Return the indices of groups whose advantages are all zero, up to rounding.

    Args:
        advantages: [R]
        size: number of rows in a group.
    """
    dead = advantages.view(-1, size).abs().amax(dim=1) < _NO_SPREAD
    return [int(index) for index in dead.nonzero().flatten()]


def replace_groups(
    rollouts: Rollouts, new: Rollouts, places: Sequence[tuple[int, int]], size: int, pad: int
) -> Rollouts:
    """Return a copy of `rollouts` in which some groups are replaced by groups of `new`.

    Two-dimensional tensors of the two rollouts are padded to the same length: prompts on the left, all others on the
    right.

    Args:
        rollouts: the rollouts; they are not changed.
        new: rollouts with the same keys.
        places: for each replacement, the index of the group in `rollouts` and the index of the group in `new`.
        size: number of rows in a group.
        pad: id of the padding token.
    """
    if not places:
        return rollouts
    rows = len(rollouts["advantages"])
    source = torch.arange(rows)
    for old_group, new_group in places:
        first = rows + new_group * size
        source[old_group * size : (old_group + 1) * size] = torch.arange(first, first + size)
    result = dict(rollouts)
    for key, old in rollouts.items():
        if not isinstance(old, torch.Tensor) or old.dim() == 0:
            continue
        other = new[key]
        if old.dim() == 2:
            width = max(old.shape[1], other.shape[1])
            fill = pad if key.endswith("_ids") else 0
            old, other = (_padded(value, width, fill, left=key.startswith("prompt")) for value in (old, other))
        result[key] = torch.cat([old, other])[source.to(old.device)]
    return result


def _padded(value: torch.Tensor, width: int, fill: int, left: bool) -> torch.Tensor:
    missing = width - value.shape[1]
    return torch.nn.functional.pad(value, (missing, 0) if left else (0, missing), value=fill)

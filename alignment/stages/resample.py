"""GRPO that draws other prompts where a group teaches nothing: all answers of a prompt scored alike.

The idea is DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), within TRL's trainer (1.16, which has none): after a
generation, groups without spread give their places to groups of other prompts of the dataset, for a few rounds at most,
and each process generates only as many groups as the one with the most places to fill.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from trl import GRPOTrainer

Rollouts = dict[str, Any]


class ResamplingTrainer(GRPOTrainer):
    """`resample` rounds, at most, of new prompts for groups without spread.

    Raises ValueError where groups are split between processes, or where advantages are not those of a group.
    """

    def __init__(self, *arguments: Any, resample: int, **settings: Any):
        super().__init__(*arguments, **settings)
        self.resample = resample
        own: Any = self.args
        self.size = int(own.num_generations)
        check_whole_groups(own.per_device_train_batch_size * own.steps_per_generation, self.size)
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("`resample` needs multi_objective_aggregation: sum_then_normalize")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Rollouts:
        found: Rollouts = super()._generate_and_score_completions(inputs)
        model: Any = self.model
        dataset: Any = self.train_dataset
        if not model.training:
            return found
        size, filled = self.size, 0
        for number in range(self.resample):
            empty = without_spread(found["advantages"], size)
            wanted = self._most(len(empty))
            if not wanted:
                break
            draw = random.Random(f"{self.args.seed}:{self.state.global_step}:{number}:{self.accelerator.process_index}")
            rows = [dataset[draw.randrange(len(dataset))] for _ in range(wanted)]
            new = self._unlogged([row for row in rows for _ in range(size)])
            spread = sorted(set(range(wanted)) - set(without_spread(new["advantages"], size)))
            places = list(zip(empty, spread, strict=False))
            found = replaced(found, new, places, size, self._tokenizer.pad_token_id)
            filled += len(places)
        self._metrics["train"]["resampled_groups"].append(self._mean(filled * size / len(found["advantages"])))
        mask = found["completion_mask"]
        found["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return found

    def _unlogged(self, inputs: list[dict[str, Any]]) -> Rollouts:
        """Rollouts whose figures are in no log: those logged stay figures of prompts as they come."""
        metrics = self._metrics["train"]
        before = {key: len(values) for key, values in metrics.items()}
        new: Rollouts = super()._generate_and_score_completions(inputs)
        for key in list(metrics):
            del metrics[key][before.get(key, 0) :]
        return new

    def _most(self, count: int) -> int:
        return int(self.accelerator.gather(torch.tensor([count], device=self.accelerator.device)).max())

    def _mean(self, value: float) -> float:
        return float(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).mean())


def check_whole_groups(rows: int, size: int) -> None:
    """Raises ValueError where the rows that a process generates at a time are no whole groups of `size`."""
    if rows % size:
        raise ValueError(
            f"`resample` needs whole groups in every process: per_device_train_batch_size x steps_per_generation is {rows}, "
            f"which num_generations ({size}) does not divide"
        )


def without_spread(advantages: torch.Tensor, size: int) -> list[int]:
    """The groups, of `size` rows each, whose advantages are all zero but for rounding, which TRL divides by 1e-4."""
    dead = advantages.view(-1, size).abs().amax(dim=1) < 5e-3
    return [int(index) for index in dead.nonzero().flatten()]


def replaced(found: Rollouts, new: Rollouts, places: list[tuple[int, int]], size: int, pad: int) -> Rollouts:
    """`found` with group `there` of `new` in the place of group `here`, for each (here, there).

    Tensors of shape [rows, tokens] are padded to the longer of the two: prompts on the left, all else on the right.
    """
    if not places:
        return found
    rows = len(found["advantages"])
    source = torch.arange(rows)
    for here, there in places:
        source[here * size : (here + 1) * size] = rows + torch.arange(there * size, (there + 1) * size)
    result = dict(found)
    for key, old in found.items():
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

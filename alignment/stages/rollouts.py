"""Statistics of GRPO's rollouts over a run, and a check that vLLM samples from the weights that are trained.

TRL logs these figures per step. Averaged over the run they go to the artifact: how many groups teach nothing, and how many
answers are cut short. If vLLM samples from other weights (a weight sync that failed), training goes on but learns noise;
the difference of log-probabilities shows it, and stops the run.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Largest allowed mean difference of a token's log-probability in vLLM and in the trainer, in nats. Kernels and bf16 alone
# differ by 0.01 to 0.05 (as others report for bf16), weights that are one step older by more, other weights by whole nats.
MAX_LOGP_DIFFERENCE = 0.5
# Names of the figures in TRL's log.
LOGP_DIFFERENCE = "sampling/sampling_logp_difference/mean"
ZERO_SPREAD = "frac_reward_zero_std"
CUT_SHORT = "completions/clipped_ratio"
RESAMPLED = "resampled_groups"  # logged by alignment.stages.resample
# The same in the artifact.
_METRICS = {
    ZERO_SPREAD: "groups_without_spread",
    CUT_SHORT: "completions_cut_short",
    RESAMPLED: "groups_resampled",
    LOGP_DIFFERENCE: "sampling_logp_difference",
}


class RolloutWatch(TrainerCallback):
    """Averages TRL's figures over the logged steps; raises ValueError if vLLM and the trainer disagree."""

    def __init__(self, max_difference: float = MAX_LOGP_DIFFERENCE):
        self.max_difference = max_difference
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.largest_difference = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        for key in _METRICS:
            value = (logs or {}).get(key)
            if isinstance(value, int | float):
                self.sums[key] = self.sums.get(key, 0.0) + value
                self.counts[key] = self.counts.get(key, 0) + 1
        difference = (logs or {}).get(LOGP_DIFFERENCE)
        if isinstance(difference, int | float):
            self.largest_difference = max(self.largest_difference, difference)
            if not difference <= self.max_difference:  # also if it is NaN
                raise ValueError(
                    f"step {state.global_step}: vLLM and the trainer give the same tokens log-probabilities that differ by "
                    f"{difference:.3g} on average: vLLM samples from other weights than those that are trained. Check its "
                    "version against TRL's, and that both load the same checkpoint; `use_vllm: false` samples without it"
                )

    def metrics(self) -> dict[str, float]:
        """Averages over the run, for the artifact."""
        averages = {
            name: round(self.sums[key] / self.counts[key], 4) for key, name in _METRICS.items() if self.counts.get(key)
        }
        if LOGP_DIFFERENCE in self.counts:
            averages["largest_sampling_logp_difference"] = round(self.largest_difference, 4)
        return averages

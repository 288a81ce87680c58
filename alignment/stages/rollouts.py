"""Statistics of GRPO's rollouts over a run, and a check that the rollouts are generated with the weights that are
trained.

TRL logs these metrics per step. The artifact gets their averages over the run: the share of groups whose rewards are
all equal, the share of answers that are cut short, the seconds of each part of a step, and others. If vLLM or the CPU
decoder samples from other weights (for example because a weight sync failed), training continues but learns noise. The
log-probabilities of the sampler and of the trainer then differ, and the check stops the run.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.grading import Grader, RemoteGrader

# Largest allowed mean difference between a token's log-probability in the sampler and in the trainer, in nats.
# Different kernels and bf16 rounding cause 0.01 to 0.05 (reported by others), weights that are one step old cause more,
# and unrelated weights cause several nats.
MAX_LOGP_DIFFERENCE = 0.5
# Names of the metrics in TRL's log.
LOGP_DIFFERENCE = "sampling/sampling_logp_difference/mean"
ZERO_SPREAD = "frac_reward_zero_std"
CUT_SHORT = "completions/clipped_ratio"
RESAMPLED = "resampled_groups"  # logged by alignment.stages.resample
# Names of the same metrics in the artifact.
_METRICS = {
    ZERO_SPREAD: "groups_without_spread",
    CUT_SHORT: "completions_cut_short",
    RESAMPLED: "groups_resampled",
    LOGP_DIFFERENCE: "sampling_logp_difference",
    # Logged by alignment.stages.rollout_trainer, in seconds of a step.
    "time/generation": "generation_seconds",
    "time/grading": "grading_seconds",
    "time/training": "training_seconds",
    "rollout_tokens_per_second": "rollout_tokens_per_second",
    # Logged by alignment.rewards.combination.
    "reward_by_tier/A": "reward_of_tier_a",
    "reward_by_tier/B": "reward_of_tier_b",
}

_ADVICE = {
    "vLLM": "Check that TRL supports this version of vLLM, and that vLLM and the trainer load the same checkpoint. With "
    "`use_vllm: false` transformers samples instead",
    "the CPU decoder": "With `rollout_engine: transformers` transformers samples instead",
}
"""Advice for the user if the probabilities of sampler and trainer differ too much, keyed by sampler."""


class GraderCheck(TrainerCallback):
    """Check before each step that the grading service answers, so that no completions are generated for a dead service.

    The check waits for a service that restarts. If the service stays away, it raises SandboxUnavailable, which ends the
    run: a resumed run goes on from the last checkpoint.
    """

    def __init__(self, grader: Grader | RemoteGrader):
        self.grader = grader

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.grader.check()


class RolloutWatch(TrainerCallback):
    """Averages TRL's metrics over the logged steps.

    Raises ValueError at a step where the probabilities of sampler and trainer differ too much.
    """

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
            if not difference <= self.max_difference:  # true for NaN too
                sampler = "vLLM" if getattr(args, "use_vllm", True) else "the CPU decoder"
                raise ValueError(
                    f"step {state.global_step}: the log-probabilities of {sampler} and of the trainer for the same tokens "
                    f"differ by {difference:.3g} on average: {sampler} samples from other weights than those that are "
                    f"trained. {_ADVICE[sampler]}"
                )

    def metrics(self) -> dict[str, float]:
        """Return the averages over the run, for the artifact."""
        averages = {
            name: round(self.sums[key] / self.counts[key], 4) for key, name in _METRICS.items() if self.counts.get(key)
        }
        if LOGP_DIFFERENCE in self.counts:
            averages["largest_sampling_logp_difference"] = round(self.largest_difference, 4)
        return averages

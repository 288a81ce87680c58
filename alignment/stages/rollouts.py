"""What GRPO's rollouts are worth, watched while it trains: groups that teach nothing, answers cut short, a sampler out of step.

TRL logs the figures; this adds them up over the run, says so in the artifact, and stops what can't be right: vLLM that
samples from other weights than those that are trained (a weight sync that failed) looks like training, and is noise.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

# Mean difference of a token's log-probability, in vLLM and in the trainer. Kernels and bf16 alone differ by 0.01 to 0.05
# (seen by others in bf16); weights of a step earlier already by more. Other weights altogether differ by whole nats.
MOST_LOGP_DIFFERENCE = 0.5
_DIFFERENCE = "sampling/sampling_logp_difference/mean"
_SPREAD = "frac_reward_zero_std"
_CUT = "completions/clipped_ratio"
_RESAMPLED = "resampled_groups"  # of alignment.stages.resample


class RolloutWatch(TrainerCallback):
    """Averages over the logged steps; raises ValueError where vLLM and the trainer disagree."""

    def __init__(self, most: float = MOST_LOGP_DIFFERENCE):
        self.most = most
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.worst = 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        for key in (_SPREAD, _CUT, _DIFFERENCE, _RESAMPLED):
            value = (logs or {}).get(key)
            if isinstance(value, int | float):
                self.sums[key] = self.sums.get(key, 0.0) + value
                self.counts[key] = self.counts.get(key, 0) + 1
        difference = (logs or {}).get(_DIFFERENCE)
        if isinstance(difference, int | float):
            self.worst = max(self.worst, difference)
            if not difference <= self.most:  # NaN is no agreement either
                raise ValueError(
                    f"step {state.global_step}: vLLM and the trainer give the same tokens log-probabilities that differ by "
                    f"{difference:.3g} on average: vLLM samples from other weights than those that are trained. Check its "
                    "version against TRL's, and that both load the same checkpoint; `use_vllm: false` samples without it"
                )

    def metrics(self) -> dict[str, float]:
        """Shares over the run, for the artifact."""
        names = {
            _SPREAD: "groups_without_spread",
            _CUT: "completions_cut_short",
            _RESAMPLED: "groups_resampled",
            _DIFFERENCE: "sampling_logp_difference",
        }
        found = {names[key]: round(self.sums[key] / self.counts[key], 4) for key in names if self.counts.get(key)}
        return found | (
            {"largest_sampling_logp_difference": round(self.worst, 4)} if _DIFFERENCE in self.counts else {}
        )


def check_vllm(train: dict[str, Any]) -> None:
    """Say before anything is loaded that vLLM is asked for and not there. Raises ValueError."""
    import importlib.util

    if train.get("use_vllm") and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "`use_vllm` needs vLLM: pip install 'code-alignment[vllm]', or generate with transformers: "
            "--set stages.grpo.train.use_vllm=false"
        )
    if train.get("use_vllm") and train.get("vllm_importance_sampling_correction") is False:
        raise ValueError(
            "`vllm_importance_sampling_correction: false` hides whether vLLM samples from the weights that are trained: TRL "
            "compares their log-probabilities only with it. Leave it out"
        )

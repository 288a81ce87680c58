"""GRPOTrainer that logs the time of each part of a step, and is faster on CPUs.

On a CPU in bfloat16, the CPU decoder generates the completions, and the prompt of a group is computed only once for all
log-probabilities of the group. If neither is used, losses and completions equal TRL's bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from alignment.stages import shared_prompts
from alignment.stages.cpu_rollouts import CpuRollouts, RolloutEngine, compute_dtype, uses_cpu_decoder
from alignment.stages.importance import correction_metrics, importance_ratio, settings_of

PARTS = ("generation", "grading", "training")
"""Names of the parts of a step. `training` is the rest: forward and backward passes, and the optimizer."""


class StepParts(TrainerCallback):
    """Measures the seconds of each part of an optimizer step, and counts the tokens that this process generates in the
    step.
    """

    def __init__(self, trainer: RolloutTrainer) -> None:
        self.trainer = trainer
        self.begun = time.perf_counter()
        self.seconds = {"generation": 0.0, "grading": 0.0}
        self.tokens = 0

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the duration of the `with` block to the seconds of a part."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - begun

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begun = time.perf_counter()
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        self.tokens = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        total = time.perf_counter() - self.begun
        training = total - sum(self.seconds.values())
        self.trainer.log_parts([*self.seconds.values(), training], self.tokens)


class RolloutTrainer(GRPOTrainer):
    """GRPOTrainer that logs `time/generation`, `time/grading`, `time/training` and `rollout_tokens_per_second`.

    Args:
        rollout_engine: `transformers`, `cpu`, or `auto` for the CPU decoder in bfloat16 on a CPU.
        stop_texts: texts that end a completion. Only the CPU decoder stops there; other engines go on to an end token.
        arguments: positional arguments of GRPOTrainer.
        settings: arguments of GRPOTrainer.

    Raises:
        ValueError: `rollout_engine` is `cpu`, and the CPU decoder cannot make the rollouts.
    """

    def __init__(
        self, *arguments: Any, rollout_engine: RolloutEngine = "auto", stop_texts: tuple[str, ...] = (), **settings: Any
    ):
        super().__init__(*arguments, **settings)
        self.parts = StepParts(self)
        self.add_callback(self.parts)
        model: Any = self.accelerator.unwrap_model(self.model)
        args: Any = self.args
        self.cpu_rollouts: CpuRollouts | None = None
        if uses_cpu_decoder(rollout_engine, model, args):
            self.cpu_rollouts = CpuRollouts(model, self._tokenizer, compute_dtype(model, args), stop_texts)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.shares_prompts = (
            model.device.type == "cpu"
            and compute_dtype(model, args) == torch.bfloat16
            and not (args.torch_compile or args.cast_lm_head_to_fp32)
            and shared_prompts.supports(base)
        )
        if self.shares_prompts:
            shared_prompts.enable(base, self.temperature, entropy_gradient=self._entropy_bonus_enabled)
        self._uncorrected: dict[str, Any] | None = None

    def log_parts(self, seconds: list[float], tokens: int) -> None:
        """Add one step to the metrics: the mean over all processes of the seconds of each part, and the sum of their
        tokens per second.
        """
        figures = torch.tensor([*seconds, tokens], dtype=torch.float64, device=self.accelerator.device)
        figures = self.accelerator.gather(figures[None])
        means = figures[:, :-1].mean(0).tolist()
        metrics = self._metrics["train"]
        for part, value in zip(PARTS, means, strict=True):
            metrics[f"time/{part}"].append(value)
        if tokens and means[0] > 0:
            metrics["rollout_tokens_per_second"].append(figures[:, -1].sum().item() / means[0])

    def _calculate_rewards(self, *arguments: Any, **more: Any) -> Any:
        with self.parts.measure("grading"):
            return super()._calculate_rewards(*arguments, **more)

    def _generate_single_turn(self, prompt_ids: Any, *arguments: Any, **more: Any) -> Any:
        with self.parts.measure("generation"):
            if self.cpu_rollouts is not None:
                made = self.cpu_rollouts.generate(prompt_ids, self.generation_config, self.state.global_step)
            else:
                made = super()._generate_single_turn(prompt_ids, *arguments, **more)
        self.parts.tokens += sum(map(len, made[0]))
        return made

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        *rest: Any,
        **more: Any,
    ) -> tuple[Any, Any, Any]:
        results: tuple[Any, Any, Any]
        if self.shares_prompts and model is not self.ref_model:
            log_probs, entropies = self._packed_log_probs(model, input_ids, attention_mask, logits_to_keep, batch_size)
            results = log_probs, entropies if compute_entropy else None, None
        else:
            results = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, *rest, **more
            )
        if self._uncorrected is not None:
            self._correct(self._uncorrected, results[0].detach())
        return results

    def _packed_log_probs(
        self, model: Any, input_ids: torch.Tensor, mask: torch.Tensor, width: int, batch_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities and entropies, each of shape [rows, width] with 0 at padding."""
        size = batch_size or len(input_ids)
        log_probs: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            packed = shared_prompts.pack_groups(input_ids[rows], mask[rows], width)
            with self.accelerator.autocast():
                values = model(packed_groups=packed)
            for padded, value in zip((log_probs, entropies), values, strict=True):
                padded.append(value.new_zeros(packed.learned.shape).masked_scatter(packed.learned, value))
        return torch.cat(log_probs), torch.cat(entropies)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Compute TRL's loss. Rollouts of the CPU decoder get the correction that TRL applies to rollouts of vLLM."""
        if self.cpu_rollouts is None or not self.vllm_importance_sampling_correction:
            return super()._compute_loss(model, inputs)
        inputs = dict(inputs)
        if (old := inputs.get("old_per_token_logps")) is not None:
            self._correct(inputs, old)
        else:  # the weights are those of the rollouts: the log-probabilities of the loss are the old ones
            self._uncorrected = inputs
        self.use_vllm = True  # TRL 1.16 multiplies by `importance_sampling_ratio` only with it; read nowhere else here
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.use_vllm, self._uncorrected = False, None

    def _correct(self, inputs: dict[str, Any], old: torch.Tensor) -> None:
        """Put the importance ratio into a batch, and log the metrics of the correction.

        Args:
            inputs: the batch, with the sampler's log-probabilities.
            old: [rows, width] log-probabilities in the trainer before the step.
        """
        sampled, mask = inputs["sampling_per_token_logps"], inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]  # results of tools were not sampled
        ratio = importance_ratio(old, sampled, mask, **settings_of(self.args))
        inputs["importance_sampling_ratio"] = ratio
        self._uncorrected = None
        model: Any = self.model
        metrics = self._metrics["train" if model.training else "eval"]
        for name, value in correction_metrics(old, sampled, mask, ratio).items():
            metrics[name].append(value)

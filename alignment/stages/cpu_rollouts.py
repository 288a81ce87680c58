"""Generate GRPO's rollouts with the CPU decoder, which packs the weights and computes the prompt of a group once.

Temperature, top_k, top_p, min_p and repetition penalty are applied as in transformers. The decoder rounds differently
from the trainer, so the completions are drawn from slightly different probabilities. `RolloutTrainer` corrects this
difference by importance sampling, as TRL does for vLLM. Adapters are not merged, and dropout is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from alignment.evaluation.engines.cpu_decoder import unsupported_reason
from alignment.evaluation.engines.cpu_engine import CpuEngine
from alignment.evaluation.engines.protocol import GenerationJob
from alignment.logs import get_logger
from alignment.stages import loss
from alignment.stages.rollout_sampling import RolloutSampler, sampling_reason

logger = get_logger(__name__)

RolloutEngine = Literal["auto", "transformers", "cpu"]


def compute_dtype(model: Any, args: Any) -> torch.dtype:
    """Return the type in which a trainer computes matrix products: a 16-bit type under autocast, else the type of the
    weights.
    """
    if args.bf16:
        return torch.bfloat16
    return torch.float16 if args.fp16 else model.get_input_embeddings().weight.dtype


def cpu_reason(model: Any, args: Any) -> str | None:
    """Return the reason why the CPU decoder can't generate a trainer's rollouts, or None if the decoder can.

    Args:
        model: the unwrapped model, of transformers or PEFT.
        args: the GRPOConfig.
    """
    if args.use_vllm:
        return "use_vllm is set"
    if loss.is_sharded(next(model.parameters())):
        return "the weights are sharded"
    if args.fp16:
        return "float16"
    return unsupported_reason(model) or sampling_reason(args)


def uses_cpu_decoder(setting: RolloutEngine, model: Any, args: Any) -> bool:
    """Return whether the CPU decoder makes the rollouts. If slow rollouts by transformers are needed, log the reason.

    Args:
        setting: the stage's `rollout_engine`. `auto` is the CPU decoder in bfloat16 on a CPU.
        model: the unwrapped model, of transformers or PEFT.
        args: the GRPOConfig.

    Raises:
        ValueError: the setting is `cpu`, and the CPU decoder cannot make the rollouts.
    """
    if setting == "transformers":
        return False
    reason = cpu_reason(model, args)
    if setting == "cpu":
        if reason is not None:
            raise ValueError(f"rollout_engine: cpu cannot make these rollouts ({reason}): use `auto`")
        return True
    if model.device.type != "cpu" or args.use_vllm or compute_dtype(model, args) != torch.bfloat16:
        return False
    if reason is not None:
        logger.info("      rollouts by transformers, not by the faster CPU decoder: %s", reason)
    return reason is None


class CpuRollouts:
    """Generates completions with the current weights of the model."""

    def __init__(self, model: Any, tokenizer: Any, dtype: torch.dtype, stop: tuple[str, ...] = ()) -> None:
        """Keep a reference to the model. Its weights are packed only when completions are generated.

        Args:
            model: the unwrapped model, of transformers or PEFT, for which `cpu_reason` is None.
            tokenizer: the model's tokenizer.
            dtype: the type to compute in.
            stop: texts that end a completion.
        """
        self.stop = stop
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = dtype
        self._engine: CpuEngine | None = None
        self._step = -1

    def generate(
        self, prompts: Sequence[list[int]], config: Any, step: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return the token ids and log-probabilities of one completion for each prompt.

        The seed is drawn from torch's generator, which checkpoints save: a resumed run draws the same completions.

        Args:
            prompts: token ids; equal prompts are computed once.
            config: the trainer's GenerationConfig.
            step: number of optimizer steps so far. The weights are read again if it has changed.
        """
        first_seed = int(torch.randint(2**62, (1,)))
        engine = self._current_engine(step)
        sampler = RolloutSampler(config)
        engine.choose, engine.stop_ids = sampler, tuple(config.eos_token_id)
        jobs = [
            GenerationJob(
                key=str(number),
                ids=list(ids),
                max_new_tokens=config.max_new_tokens,
                seed=first_seed + number,
                stop=self.stop,
            )
            for number, ids in enumerate(prompts)
        ]
        for _ in engine.generate(jobs):
            pass
        drawn = [sampler.drawn[job.key] for job in jobs]
        return [[token for token, _ in row] for row in drawn], [[value for _, value in row] for row in drawn]

    def _current_engine(self, step: int) -> CpuEngine:
        """Return an engine with the weights after `step` optimizer steps. Frozen weights are packed only once."""
        if self._engine is None or (step != self._step and not self._engine.decoder.adapted):
            self._engine = None  # before the new one is made: both together would take twice the memory
            # Positions are checked where recipes are (`check_loaded`), as for rollouts by transformers.
            self._engine = CpuEngine(self.model, self.tokenizer, stop_ids=(), max_length=2**31, dtype=self.dtype)
        elif step != self._step:
            self._engine.decoder.refresh_adapters()
        self._step = step
        return self._engine

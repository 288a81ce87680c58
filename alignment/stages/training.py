"""Code shared by all training stages: load the model, resume, train, save, merge the adapter.

TRL runs the training loop.

A stage prepares its rows, then calls `train` with a function that makes a TRL trainer. `train` runs that trainer on
every rank. Afterwards rank 0 alone writes these files to the artifact:

    model/           full weights, config, generation config and tokenizer
    adapter/         the LoRA adapter, if the stage has `peft:`; model/ is then the merged model
    metrics.jsonl    the trainer's metrics, one line per logged step
    wandb/           W&B's files, unless tracking is disabled
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.logs import get_logger
from alignment.models import kernels, loading
from alignment.models.model_family import family_of
from alignment.models.precision import resolve_training
from alignment.models.source import ModelSource
from alignment.processes import heartbeat, wait_for
from alignment.recipe import TrainingStage
from alignment.recipe.adapter_checks import changes_base
from alignment.recipe.length_checks import check_loaded
from alignment.recipe.stage_request import StageRequest
from alignment.stages import merging
from alignment.stages.adapter_start import keep_start, subtract_start
from alignment.stages.callbacks import AlreadyTrained, Recorder
from alignment.stages.checkpoints import last_whole_checkpoint
from alignment.stages.configs import NO_BITSANDBYTES, lora_config, training_config
from alignment.stages.stopping import SWITCH
from alignment.stages.tracker_callback import TrackerCallback
from alignment.tracking.stage_trackers import open_trackers
from alignment.tracking.weights_and_biases import wandb_environment

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

    from alignment.stages.configs import TrainerConfig

    TrainerFactory = Callable[[PreTrainedModel, TrainerConfig, LoraConfig | None], Trainer]

logger = get_logger(__name__)


def load_stage_tokenizer(request: StageRequest) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the stage's model. This works before torch.distributed is initialized."""
    assert request.model is not None
    tokenizer = loading.load_tokenizer(request.model)
    if request.rank == 0 and request.stage.kind != "pretrain" and loading.replaces_template(tokenizer):
        template = "Qwen2.5-Coder's ChatML" if family_of(tokenizer).has_tools else f"{family_of(tokenizer).name}'s"
        logger.info("      conversations use %s template instead of the model's own", template)
    return tokenizer


def train(
    request: StageRequest,
    tokenizer: PreTrainedTokenizerBase,
    make_trainer: TrainerFactory,
    *,
    chat: bool,
    counts: dict[str, Any],
) -> dict[str, Any]:
    """Train, save the weights and merge the adapter. Training resumes from the newest complete checkpoint, if any.

    Args:
        request: the request to run the stage.
        tokenizer: the model's tokenizer.
        make_trainer: function of (model, config object, LoraConfig or None) that returns a TRL trainer.
        chat: whether the model ends its answers with `<|im_end|>` (SFT, DPO, GRPO) or `<|endoftext|>` (pretraining).
        counts: counts from the preparation of the rows.

    Returns:
        The stage's part of artifact.json: metrics, counts, device, context changes, attention kernel.
    """
    import torch

    stage = request.stage
    assert isinstance(stage, TrainingStage)
    os.environ.update(wandb_environment(request))
    wandb = request.tracking.wandb != "disabled"
    # This must come before training_config: once training settings exist, ZeRO-3 shards weights before they are drawn.
    source = _write_random_weights(request, tokenizer)
    source, autocast = _resolve_precision(request, stage, source)
    run_name = f"{request.recipe}/{request.name}"
    args = training_config(stage, request.seed, request.out, wandb=wandb, run_name=run_name, autocast=autocast)
    _check_world_size(request, args)
    lora = lora_config(stage)
    model, changes = _load_model(request, stage, source, tokenizer, chat)
    trainer = make_trainer(model, args, lora)
    start = request.out / "checkpoints" / "adapter_start.safetensors" if changes_base(stage.peft) else None
    if start:
        keep_start(trainer.model, start, write=request.rank == 0)
    recorder = Recorder(request.out, request.rank, request.world_size)
    trainer.add_callback(recorder)
    trackers = open_trackers(request)
    if trackers:
        trainer.add_callback(TrackerCallback(trackers))
    run = _run(request, trainer)
    folder = request.out / ("adapter" if lora else "model")
    trainer.save_model(str(folder))  # gathers the shards of ZeRO and FSDP
    trainer.accelerator.wait_for_everyone()
    _end_process_group()  # from here on rank 0 works alone: no other rank may wait for it in a collective
    metrics = run.metrics | recorder.timings() | _token_rate(trainer, counts, run)
    if (removed := counts.get("decontamination", {}).get("removed")) is not None:
        metrics["contaminated_rows_removed"] = removed
    metrics |= {f"fim_{name}": value for name, value in counts.get("fim", {}).items() if name != "level"}
    metrics["peak_memory_bytes"] = peak_memory_bytes()
    attention = model.config._attn_implementation
    if request.rank == 0 and lora:
        if start:
            subtract_start(folder, start)
        metrics |= _merge(request, stage, source, folder, chat)
    elif request.rank == 0:
        _save_configs(trainer, tokenizer, folder, chat)
    return {
        "metrics": metrics,
        "data": counts,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "context_changes": changes,
        "attention": attention,
    }


def _write_random_weights(request: StageRequest, tokenizer: Any) -> ModelSource:
    """Return the checkpoint to start from.

    If the stage starts from random weights, rank 0 first writes them to disk.
    """
    source = request.model
    assert source is not None
    if source.init is None:
        return source
    folder, pulse = request.out / "start", request.out / "starting"
    if request.rank != 0:
        wait_for(folder.is_dir, pulse, "write the random weights")
    elif not folder.is_dir():
        temporary = request.out / "start.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        with heartbeat(pulse):
            loading.write_random(source, tokenizer, request.seed, temporary)
            temporary.replace(folder)
    return source.model_copy(update={"init": None, "path": str(folder)})


def _resolve_precision(request: StageRequest, stage: TrainingStage, source: ModelSource) -> tuple[ModelSource, bool]:
    """Replace `dtype: auto` of the source by a definite type. Also return whether to compute in bfloat16 on a CPU."""
    if source.dtype != "auto":
        return source, False
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    sharded = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("DEEPSPEED", "FSDP"))
    device = accelerator.type if accelerator is not None else "cpu"
    precision = resolve_training(
        source.dtype, device, adapter=stage.peft is not None, master_weights=sharded and device != "cpu"
    )
    if request.rank == 0:
        logger.info("      weights in %s (%s)", precision.weights, precision.reason)
    return source.model_copy(update={"dtype": precision.weights}), precision.autocast


def _load_model(
    request: StageRequest, stage: TrainingStage, source: ModelSource, tokenizer: Any, chat: bool
) -> tuple[Any, list[str]]:
    """Load the model to train. Also return descriptions of what the stage's `context:` changed in it."""
    import torch

    arguments: dict[str, Any] = kernels.fused_kernels(source)
    if stage.quantization:
        arguments["quantization_config"] = _four_bit_config()
    source = kernels.choose_attention(source, stage.train)
    model, changes = loading.load_with_context(source, stage.context, tokenizer, **arguments)
    check_loaded(model.config, stage.train)
    loading.set_stop_tokens(model, tokenizer, chat)
    model.config.use_cache = False
    if request.rank == 0:
        for change in changes:
            logger.info("      %s", change)
        asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
        if not torch.accelerator.is_available() and not asked_for_cpu:
            logger.info("      no accelerator found: training on the CPU")
    return model, changes


@dataclass(frozen=True)
class _Run:
    """Metrics and duration of one call of `trainer.train`."""

    metrics: dict[str, Any]
    seconds: float
    resumed: bool


def _run(request: StageRequest, trainer: Any) -> _Run:
    """Run the trainer, starting from the newest intact checkpoint if there is a checkpoint."""
    from accelerate.utils import gather_object

    checkpoint = last_whole_checkpoint(
        Path(trainer.args.output_dir), request.world_size, request.rank, lambda damage: gather_object([damage])
    )
    if checkpoint and request.rank == 0:
        logger.info("      resumes from %s", checkpoint.name)
    begun, cpu = time.monotonic(), time.process_time()
    try:
        with SWITCH.until_step_ends():
            logged = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    except AlreadyTrained:
        logged = {}
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    metrics = {key: value for key, value in logged.items() if isinstance(value, int | float)}
    metrics |= {"steps": trainer.state.global_step, "train_seconds": round(seconds, 1)}
    metrics["train_cpu_seconds"] = round(cpu, 2)  # CPU time of this process, which does not depend on other load
    return _Run(metrics, seconds, resumed=checkpoint is not None)


def _merge(
    request: StageRequest, stage: TrainingStage, source: ModelSource, adapter: Path, chat: bool
) -> dict[str, float]:
    """Merge the adapter and write the merged model to `model/`.

    Merging runs in a separate process if several ranks trained, or under ZeRO-3, which would shard the model that is
    loaded for merging.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    merge_request = merging.MergeRequest(
        source=source.model_copy(update={"attn_implementation": None}),
        adapter=adapter,
        context=stage.context,
        chat=chat,
        out=request.out,
    )
    apart = request.world_size > 1 or is_deepspeed_zero3_enabled()
    return merging.merge_in_process(merge_request) if apart else merging.merge(merge_request)


def _save_configs(trainer: Any, tokenizer: Any, folder: Path, chat: bool) -> None:
    """Save config, generation config and tokenizer next to the weights, all with the same stop tokens."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    loading.set_stop_tokens(model, tokenizer, chat)
    model.config.use_cache = True
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that holds local paths


def _token_rate(trainer: Any, counts: dict[str, Any], run: _Run) -> dict[str, float]:
    """Return tokens and tokens per second over all ranks, without padding. The dict is empty for a resumed run.

    If the stage counted the tokens while it prepared the rows, that count is used. TRL 1.16 counts one row instead of
    the whole batch if the batch has no attention mask.
    """
    logged = next((log["num_tokens"] for log in reversed(trainer.state.log_history) if "num_tokens" in log), None)
    tokens = round(counts["tokens"] * (trainer.state.epoch or 0)) if "tokens" in counts else logged
    if not tokens or run.resumed or run.seconds <= 0:
        return {}
    return {"tokens": tokens, "tokens_per_second": round(tokens / run.seconds, 1)}


def peak_memory_bytes() -> int:
    """Return the peak memory so far in bytes: the memory of tensors on the GPU, or of this process if there is no
    GPU.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _check_world_size(request: StageRequest, args: Any) -> None:
    if args.world_size != request.world_size:
        raise ValueError(
            f"the launcher started {request.world_size} processes but training sees {args.world_size}: each process "
            "would train alone. Launch with one of the files in accelerate_configs/."
        )


def _four_bit_config() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ValueError(NO_BITSANDBYTES) from None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _end_process_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()

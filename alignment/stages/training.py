"""What the training stages share: settings, model, resume, save, merge. The training itself is TRL's."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.models import kernels, loading
from alignment.processes import heartbeat, wait_for
from alignment.recipe import TrainingStage
from alignment.recipe.lengths import check_loaded
from alignment.recipe.stage_request import Request
from alignment.stages import merging
from alignment.stages.callbacks import AlreadyTrained, Recorder, last_whole_checkpoint
from alignment.stages.configs import NO_BITSANDBYTES, lora_config, training_config
from alignment.tracking.weights_and_biases import wandb_environment

logger = get_logger(__name__)


def tokenizer_of(request: Request) -> Any:
    """The stage's tokenizer; loading it needs no distributed state."""
    assert request.model is not None
    tokenizer = loading.load_tokenizer(request.model)
    if request.rank == 0 and request.stage.kind != "pretrain" and loading.replaces_template(tokenizer):
        logger.info(
            "      the model's own chat template gives way to Qwen2.5-Coder's ChatML, which conversations are trained in"
        )
    return tokenizer


def train(
    request: Request,
    tokenizer: Any,
    make_trainer: Callable[[Any, Any, Any], Any],
    *,
    chat: bool,
    counts: dict[str, Any],
) -> dict[str, Any]:
    """Train with the trainer that `make_trainer(model, args, lora)` returns; save, and report.

    Goes on from the newest whole checkpoint. Leaves `model/`, and with LoRA also `adapter/`.
    """
    import torch

    stage: TrainingStage = request.stage
    assert request.model is not None
    os.environ.update(wandb_environment(request))
    wandb = request.tracking.wandb != "disabled"
    source = _start(request, tokenizer)
    args = training_config(stage, request.seed, request.out, wandb=wandb, run_name=f"{request.recipe}/{request.name}")
    _assert_world(request, args)
    lora = lora_config(stage)
    context = stage.context.model_dump() if stage.context else None
    kwargs: dict[str, Any] = kernels.kernels(request.model)
    if stage.quantization:
        kwargs["quantization_config"] = _four_bits()
    model, changes = loading.load_with_context(kernels.choose(source, stage), context, tokenizer, **kwargs)
    if request.rank == 0:
        for change in changes:
            logger.info(f"      {change}")
    check_loaded(model.config, stage.train)
    loading.set_stop_tokens(model, tokenizer, chat)
    model.config.use_cache = False
    if request.rank == 0 and not (
        torch.accelerator.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    ):
        logger.info("      no accelerator here: training on the CPU")
    trainer = make_trainer(model, args, lora)
    recorder = Recorder(request.out, request.rank, request.world_size)
    trainer.add_callback(recorder)
    checkpoint = last_whole_checkpoint(Path(args.output_dir), request.world_size, request.rank)
    if checkpoint and request.rank == 0:
        logger.info(f"      goes on from {checkpoint.name}")
    begun, cpu = time.monotonic(), time.process_time()
    try:
        found = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    except AlreadyTrained:
        found = {}
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    folder = request.out / ("adapter" if lora else "model")
    trainer.save_model(str(folder))  # gathers the shards of ZeRO and FSDP
    trainer.accelerator.wait_for_everyone()
    _end_process_group()  # from here on rank 0 is alone, and no other waits for it in a collective
    metrics = {key: value for key, value in found.items() if isinstance(value, int | float)}
    metrics |= {"steps": trainer.state.global_step, "train_seconds": round(seconds, 1)}
    metrics["train_cpu_seconds"] = round(cpu, 2)  # of this process: what a busy machine does not change
    if recorder.first_step is not None:
        metrics["seconds_to_first_step"] = round(recorder.first_step, 2)
        metrics["seconds_after_first_step"] = round(recorder.after_first_step, 3)
        metrics["seconds_from_start"] = round(recorder.from_start, 1)
    if (removed := counts.get("decontamination", {}).get("removed")) is not None:
        metrics["contaminated_rows_removed"] = removed
    metrics |= _token_rate(trainer, counts, seconds, resumed=checkpoint is not None)
    metrics["peak_memory_bytes"] = peak_memory()
    attended = model.config._attn_implementation
    if request.rank == 0 and not lora:
        _save_configs(trainer, tokenizer, folder, chat)
    elif request.rank == 0:
        from transformers.integrations import is_deepspeed_zero3_enabled

        # In a process of its own where several trained, or where ZeRO-3 would cut what is loaded here into shards.
        apart = request.world_size > 1 or is_deepspeed_zero3_enabled()
        merge = merging.merge_apart if apart else merging.merge
        metrics |= merge({**source, "attn_implementation": None}, folder, context, chat, request.out)
    return {
        "metrics": metrics,
        "data": counts,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "context_changes": changes,
        "attention": attended,
    }


def _start(request: Request, tokenizer: Any) -> dict[str, Any]:
    """The checkpoint to start from; random weights are written down first, by rank 0 alone.

    That comes before any training settings exist: from then on ZeRO-3 cuts every new weight into shards before it
    is drawn.
    """
    assert request.model is not None
    if not request.model.get("init"):
        return request.model
    folder, pulse = request.out / "start", request.out / "starting"
    if request.rank != 0:
        wait_for(folder.is_dir, pulse, "write the random weights")
    elif not folder.is_dir():
        temporary = request.out / "start.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        with heartbeat(pulse):
            loading.write_random(request.model, tokenizer, request.seed, temporary)
            temporary.replace(folder)
    return {**request.model, "init": None, "path": str(folder)}


def _save_configs(trainer: Any, tokenizer: Any, folder: Path, chat: bool) -> None:
    """Beside the gathered weights: config, generation config and tokenizer that agree on where to stop."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    loading.set_stop_tokens(model, tokenizer, chat)
    model.config.use_cache = True
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle with local paths, of no use to anyone


def _token_rate(trainer: Any, counts: dict[str, Any], seconds: float, resumed: bool) -> dict[str, float]:
    """Real tokens per second over all ranks, for a run that was whole.

    Where the stage prepared the tokens itself, by its own count: TRL 1.16 takes the length of one row for the tokens of
    a whole batch without attention mask.
    """
    counted = next((log["num_tokens"] for log in reversed(trainer.state.log_history) if "num_tokens" in log), None)
    tokens = round(counts["tokens"] * (trainer.state.epoch or 0)) if "tokens" in counts else counted
    if not tokens or resumed or seconds <= 0:
        return {}
    return {"tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}


def peak_memory() -> int:
    """Largest memory so far: of the device's tensors, or of this process where there is none; see `align plan`."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _assert_world(request: Request, args: Any) -> None:
    if args.world_size != request.world_size:
        raise ValueError(
            f"the launcher started {request.world_size} processes but training sees {args.world_size}: "
            "each would train alone. Use one of accelerate_configs/."
        )


def _four_bits() -> Any:
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

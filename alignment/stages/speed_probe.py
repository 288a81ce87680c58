"""Measure how fast this machine trains and generates with the shapes of a model, without the model's weights.

    python -m alignment.stages.speed_probe JOB.json

One decoder layer and the output layer of the given shape are computed with the code that the stages use: the tiled loss,
PEFT's adapters, and the CPU decoder. The time of a model is that of a layer times the number of layers, plus the rest. All
weights have the same value, since the time of a matrix product does not depend on the values.

Not covered: communication between devices, and loading of data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch

from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens
from alignment.evaluation.engines.protocol import GenerationJob
from alignment.export.fresh_process import run_job, serve_job
from alignment.models.shapes import Shape
from alignment.planning import speeds
from alignment.planning.memory import Lora, MicroBatch
from alignment.planning.speeds import DECODE_ROWS, DecodeTimes, TrainingTimes
from alignment.stages.loss import tiled_loss

LAYER_TOKENS, HEAD_TOKENS = 2048, 512
"""Largest number of tokens in the rows that are measured. Longer rows are computed from them."""
SECONDS = 1.5
"""Least time of the repetitions of one measurement, unless the first repetition takes longer."""
DECODE_PROMPT, DECODE_STEPS = 256, 6
"""Tokens of the prompts, and measured steps of decoding. The prompts are about as long as prompt and completion of a
benchmark's task in the middle of the generation, since attention takes longer the more tokens there are."""
BUSY = 0.2
"""If other processes use more than this share of the cores, the times are computed from CPU seconds."""


@dataclass(frozen=True)
class SpeedJob:
    """What to measure."""

    shape: dict[str, Any]
    batches: list[dict[str, Any]]
    """`MicroBatch`es, as dicts."""
    decode: bool
    """Whether to measure generation."""
    device: str


def measure(shape: Shape, batches: list[MicroBatch], device: str, *, decode: bool) -> None:
    """Measure in a fresh process, and keep the results in the cache of this machine.

    Raises:
        ValueError: the measurement failed, for example because memory ran out.
    """
    job = SpeedJob(asdict(shape), [asdict(micro) for micro in batches], decode, device)
    try:
        result = run_job("alignment.stages.speed_probe", asdict(job))
    except RuntimeError as error:
        raise ValueError(f"the speed of this machine could not be measured: {error}") from error
    speeds.add_measured(device, result["training"], result["decoding"])


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process: the entry point for `serve_job`."""
    settings = SpeedJob(**job)
    shape = Shape(**settings.shape)
    training = {}
    for values in settings.batches:
        lora = Lora(**{**values["lora"], "targets": tuple(values["lora"]["targets"])}) if values["lora"] else None
        micro = MicroBatch(**{**values, "lora": lora})
        training[speeds.training_key(shape, micro)] = training_times(shape, micro, settings.device)
    decoding = {speeds.decode_key(shape): decode_times(shape, settings.device)} if settings.decode else {}
    return {"training": training, "decoding": decoding}


def _model(shape: Shape, layers: int, vocabulary: int, dtype: torch.dtype, device: str) -> Any:
    """Return a Qwen2 model with `layers` layers whose weights all have the same value."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    config = Qwen2Config(**{**asdict(shape), "num_hidden_layers": layers, "vocab_size": vocabulary})
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM(config)
    model = model.to(dtype).to_empty(device=device)
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.model.rotary_emb = Qwen2RotaryEmbedding(config=config).to(device)
    return model


def training_times(shape: Shape, micro: MicroBatch, device: str) -> TrainingTimes:
    """Measure a layer, the output layer with the loss, and the update of a layer's weights, for one row."""
    dtype = getattr(torch, micro.dtype)
    # Rows longer than LAYER_TOKENS: products grow with the length, and attention a little faster.
    length = min(micro.length, LAYER_TOKENS)
    model = _model(shape, 1, 256, dtype, device)
    layer = model.model.layers[0].train()
    if micro.lora is not None:
        _add_adapters(layer, micro.lora)
    hidden = torch.full((1, length, shape.hidden_size), 0.01, dtype=dtype, device=device, requires_grad=True)
    positions = torch.arange(length, device=device)[None]
    embeddings = model.model.rotary_emb(hidden, positions)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril() if micro.masked else None
    gradient = torch.full_like(hidden, 1e-3)

    def layer_pass() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=micro.autocast):
            inputs: dict[str, Any] = {"position_embeddings": embeddings, "attention_mask": mask}
            if micro.checkpointing:
                from torch.utils.checkpoint import checkpoint

                output = checkpoint(layer, hidden, use_reentrant=False, **inputs)
            else:
                output = layer(hidden, **inputs)
            output = output[0] if isinstance(output, tuple) else output
        output.backward(gradient.to(output.dtype))

    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    layer_seconds = seconds_per_call(layer_pass, device) * micro.length / length
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    optimizer_seconds = seconds_per_call(optimizer.step, device)
    return {
        "layer": layer_seconds,
        "head": _head_seconds(shape, micro, dtype, device),
        "optimizer": optimizer_seconds,
        "trained": sum(parameter.numel() for parameter in trained),
    }


def _add_adapters(layer: Any, lora: Lora) -> None:
    """Freeze a layer and add LoRA adapters in float32, as PEFT does when it wraps a model."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=lora.rank, lora_dropout=lora.dropout, target_modules=list(lora.targets))
    layer.requires_grad_(False)
    inject_adapter_in_model(config, layer)
    for name, parameter in layer.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def _head_seconds(shape: Shape, micro: MicroBatch, dtype: torch.dtype, device: str) -> float:
    """Measure output layer and loss with their gradients, for one row."""
    tokens = min(micro.length, HEAD_TOKENS)
    weight = torch.full((shape.vocab_size, shape.hidden_size), 0.01, dtype=dtype, device=device)
    weight.requires_grad_(micro.lora is None)
    hidden = torch.full((1, tokens, shape.hidden_size), 0.01, dtype=dtype, device=device, requires_grad=True)
    labels = torch.zeros((1, tokens), dtype=torch.long, device=device)

    def head_pass() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=micro.autocast):
            loss = tiled_loss(hidden, weight, labels).loss
        loss.backward()

    scored = micro.completion if micro.completion and device != "cpu" else micro.length
    return seconds_per_call(head_pass, device) * scored / tokens


def decode_times(shape: Shape, device: str) -> DecodeTimes:
    """Measure a layer and the output layer for one new token of `DECODE_ROWS` sequences, and a layer for prompts."""
    from alignment.models.precision import resolve_dtype

    dtype = getattr(torch, resolve_dtype("auto", device).dtype)
    small = _decode_seconds(_model(shape, 2, 256, dtype, device), device)
    large = _decode_seconds(_model(shape, 1, shape.vocab_size, dtype, device), device)
    layer = small[0] / 2
    return {
        "layer": layer,
        "head": max(large[0] - layer, 0.0),
        "prefill_layer": small[1] / 2 / (DECODE_ROWS * DECODE_PROMPT),
    }


def _decode_seconds(model: Any, device: str) -> tuple[float, float]:
    """Return the seconds of one step of decoding, and of the prompts of all sequences."""
    prompts = [[number % 200] * DECODE_PROMPT for number in range(DECODE_ROWS)]
    sequences = [DecodedSequence(GenerationJob(str(number), ids, 99), 99) for number, ids in enumerate(prompts)]
    with torch.inference_mode():
        if device == "cpu" and model.dtype == torch.bfloat16:
            from alignment.evaluation.engines.cpu_decoder import CpuDecoder

            decoder = CpuDecoder(model)
            started = Clock(device)
            cache, _ = decoder.prefill(prompts, 1, DECODE_STEPS + 2)
            prefill = started.seconds()
            tokens = torch.zeros((DECODE_ROWS, 1), dtype=torch.long)

            def step() -> Any:
                return choose_tokens(decoder.step(cache, tokens).view(DECODE_ROWS, -1), sequences)
        else:
            from transformers import DynamicCache

            past = DynamicCache(config=model.config)
            ids = torch.tensor(prompts, device=device)
            started = Clock(device)
            model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            prefill = started.seconds()

            def step() -> Any:
                output = model(input_ids=ids[:, :1], past_key_values=past, use_cache=True, logits_to_keep=1)
                return choose_tokens(output.logits[:, -1].float(), sequences)

        step()
        clock = Clock(device)
        for _ in range(DECODE_STEPS):
            step()
        return clock.seconds() / DECODE_STEPS, prefill


class Clock:
    """Measures the time since its creation.

    If other processes use the cores, the result is the CPU time of this process divided by its threads: about the time on
    a quiet machine.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._synchronize()
        self.wall, self.cpu, self.others = time.perf_counter(), time.process_time(), _busy_seconds()

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self) -> float:
        """Return the time in seconds."""
        self._synchronize()
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        others = _busy_seconds() - self.others - cpu
        if self.device == "cpu" and others > BUSY * wall * (psutil.cpu_count() or 1):
            return cpu / torch.get_num_threads()
        return wall


def _busy_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def seconds_per_call(function: Callable[[], Any], device: str) -> float:
    """Return the mean time of a call, after one call that is not measured."""
    function()
    clock = Clock(device)
    calls = 0
    while calls == 0 or time.perf_counter() - clock.wall < SECONDS:
        function()
        calls += 1
    return clock.seconds() / calls


if __name__ == "__main__":
    serve_job(run)

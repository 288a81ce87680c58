"""The memory model against PyTorch: bytes that autograd keeps of a layer, and sizes of models and adapters."""

import warnings
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from alignment.models.shapes import SHAPES, Shape, config
from alignment.planning import memory
from alignment.planning.memory import Lora, MicroBatch
from alignment.recipe.launch_file import Layout

SMALL = Shape(128, 1, 8, 2, 320, True, 512, 1e-6)
TOKENS, LENGTH = 297, 99


def kept_bytes(micro: MicroBatch) -> float:
    """Bytes that autograd keeps of one decoder layer for each token, measured on the CPU."""
    dtype = getattr(torch, micro.dtype)
    settings = Qwen2Config(
        hidden_size=128, intermediate_size=320, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=512, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    model.config.use_cache = False
    if micro.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=micro.lora.rank, lora_dropout=micro.lora.dropout, target_modules=list(micro.lora.targets),
            task_type="CAUSAL_LM",
        )  # fmt: skip
        model = get_peft_model(model, lora).base_model.model
    model.train()
    inner = model.model
    hidden = torch.randn(TOKENS // LENGTH, LENGTH, 128, dtype=dtype, requires_grad=True)
    positions = torch.arange(LENGTH)[None].expand(TOKENS // LENGTH, LENGTH)
    embeddings = inner.rotary_emb(hidden, positions)
    mask = torch.ones(TOKENS // LENGTH, 1, LENGTH, LENGTH, dtype=torch.bool).tril() if micro.masked else None
    shared = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *embeddings]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        # Copies of weights that autocast makes are counted once for the whole forward, not with a layer.
        if storage.data_ptr() not in shared and tensor.shape[0] in (TOKENS, TOKENS // LENGTH):
            kept[storage.data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=micro.autocast),
    ):
        inner.layers[0](hidden, attention_mask=mask, position_embeddings=embeddings, position_ids=positions)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / TOKENS


FULL = MicroBatch(rows=3, length=LENGTH, dtype="float32", autocast=False)
LORA = replace(FULL, lora=Lora(4))


@pytest.mark.parametrize(
    "micro",
    [
        FULL,
        replace(FULL, masked=True),
        replace(FULL, dtype="bfloat16", autocast=True),
        replace(FULL, autocast=True),
        LORA,
        replace(LORA, lora=Lora(4, 0.1)),
        replace(LORA, lora=Lora(4, 0.0, ("q_proj", "v_proj"))),
        replace(LORA, dtype="bfloat16", autocast=True),
        replace(LORA, dtype="bfloat16", autocast=True, lora=Lora(4, 0.1)),
    ],
    ids=["float32", "masked", "bf16", "autocast", "lora", "dropout", "two-targets", "lora-bf16", "lora-bf16-dropout"],
)
def test_predicted_activations_are_those_that_autograd_keeps(micro):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert memory.layer_bytes(SMALL, micro, "cpu") == pytest.approx(kept_bytes(micro), rel=0.01)


@pytest.mark.parametrize("size", SHAPES)
def test_an_adapter_has_as_many_weights_as_pefts(size):
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(size))
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert memory.adapter_parameters(SHAPES[size], Lora(8)) == trained


def peak(**settings):
    layout = settings.pop("layout", Layout())
    return memory.predict(SHAPES["7b"], MicroBatch(**{"rows": 1, "length": 4096, **settings}), layout)


def test_each_zero_stage_divides_its_parts():
    alone = peak(layout=Layout(8, 0, master_weights=True)).parts
    for stage, parts in (
        (1, ["optimizer"]),
        (2, ["optimizer", "gradients"]),
        (3, ["optimizer", "gradients", "weights"]),
    ):
        sharded = peak(layout=Layout(8, stage, master_weights=True)).parts
        for part in parts:
            assert sharded[part] <= alone[part] / 8 * 1.001


def test_full_bf16_with_master_weights_takes_sixteen_bytes_per_weight():
    parts = peak(layout=Layout(1, 1, master_weights=True)).parts
    weights = SHAPES["7b"].parameters
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == pytest.approx(16 * weights)


def test_four_bits_take_about_half_a_byte_per_weight_and_leave_the_embeddings():
    shape = SHAPES["7b"]
    size = memory.weight_bytes(shape, "bfloat16", quantized=True)
    embeddings = 2 * shape.vocab_size * shape.hidden_size
    assert size == pytest.approx(2 * embeddings + 0.516 * (shape.parameters - embeddings), rel=0.01)


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"attention": "flash_attention_2", "masked": False}])
def test_settings_that_save_memory_lower_the_prediction(change):
    plain = {"checkpointing": False, "masked": True}
    assert peak(**{**plain, **change}).total < peak(**plain).total


@pytest.mark.parametrize("change", [{"rows": 2}, {"length": 8192}, {"reference": True}, {"accumulate": 2}])
def test_settings_that_need_memory_raise_the_prediction(change):
    assert peak(**change).total > peak().total


def test_offloading_moves_bytes_to_the_host():
    offloaded = peak(layout=Layout(8, 3, offload_optimizer=True, offload_weights=True, master_weights=True))
    plain = peak(layout=Layout(8, 3, master_weights=True))
    assert offloaded.total < plain.total and offloaded.host > 0 == plain.host


def test_sequence_parallelism_divides_the_activations():
    long = {"length": 32768, "layout": Layout(8, 3, sequence=4, master_weights=True)}
    assert peak(**long).parts["activations"] == pytest.approx(
        peak(length=32768, layout=Layout(8, 3, master_weights=True)).parts["activations"] / 4
    )


def test_the_largest_batch_fits_and_one_more_does_not():
    micro, layout, card = MicroBatch(1, 4096, lora=Lora(8)), Layout(), 80 * memory.GIB
    rows = memory.largest_batch(SHAPES["7b"], micro, layout, card)
    assert memory.fits(SHAPES["7b"], replace(micro, rows=rows), layout, card)
    assert not memory.fits(SHAPES["7b"], replace(micro, rows=rows + 1), layout, card)

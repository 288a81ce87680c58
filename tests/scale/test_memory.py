"""The memory model against PyTorch: what autograd keeps of a layer, and what models and adapters weigh."""

import warnings
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from alignment.models.shapes import SHAPES, Shape, config
from alignment.planning import memory
from alignment.planning.memory import Lora, Work
from alignment.recipe.launch_file import Layout

SMALL = Shape(128, 1, 8, 2, 320, True, 512, 1e-6)
TOKENS, LENGTH = 297, 99


def kept_bytes(work: Work) -> float:
    """Bytes a token that autograd really keeps of one decoder layer, on the CPU."""
    dtype = getattr(torch, work.dtype)
    settings = Qwen2Config(
        hidden_size=128, intermediate_size=320, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=512, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    model.config.use_cache = False
    if work.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=work.lora.rank, lora_dropout=work.lora.dropout, target_modules=list(work.lora.targets),
            task_type="CAUSAL_LM",
        )  # fmt: skip
        model = get_peft_model(model, lora).base_model.model
    model.train()
    inner = model.model
    hidden = torch.randn(TOKENS // LENGTH, LENGTH, 128, dtype=dtype, requires_grad=True)
    positions = torch.arange(LENGTH)[None].expand(TOKENS // LENGTH, LENGTH)
    embeddings = inner.rotary_emb(hidden, positions)
    mask = torch.ones(TOKENS // LENGTH, 1, LENGTH, LENGTH, dtype=torch.bool).tril() if work.masked else None
    shared = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *embeddings]}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        # Copies of weights that autocast makes are counted once for the whole forward, not with a layer.
        if storage.data_ptr() not in shared and tensor.shape[0] in (TOKENS, TOKENS // LENGTH):
            found[storage.data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=work.autocast),
    ):
        inner.layers[0](hidden, attention_mask=mask, position_embeddings=embeddings, position_ids=positions)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values()) / TOKENS


FULL = Work(batch=3, length=LENGTH, dtype="float32", autocast=False)
LORA = replace(FULL, lora=Lora(4))


@pytest.mark.parametrize(
    "work",
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
def test_kept_activations_are_those_that_autograd_keeps(work):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert memory.layer_bytes(SMALL, work, "cpu") == pytest.approx(kept_bytes(work), rel=0.01)


@pytest.mark.parametrize("size", SHAPES)
def test_an_adapter_weighs_what_peft_makes(size):
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(size))
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert memory.adapter_parameters(SHAPES[size], Lora(8)) == trained


def peak(**settings):
    layout = settings.pop("layout", Layout())
    return memory.predict(SHAPES["7b"], Work(**{"batch": 1, "length": 4096, **settings}), layout)


def test_sharding_divides_what_its_stage_says():
    alone = peak(layout=Layout(8, 0, master_weights=True)).parts
    for stage, parts in (
        (1, ["optimizer"]),
        (2, ["optimizer", "gradients"]),
        (3, ["optimizer", "gradients", "weights"]),
    ):
        found = peak(layout=Layout(8, stage, master_weights=True)).parts
        for part in parts:
            assert found[part] <= alone[part] / 8 * 1.001


def test_full_bf16_with_master_weights_takes_sixteen_bytes_a_weight():
    parts = peak(layout=Layout(1, 1, master_weights=True)).parts
    weights = SHAPES["7b"].parameters
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == pytest.approx(16 * weights)


def test_four_bits_take_about_half_a_byte_a_weight_and_leave_the_embeddings():
    shape = SHAPES["7b"]
    found = memory.weight_bytes(shape, "bfloat16", quantized=True)
    embeddings = 2 * shape.vocab_size * shape.hidden_size
    assert found == pytest.approx(2 * embeddings + 0.516 * (shape.parameters - embeddings), rel=0.01)


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"attention": "flash_attention_2", "masked": False}])
def test_what_saves_memory_lowers_the_prediction(change):
    plain = {"checkpointing": False, "masked": True}
    assert peak(**{**plain, **change}).total < peak(**plain).total


@pytest.mark.parametrize("change", [{"batch": 2}, {"length": 8192}, {"reference": True}, {"accumulate": 2}])
def test_what_takes_memory_raises_the_prediction(change):
    assert peak(**change).total > peak().total


def test_offloading_moves_bytes_to_the_host():
    there = peak(layout=Layout(8, 3, offload_optimizer=True, offload_weights=True, master_weights=True))
    here = peak(layout=Layout(8, 3, master_weights=True))
    assert there.total < here.total and there.host > 0 == here.host


def test_sequence_parallelism_divides_the_activations():
    long = {"length": 32768, "layout": Layout(8, 3, sequence=4, master_weights=True)}
    assert peak(**long).parts["activations"] == pytest.approx(
        peak(length=32768, layout=Layout(8, 3, master_weights=True)).parts["activations"] / 4
    )


def test_the_largest_batch_fits_and_one_more_does_not():
    work, layout, card = Work(1, 4096, lora=Lora(8)), Layout(), 80 * memory.GIB
    best = memory.largest_batch(SHAPES["7b"], work, layout, card)
    assert memory.fits(SHAPES["7b"], replace(work, batch=best), layout, card)
    assert not memory.fits(SHAPES["7b"], replace(work, batch=best + 1), layout, card)

"""The plan of memory assumes the same attention masks and the same loss that the trainer uses."""

import pytest

from alignment.models.shapes import SHAPES
from alignment.planning.memory import predict
from alignment.planning.resources import micro_batch_of
from alignment.recipe import BaseModelSettings
from alignment.recipe.launch_file import Layout
from alignment.recipe.stage_request import parse_stage

CPU, CARD = Layout(device="cpu"), Layout()


def micro_batch(kind, layout=CPU, attention=None, **train):
    stage = {"name": kind, "kind": kind, "data": [{"data": "rows.jsonl"}], "train": train}
    model = BaseModelSettings(path="model", dtype="float32", attn_implementation=attention)
    return micro_batch_of(parse_stage(stage), model, layout)


@pytest.mark.parametrize("layout", [CPU, CARD])
def test_packed_rows_need_no_mask_with_sdpa_or_flash_attention(layout):
    for attention in (None, "sdpa", "flash_attention_2"):
        assert not micro_batch("sft", layout, attention, packing=True).masked


def test_eager_attention_compiled_models_and_sequence_parallelism_need_a_mask():
    assert micro_batch("sft", attention="eager", packing=True).masked
    assert micro_batch("pretrain", torch_compile=True).masked
    assert micro_batch("sft", Layout(4, 3, sequence=4), packing=True).masked
    assert micro_batch("dpo").masked and not micro_batch("sft", attention="eager").masked


@pytest.mark.parametrize(
    ("layout", "train"),
    [(CARD, {}), (CPU, {"torch_compile": True}), (CPU, {"loss_type": "dft"}), (CPU, {"label_smoothing_factor": 0.1})],
)
def test_the_loss_is_trls_where_the_trainer_uses_it(layout, train):
    assert micro_batch("sft").own_loss and micro_batch("pretrain").own_loss and not micro_batch("dpo").own_loss
    assert not micro_batch("sft", layout, **train).own_loss


def test_our_loss_needs_less_memory_than_trls_without_triton():
    own = micro_batch("sft", per_device_train_batch_size=2, max_length=2048)
    other = micro_batch("sft", per_device_train_batch_size=2, max_length=2048, loss_type="dft")
    loss = [predict(SHAPES["0.5b"], micro, CPU).parts["loss"] for micro in (own, other)]
    assert loss[0] < loss[1]


@pytest.mark.parametrize(
    ("layout", "train", "packed"),
    [
        (CPU, {"bf16": True}, True),
        (CPU, {}, False),
        (CARD, {"bf16": True}, False),
        (CPU, {"bf16": True, "use_vllm": True}, False),
    ],
)
def test_rollouts_of_the_cpu_decoder_need_packed_weights(layout, train, packed):
    micro = micro_batch("grpo", layout, **train)
    assert micro.packed_rollouts is packed
    parts = predict(SHAPES["0.5b"], micro, layout).parts
    assert ("rollout weights" in parts) is packed
    assert not packed or parts["rollout weights"] > 2 * SHAPES["0.5b"].parameters

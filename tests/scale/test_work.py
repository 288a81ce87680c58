"""What the plan takes a stage's work for: which kernels get a mask, and whose loss it is, as the trainer would choose."""

import pytest

from alignment.models.shapes import SHAPES
from alignment.planning.memory import predict
from alignment.planning.resources import work_of
from alignment.recipe import BaseModelSettings
from alignment.recipe.launch_file import Layout
from alignment.recipe.stage_request import parse_stage

CPU, CARD = Layout(device="cpu"), Layout()


def work(kind, layout=CPU, attention=None, **train):
    stage = parse_stage({"name": kind, "kind": kind, "data": [{"data": "rows.jsonl"}], "train": train})
    model = BaseModelSettings(path="model", dtype="float32", attn_implementation=attention)
    return work_of(stage, model, layout)


@pytest.mark.parametrize("layout", [CPU, CARD])
def test_packed_rows_need_no_mask_with_sdpa_and_with_flash(layout):
    for attention in (None, "sdpa", "flash_attention_2"):
        assert not work("sft", layout, attention, packing=True).masked


def test_eager_compiled_and_shared_rows_keep_their_mask():
    assert work("sft", attention="eager", packing=True).masked
    assert work("pretrain", torch_compile=True).masked
    assert work("sft", Layout(4, 3, sequence=4), packing=True).masked
    assert work("dpo").masked and not work("sft", attention="eager").masked


@pytest.mark.parametrize(
    ("layout", "train"),
    [(CARD, {}), (CPU, {"torch_compile": True}), (CPU, {"loss_type": "dft"}), (CPU, {"label_smoothing_factor": 0.1})],
)
def test_the_loss_is_trls_where_the_trainer_leaves_it_to_trl(layout, train):
    assert work("sft").own_loss and work("pretrain").own_loss and not work("dpo").own_loss
    assert not work("sft", layout, **train).own_loss


def test_our_loss_takes_less_than_trls_without_triton():
    own = work("sft", per_device_train_batch_size=2, max_length=2048)
    other = work("sft", per_device_train_batch_size=2, max_length=2048, loss_type="dft")
    loss = [predict(SHAPES["0.5b"], one, CPU).parts["loss"] for one in (own, other)]
    assert loss[0] < loss[1]

"""TokenTrainer has the losses, metrics and weights of TRL's SFTTrainer on the same rows, whichever loss it uses."""

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from alignment.models import loading
from alignment.models.source import RandomInit
from alignment.stages import sample_attention
from alignment.stages.token_trainer import TokenTrainer
from alignment.tokenization.packing import pack

INIT = RandomInit(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def rows():
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(48):
        length = int(torch.randint(4, 30, (), generator=draw))
        ids = torch.randint(0, 200, (length,), generator=draw).tolist()
        found.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]], "length": length})
    return Dataset.from_list(found)


@pytest.fixture
def trained(rows, tiny_tokenizer, tmp_path):
    """A function that trains three steps and returns the trainer and its log."""

    def run(trainer, packed, peft=None, ours=None, **settings):
        data = pack(rows, 64, 0, tmp_path) if packed else rows.remove_columns("length")
        args = SFTConfig(
            output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2,
            learning_rate=1e-2, logging_steps=1, report_to=[], disable_tqdm=True, use_cpu=True, max_length=64,
            save_strategy="no", packing=packed, gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True}, **{"bf16": False, **settings},
        )  # fmt: skip
        model = loading.random_model(INIT, tiny_tokenizer, 0)
        model.config.use_cache = False
        trainer = trainer(
            **(ours or {}),
            model=model,
            args=args,
            train_dataset=data,
            processing_class=tiny_tokenizer,
            peft_config=peft,
        )
        trainer.train()
        return trainer, [log for log in trainer.state.log_history if "loss" in log]

    return run


def _same(first, second):
    (_, expected), (trainer, found) = first, second
    assert len(found) == len(expected) == 3
    for key in ("loss", "grad_norm", "entropy", "mean_token_accuracy"):
        assert [log[key] for log in found] == pytest.approx([log[key] for log in expected], rel=2e-3, abs=1e-4), key
    for name, weight in first[0].model.named_parameters():
        torch.testing.assert_close(weight, dict(trainer.model.named_parameters())[name], rtol=1e-2, atol=1e-4)


OURS = {"packed": False, "by_length": False}


@pytest.mark.parametrize("packed", [False, True])
def test_training_equals_that_of_trl(trained, packed):
    ours = trained(TokenTrainer, packed, ours={**OURS, "packed": packed})
    assert ours[0].tiles_loss
    assert ours[0].model.config._attn_implementation == sample_attention.NAME
    _same(trained(SFTTrainer, packed), ours)


def test_training_an_adapter_equals_that_of_trl(trained):
    from peft import LoraConfig

    def lora():
        torch.manual_seed(0)
        return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")

    ours = trained(TokenTrainer, False, peft=lora(), ours=OURS)
    assert ours[0].tiles_loss
    _same(trained(SFTTrainer, False, peft=lora()), ours)


@pytest.mark.parametrize("settings", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.1}])
def test_other_losses_are_computed_by_trl(trained, settings):
    ours = trained(TokenTrainer, False, ours=OURS, **settings)
    assert not ours[0].tiles_loss
    _same(trained(SFTTrainer, False, **settings), ours)


def test_in_bfloat16_loss_and_entropy_are_close_to_those_of_trl(trained):
    (_, expected), (ours, found) = (
        trained(SFTTrainer, True, bf16=True),
        trained(TokenTrainer, True, ours={**OURS, "packed": True}, bf16=True),
    )
    assert ours.tiles_loss
    for key in ("loss", "entropy"):
        assert [log[key] for log in found] == pytest.approx([log[key] for log in expected], rel=2e-2), key


def test_evaluation_gives_the_figures_of_trl_and_leaves_no_gradient(trained, rows):
    held_out = rows.select(range(9)).remove_columns("length")
    (theirs, _), (ours, _) = trained(SFTTrainer, False), trained(TokenTrainer, False, ours=OURS)
    expected, found = theirs.evaluate(held_out), ours.evaluate(held_out)
    for key in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert found[key] == pytest.approx(expected[key], rel=2e-3), key
    assert all(weight.grad is None for weight in ours.model.parameters())


def test_padding_is_not_counted_as_tokens(trained):
    _, logs = trained(TokenTrainer, True, ours={**OURS, "packed": True})
    counted = logs[-1]["num_tokens"]
    assert counted == pytest.approx(3 * 4 * 64, rel=0.1)
    _, padded = trained(TokenTrainer, False, ours=OURS)
    assert 0 < padded[-1]["num_tokens"] < 3 * 4 * 30

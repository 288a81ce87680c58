"""Attention sample by sample gives the results of the block-diagonal mask."""

import pytest
import torch

from alignment.stages import sample_attention
from alignment.tokenization.packed_collator import PackedRowCollator


def _batch(*rows):
    draw = torch.Generator().manual_seed(0)
    examples = []
    for sizes in rows:
        ids = torch.randint(0, 256, (sum(sizes),), generator=draw).tolist()
        examples.append({"input_ids": ids, "labels": ids, "seq_lengths": list(sizes)})
    return PackedRowCollator(0)(examples)


def _both(model, run):
    masked = run(model)
    sample_attention.enable(model)
    assert model.config._attn_implementation == sample_attention.NAME
    return masked, run(model)


ROWS = [((1, 1, 20, 18), (30,)), ((40,), (40,)), ((5, 5, 5), (1, 1, 1)), ((13,),)]


@pytest.mark.parametrize("rows", ROWS)
def test_logits_and_gradients_equal_those_with_the_mask(model, rows):
    batch = _batch(*rows)
    weights = list(model.parameters())

    def run(model):
        output = model(**batch)
        return output.logits[batch["labels"] != -100], torch.autograd.grad(output.loss, weights)

    (logits, gradients), (ours, mine) = _both(model, run)
    torch.testing.assert_close(logits, ours, rtol=1e-4, atol=1e-4)
    for expected, actual in zip(gradients, mine, strict=True):
        torch.testing.assert_close(expected, actual, rtol=1e-3, atol=1e-5)


def test_gradients_are_the_same_with_gradient_checkpointing(model):
    batch = _batch((9, 21, 4), (34,))
    sample_attention.enable(model)
    weights = list(model.parameters())
    plain = torch.autograd.grad(model(**batch).loss, weights)
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for expected, actual in zip(plain, torch.autograd.grad(model(**batch).loss, weights), strict=True):
        torch.testing.assert_close(expected, actual)


def test_sample_sizes_are_those_of_each_batch(model):
    sample_attention.enable(model)
    for rows in (((3, 7),), ((7, 3),), ((10,),)):
        assert sample_attention.sample_sizes(_batch(*rows)["position_ids"]) == list(rows[0])


def test_padding_to_the_left_and_generation_are_unchanged(model):
    ids = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])

    def run(model):
        return model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=True)

    before, after = _both(model, run)
    assert torch.equal(before, after)


def test_padding_to_the_right_needs_no_mask_and_changes_nothing_before_it(model):
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels = ids.masked_fill(mask == 0, -100)
    weights = list(model.parameters())

    def run(model):
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        return output.logits[mask.bool()], torch.autograd.grad(output.loss, weights)

    (logits, gradients), (ours, mine) = _both(model, run)
    torch.testing.assert_close(logits, ours, rtol=1e-4, atol=1e-4)
    for expected, actual in zip(gradients, mine, strict=True):
        torch.testing.assert_close(expected, actual, rtol=1e-3, atol=1e-5)


def test_one_row_of_positions_applies_to_all_rows(model):
    ids = torch.randint(0, 256, (3, 12), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]])
    masked, ours = _both(model, lambda model: model(input_ids=ids, position_ids=positions).logits)
    torch.testing.assert_close(masked, ours, rtol=1e-4, atol=1e-4)


def test_tokens_after_a_cache_attend_to_all_tokens_in_it(model):
    ids = torch.randint(0, 256, (1, 14), generator=torch.Generator().manual_seed(2))

    def run(model):
        first = model(input_ids=ids[:, :9], use_cache=True)
        return model(input_ids=ids[:, 9:], past_key_values=first.past_key_values, use_cache=True).logits

    masked, ours = _both(model, run)
    torch.testing.assert_close(masked, ours, rtol=1e-4, atol=1e-4)


def test_other_kernels_windows_and_compiled_models_keep_their_attention(model):
    sample_attention.enable(model, compiled=True)
    assert model.config._attn_implementation == "sdpa"
    model.config.layer_types = ["full_attention", "sliding_attention"]
    sample_attention.enable(model)
    assert model.config._attn_implementation == "sdpa"
    model.config.layer_types = None
    model.config.model_type = "mistral"  # whose layers have a window that no list of them names
    sample_attention.enable(model)
    assert model.config._attn_implementation == "sdpa"
    model.config.model_type = "qwen2"
    model.set_attn_implementation("eager")
    sample_attention.enable(model)
    assert model.config._attn_implementation == "eager"


def test_the_attention_is_not_saved_with_the_model(model, tmp_path):
    sample_attention.enable(model)
    model.save_pretrained(tmp_path)
    assert sample_attention.NAME not in (tmp_path / "config.json").read_text()

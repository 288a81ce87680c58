"""The arithmetic of merges, and the checks that checkpoints have the same tensors."""

import pytest
import torch

from alignment.models import loading
from alignment.models.source import RandomInit
from alignment.models.weight_merging import merge_into, merge_tensors

INIT = RandomInit(
    hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
)


@pytest.fixture
def checkpoints(tmp_path, tiny_tokenizer):
    """Folders of three models of one shape with different random weights."""
    folders = []
    for seed in range(3):
        folders.append(tmp_path / str(seed))
        loading.save(loading.random_model(INIT, tiny_tokenizer, seed), tiny_tokenizer, folders[-1])
    return folders


def weights_of(folder):
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


def merged(checkpoints, weights, **settings):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoints[0], dtype=torch.float32)
    merge_into(model, checkpoints, weights, **settings)
    return dict(model.named_parameters())


def test_a_linear_merge_is_the_weighted_mean(checkpoints):
    first, second = weights_of(checkpoints[0]), weights_of(checkpoints[1])
    result = merged(checkpoints[:2], [3.0, 1.0], method="linear")
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name])


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_weight_of_zero_leaves_the_other_model_as_it_is(checkpoints, method):
    first = weights_of(checkpoints[0])
    for name, tensor in merged(checkpoints[:2], [1.0, 0.0], method=method).items():
        torch.testing.assert_close(tensor, first[name])


def test_task_arithmetic_adds_the_differences_to_the_base(checkpoints):
    first, second, base = (weights_of(folder) for folder in checkpoints)
    result = merged(checkpoints[:2], [1.0, 0.5], method="task_arithmetic", base=checkpoints[2])
    for name, tensor in result.items():
        expected = base[name] + (first[name] - base[name]) + 0.5 * (second[name] - base[name])
        torch.testing.assert_close(tensor, expected)


def test_ties_keeps_the_largest_differences_that_agree_in_sign():
    base = torch.zeros(4)
    differences = [torch.tensor([4.0, 0.1, -3.0, 0.2]), torch.tensor([2.0, 5.0, 1.0, 0.1])]
    # Half of each: [4, 0, -3, 0] and [2, 5, 0, 0]. The values that agree in sign are averaged.
    result = merge_tensors("ties", differences, [1.0, 1.0], base, 0.5)
    torch.testing.assert_close(result, torch.tensor([3.0, 5.0, -3.0, 0.0]))


def test_dare_keeps_a_share_of_the_differences_and_enlarges_them():
    base = torch.ones(10_000)
    torch.manual_seed(0)
    result = merge_tensors("dare_linear", [base + 1.0], [1.0], base, 0.25) - base
    assert set(result.tolist()) == {0.0, 4.0}
    assert result.mean().item() == pytest.approx(1.0, abs=0.1)


def test_slerp_of_two_directions_keeps_the_length():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    middle = merge_tensors("slerp", [first, second], [1.0, 1.0], None, 1.0)
    torch.testing.assert_close(middle, torch.tensor([0.5**0.5, 0.5**0.5]))


def test_slerp_of_parallel_tensors_is_linear():
    tensor = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(merge_tensors("slerp", [tensor, 3 * tensor], [1.0, 1.0], None, 1.0), 2 * tensor)
    torch.testing.assert_close(merge_tensors("slerp", [tensor, 0 * tensor], [1.0, 1.0], None, 1.0), tensor / 2)


def test_the_random_choice_of_dare_depends_on_the_seed_alone(checkpoints):
    settings = {"method": "dare_ties", "base": checkpoints[2], "density": 0.5}
    once = merged(checkpoints[:2], [1.0, 1.0], seed=1, **settings)
    torch.manual_seed(99)
    again = merged(checkpoints[:2], [1.0, 1.0], seed=1, **settings)
    other = merged(checkpoints[:2], [1.0, 1.0], seed=2, **settings)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not all(torch.equal(once[name], other[name]) for name in once)


def test_a_model_of_another_size_is_refused(checkpoints, tmp_path, tiny_tokenizer):
    larger = INIT.model_copy(update={"intermediate_size": 64})
    loading.save(loading.random_model(larger, tiny_tokenizer, 0), tiny_tokenizer, tmp_path / "larger")
    with pytest.raises(ValueError, match=r"has the shape .* only models of the same size can be merged"):
        merged([checkpoints[0], tmp_path / "larger"], [1.0, 1.0], method="linear")


def test_a_model_with_an_untied_output_layer_is_refused(checkpoints, tmp_path, tiny_tokenizer):
    deeper = INIT.model_copy(update={"num_hidden_layers": 2})
    loading.save(loading.random_model(deeper, tiny_tokenizer, 0), tiny_tokenizer, tmp_path / "deeper")
    with pytest.raises(ValueError, match=r"has a tensor model\.layers\.1\..* unlike the first model"):
        merged([checkpoints[0], tmp_path / "deeper"], [1.0, 1.0], method="linear")

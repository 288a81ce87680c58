"""GRPO's dynamic sampling: groups with equal rewards are replaced by groups of other prompts; all others stay."""

import pytest
import torch

from alignment.stages.resample import check_whole_groups, groups_without_spread, replace_groups

PAD = 9


def rollouts(groups, prompt, completion, base):
    """Return rollouts of `groups` groups of two rows. Every row holds a different number."""
    rows = torch.arange(base, base + 2 * groups)
    return {
        "prompt_ids": rows[:, None].expand(-1, prompt).clone(), "prompt_mask": torch.ones(2 * groups, prompt),
        "completion_ids": rows[:, None].expand(-1, completion).clone(),
        "completion_mask": torch.ones(2 * groups, completion), "advantages": rows.float(),
        "old_per_token_logps": rows[:, None].expand(-1, completion).float(), "num_items_in_batch": torch.tensor(4),
    }  # fmt: skip


def test_groups_without_spread_are_those_with_zero_advantages():
    advantages = torch.tensor([0.0, 0.0, -1.0, 1.0, 1e-3, -1e-3])
    assert groups_without_spread(advantages, 2) == [0, 2]


def test_groups_are_replaced_in_every_tensor_and_the_others_stay():
    old, new = rollouts(3, 2, 3, base=10), rollouts(2, 4, 1, base=50)
    mixed = replace_groups(old, new, [(1, 0)], 2, PAD)
    assert mixed["advantages"].tolist() == [10, 11, 50, 51, 14, 15]
    assert mixed["prompt_ids"][0].tolist() == [PAD, PAD, 10, 10] and mixed["prompt_mask"][0].tolist() == [0, 0, 1, 1]
    assert mixed["completion_ids"][2].tolist() == [50, PAD, PAD] and mixed["completion_mask"][2].tolist() == [1, 0, 0]
    assert mixed["old_per_token_logps"][3].tolist() == [51, 0, 0]
    assert {len(value) for value in mixed.values() if value.dim()} == {6}


@pytest.fixture
def trainer(tiny_tokenizer, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig

    from alignment.models import formats, loading
    from alignment.models.source import RandomInit
    from alignment.stages.resample import ResamplingTrainer

    init = RandomInit(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    model = loading.random_model(init, tiny_tokenizer, 0)
    loading.set_stop_tokens(model, tiny_tokenizer, chat=True)
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE

    def spreads(prompts, completions, **_):
        """Only the answers to `b` differ in their reward."""
        texts = [prompt[-1]["content"] for prompt in prompts]
        return [float(index % 2) if text == "b" else 1.1 for index, text in enumerate(texts)]

    prompts = [[{"role": "user", "content": text}] for text in "aaab"]
    settings = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 3, "max_steps": 1}

    def make():
        args = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
                          **settings)  # fmt: skip
        return ResamplingTrainer(
            model=model, args=args, reward_funcs=[spreads], train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tiny_tokenizer, resample=8,
        )  # fmt: skip

    return make


def test_a_batch_is_filled_with_groups_with_spread(trainer):
    grpo = trainer()
    grpo.train()
    logged = grpo.state.log_history[0]
    assert logged["resampled_groups"] >= 0.5 and logged["frac_reward_zero_std"] >= 0.5
    batch = {key: value for inputs in grpo._buffered_inputs for key, value in inputs.items()}
    assert groups_without_spread(batch["advantages"], 1) == [], "every answer that is trained on has an advantage"


def test_groups_split_over_processes_are_refused():
    check_whole_groups(16, 8)
    with pytest.raises(ValueError, match="whole groups in every process"):
        check_whole_groups(12, 8)

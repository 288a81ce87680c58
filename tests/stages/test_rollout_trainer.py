"""The trainer of GRPO: times by part, TRL's numbers where nothing is replaced, and the correction for the CPU
decoder.
"""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from alignment.models import formats, loading
from alignment.models.source import RandomInit
from alignment.stages.callbacks import OrderOfEpoch
from alignment.stages.importance import importance_ratio
from alignment.stages.rollout_trainer import PARTS, RolloutTrainer

LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def length_and_letters(completions, **_):
    """A reward that differs between completions."""
    return [len(completion[0]["content"]) + completion[0]["content"].count("a") / 7 for completion in completions]


@pytest.fixture
def make(tiny_tokenizer, tmp_path):
    """Make a trainer of any class, always from the same weights and prompts."""
    tiny_tokenizer.chat_template = formats.CHAT_TEMPLATE
    init = RandomInit(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    prompts = [[{"role": "user", "content": text}] for text in ("add", "return the sum", "a", "def f(a): pass")]

    def make(cls, *, dtype=torch.float32, lora=True, out="out", engine=None, **settings):
        model = loading.random_model(init, tiny_tokenizer, 0).to(dtype)
        loading.set_stop_tokens(model, tiny_tokenizer, chat=True)
        model.config.use_cache = False
        args = GRPOConfig(
            str(tmp_path / out), use_cpu=True, report_to=[], logging_steps=1, disable_tqdm=True, learning_rate=1e-3, seed=5,
            **{"bf16": False, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 10,
               "max_steps": 2, "save_strategy": "no"} | settings,
        )  # fmt: skip
        return cls(
            model=model, args=args, reward_funcs=[length_and_letters], processing_class=tiny_tokenizer,
            train_dataset=Dataset.from_dict({"prompt": prompts}), peft_config=LORA if lora else None,
            callbacks=[OrderOfEpoch()], **({"rollout_engine": engine} if engine else {}),
        )  # fmt: skip

    return make


def trained(trainer, **arguments):
    """Train; returns copies of the trained weights."""
    trainer.train(**arguments)
    return {
        name: parameter.detach().clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_parts_of_every_step_are_logged(make):
    trainer = make(RolloutTrainer)
    trainer.train()
    steps = [log for log in trainer.state.log_history if "time/generation" in log]
    assert len(steps) == 2
    for log in steps:
        assert all(log[f"time/{part}"] > 0 for part in PARTS)
        tokens = log["completions/mean_length"] * 8
        assert log["rollout_tokens_per_second"] == pytest.approx(tokens / log["time/generation"], rel=1e-6)


def test_float32_gives_trls_weights_to_the_bit(make):
    ours = make(RolloutTrainer)
    assert ours.cpu_rollouts is None and not ours.shares_prompts
    weights = trained(ours)  # before the other trainer is made: making one seeds all random numbers
    assert equal(weights, trained(make(GRPOTrainer)))


@pytest.mark.parametrize("lora", [True, False])
def test_the_decoder_is_chosen_in_bfloat16_and_agrees_with_the_trainer(make, lora):
    trainer = make(RolloutTrainer, lora=lora, **({"dtype": torch.bfloat16} if lora else {"bf16": True}))
    assert trainer.cpu_rollouts is not None and trainer.shares_prompts
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert not equal(trained(trainer), before)
    for log in trainer.state.log_history[:2]:
        assert 0 < log["sampling/sampling_logp_difference/mean"] < 0.05
        assert log["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=0.2)


def test_the_loss_of_shared_prompts_is_that_of_trl(make):
    trainer = make(RolloutTrainer, dtype=torch.bfloat16, lora=True)
    plain = make(GRPOTrainer, dtype=torch.bfloat16, lora=True)
    batch = first_batch(trainer)
    arguments = (torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
                 torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1), batch["completion_ids"].shape[1])  # fmt: skip
    mask = batch["completion_mask"].bool()
    for size in (None, 3):
        ours = trainer._get_per_token_logps_and_entropies(trainer.model, *arguments, size, compute_entropy=True)
        trl = plain._get_per_token_logps_and_entropies(plain.model, *arguments, size, compute_entropy=True)
        for mine, theirs in zip(ours[:2], trl[:2], strict=True):
            torch.testing.assert_close(mine[mask].float(), theirs[mask].float(), atol=0.05, rtol=0.02)


def first_batch(trainer):
    """The first rollouts of a trainer, with what TRL makes of them."""
    trainer.model.train()
    rows = next(iter(trainer.get_train_dataloader()))
    return trainer._generate_and_score_completions(rows)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_the_importance_ratio_is_the_one_of_trl(make, monkeypatch, mode):
    limits = {"vllm_importance_sampling_clip_min": 0.8, "vllm_importance_sampling_clip_max": 1.3}
    trainer = make(GRPOTrainer, vllm_importance_sampling_mode=mode, **limits)
    torch.manual_seed(0)

    def sampled(prompt_ids, *_):
        return [[60 + row, 61, 62][: 1 + row % 3] for row in range(len(prompt_ids))], [
            [-5.7 + 0.2 * row, -5.5, -5.6][: 1 + row % 3] for row in range(len(prompt_ids))
        ]

    monkeypatch.setattr(trainer, "_generate_single_turn", sampled)
    trainer.use_vllm = True  # TRL computes the ratio for vLLM only
    batch = first_batch(trainer)
    ratio = importance_ratio(
        batch["old_per_token_logps"], batch["sampling_per_token_logps"], batch["completion_mask"], mode, 0.8, 1.3
    )
    torch.testing.assert_close(ratio, batch["importance_sampling_ratio"])
    assert len(set(ratio.flatten().tolist())) > 1, "some are within the limits and some are not"


@pytest.mark.parametrize("steps_per_generation", [1, 2])
def test_the_correction_multiplies_the_loss(make, monkeypatch, steps_per_generation):
    """With one generation for several steps TRL keeps the old log-probabilities; otherwise those of the loss are
    used.
    """
    trainer = make(
        RolloutTrainer, engine="cpu", per_device_train_batch_size=8 // steps_per_generation,
        steps_per_generation=steps_per_generation, vllm_importance_sampling_mode="token_truncate",
    )  # fmt: skip
    batch = first_batch(trainer)
    assert ("old_per_token_logps" in batch) is (steps_per_generation > 1)
    gradient = loss_gradient(trainer, batch)
    # As if the sampler had drawn every token with half of its probability.
    halved = batch | {"sampling_per_token_logps": batch["sampling_per_token_logps"] - torch.tensor(2.0).log()}
    torch.testing.assert_close(loss_gradient(trainer, halved), 2 * gradient, rtol=1e-3, atol=1e-6)
    assert trainer.use_vllm is False
    assert "importance_sampling_ratio" not in halved


def test_results_of_tools_are_not_corrected(make):
    """Tokens that no sampler has drawn have no probability, and no part in a sequence's ratio."""
    trainer = make(RolloutTrainer, engine="cpu", vllm_importance_sampling_mode="sequence_truncate")
    batch = first_batch(trainer)
    tools = torch.ones_like(batch["completion_mask"])
    tools[:, 1] = 0
    sampled = batch["sampling_per_token_logps"].clone()
    sampled[:, 1] = -100.0
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch | {"tool_mask": tools, "sampling_per_token_logps": sampled})
    assert trainer._metrics["train"]["sampling/importance_sampling_ratio/max"][-1] == pytest.approx(1, abs=1e-2)


def loss_gradient(trainer, batch):
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()
    (name,) = [name for name, _ in trainer.model.named_parameters() if "layers.1.mlp.down_proj.lora_B" in name]
    return trainer.model.get_parameter(name).grad.clone()


def test_a_resumed_run_ends_with_the_same_bits(make):
    settings = {"dtype": torch.bfloat16, "max_steps": 4}
    whole = trained(make(RolloutTrainer, out="whole", **settings))
    first = make(RolloutTrainer, out="cut", save_strategy="steps", save_steps=2, **settings)
    first.train()
    second = make(RolloutTrainer, out="cut", save_strategy="no", **settings)
    checkpoint = f"{second.args.output_dir}/checkpoint-2"
    assert equal(trained(second, resume_from_checkpoint=checkpoint), whole)

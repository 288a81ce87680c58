"""Every field of `train:` and `peft:` with wrong and odd values: refused with file, line and key, or constructible."""

import json

import pytest

from alignment.recipe import CONFIGS, RecipeError, TrainingStage, load, trainer_fields
from alignment.stages.config_trial import refusals

STAGES = {
    "pretrain": {"data": [{"data": "documents.jsonl"}]},
    "sft": {"data": [{"data": "conversations.jsonl"}]},
    "dpo": {"data": [{"data": "preferences.jsonl"}]},
    "kto": {"data": [{"data": "feedback.jsonl"}]},
    "grpo": {"data": [{"data": "tasks.jsonl"}]},
}
ROWS = {
    "documents": {"text": "x = 1"},
    "conversations": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "preferences": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "feedback": {"prompt": "a", "completion": "b", "label": True},
    "tasks": {
        "id": "a", "prompt": "a", "language": "python", "kind": "calls", "entry_point": "f",
        "tests": '{"cases": [{"args": [], "expected": 1}]}',
    },
}  # fmt: skip
INIT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WRONG = (None, -1, 0, -0.5, 1.5, 10**12, float("nan"), "nonsense", "", [], {"zzz": 1}, True)
PAIRS = [
    (
        "sft",
        "train",
        {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        "lr_scheduler_kwargs",
    ),
    ("sft", "train", {"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type"),
    ("sft", "train", {"warmup_steps": 50, "max_steps": 20}, "warmup_steps"),
    ("sft", "train", {"bf16": True, "fp16": True}, "fp16"),
    ("sft", "train", {"adam_beta2": 1.0}, "adam_beta2"),
    ("sft", "train", {"dataloader_persistent_workers": True}, "dataloader_persistent_workers"),
    ("sft", "train", {"packing": False, "padding_free": True}, "padding_free"),
    ("sft", "peft", {"target_modules": ["q_porj"]}, "target_modules"),
    ("sft", "peft", {"target_modules": "all_linear"}, "target_modules"),
    ("sft", "peft", {"target_modules": ["embed_tokens"]}, "target_modules"),
    ("sft", "peft", {"rank_pattern": {"q_porj": 4}}, "rank_pattern"),
    ("sft", "peft", {"modules_to_save": ["lm_heed"]}, "modules_to_save"),
    ("sft", "peft", {"layers_to_transform": [2]}, "layers_to_transform"),
    ("dpo", "train", {"loss_type": ["sigmoid", "sigmod"]}, "loss_type"),
    ("dpo", "train", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "loss_weights"),
    ("dpo", "train", {"sync_ref_model": True, "precompute_ref_log_probs": True}, "sync_ref_model"),
    ("grpo", "train", {"epsilon": 0.2, "epsilon_high": 0.1}, "epsilon_high"),
    ("grpo", "train", {"num_generations": 7}, "num_generations"),
    ("grpo", "train", {"generation_kwargs": {"max_new_tokens": 3}}, "generation_kwargs"),
    *(
        ("grpo", "train", {"use_vllm": True, name: value}, name)
        for name, value in (("top_p", 0.9), ("top_k", 5), ("min_p", 0.1), ("repetition_penalty", 1.2))
    ),
]
GOOD = [
    ("dpo", "train", {"loss_type": "ipo"}),
    ("dpo", "train", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
    ("grpo", "train", {"temperature": 1, "top_k": 50, "top_p": 0.9}),
    ("sft", "train", {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
    (
        "sft",
        "train",
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10}, "max_steps": 50},
    ),
    ("sft", "train", {"warmup_steps": 0.1, "save_steps": 0.5, "logging_steps": 5}),
    ("sft", "peft", {"r": 8, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 4}}),
    ("sft", "peft", {"init_lora_weights": "pissa_niter_4"}),
    ("sft", "peft", {"target_modules": r".*\.(q_proj|v_proj)", "layers_to_transform": None}),
]


@pytest.fixture(scope="module")
def check(tmp_path_factory, tiny_tokenizer_dir):
    """A function that checks a recipe of one stage with these settings: the problems, from the file or the
    constructors.
    """
    folder = tmp_path_factory.mktemp("fields")
    for name, row in ROWS.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    model = {"init": INIT, "tokenizer": str(tiny_tokenizer_dir), "dtype": "float32"}

    def check(kind, section, values, construct=True):
        stage = {"name": "one", "kind": kind, **STAGES[kind], section: values}
        path = folder / "recipe.yaml"
        text = json.dumps({"name": "fields", "model": model, "stages": [stage]}, indent=1)
        path.write_text(text.replace("NaN", ".nan"))
        try:
            recipe = load(path)
        except RecipeError as error:
            assert all(problem.line for problem in error.problems), str(error)
            return [problem.key for problem in error.problems]
        stages = [stage for stage in recipe.stages if isinstance(stage, TrainingStage)]
        return [".".join(("stages", item.stage, *item.place)) for item in refusals(stages)] if construct else []

    return check


def mutations():
    for kind, config in CONFIGS.items():
        if kind != "pretrain":  # the same class as for SFT
            yield from (
                (kind, "train", name, value) for name in sorted(trainer_fields.fields(config)) for value in WRONG
            )
    yield from (("sft", "peft", name, value) for name in sorted(trainer_fields.fields("LoraConfig")) for value in WRONG)


def _each_is_refused_or_constructible(check, cases):
    for kind, section, name, value in cases:
        problems = check(kind, section, {name: value})  # raises whatever is no RecipeError
        for key in problems:
            # An error of the YAML itself, such as NaN, is found before the stages have names.
            assert key.startswith((f"stages.one.{section}", f"stages.0.{section}")), (kind, name, value, key)


def test_mutated_fields_are_refused_with_their_key_or_constructible(check):
    _each_is_refused_or_constructible(check, list(mutations())[::97])


@pytest.mark.slow
def test_every_mutation_of_every_field_is_refused_with_its_key_or_constructible(check):
    _each_is_refused_or_constructible(check, mutations())


@pytest.mark.parametrize(("kind", "section", "values", "key"), PAIRS)
def test_contradictions_are_refused_at_their_key(check, kind, section, values, key):
    problems = check(kind, section, values)
    assert any(key in problem for problem in problems), problems


@pytest.mark.parametrize(("kind", "section", "values"), GOOD)
def test_valid_combinations_are_accepted(check, kind, section, values):
    assert check(kind, section, values) == []


@pytest.mark.parametrize("config", sorted(set(CONFIGS.values())))
def test_settings_that_break_resuming_or_are_ignored_are_refused(check, config):
    kind = next(kind for kind, name in CONFIGS.items() if name == config)
    for name in ("save_only_model", "ignore_data_skip", "eval_strategy", "eval_on_start", "metric_for_best_model"):
        assert check(kind, "train", {name: "steps"}, construct=False) == [f"stages.one.train.{name}"]

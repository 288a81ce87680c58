"""Settings of `train:` and `peft:`: read from the source of TRL and PEFT, and equal to those of the imported
classes.
"""

import dataclasses

import pytest

from alignment.recipe import trainer_fields


@pytest.mark.parametrize("config", ["SFTConfig", "DPOConfig", "KTOConfig", "GRPOConfig", "LoraConfig"])
def test_the_names_read_from_source_are_those_of_the_class(config):
    module = pytest.importorskip("peft" if config == "LoraConfig" else "trl")
    real = {field.name for field in dataclasses.fields(getattr(module, config)) if not field.name.startswith("_")}
    assert set(trainer_fields.fields(config)) == real


@pytest.mark.parametrize(
    ("config", "values", "expected"),
    [
        ("SFTConfig", {"learning_rate": "1e-5"}, "must be a number, not '1e-5'. Remove the quotes"),
        ("SFTConfig", {"learning_rate": 0.0}, "above 0"),
        ("SFTConfig", {"weight_decay": -1.0}, "at least 0"),
        ("SFTConfig", {"learning_rate": "nan"}, "must be a number, not 'nan'"),
        ("SFTConfig", {"max_length": True}, "must be a whole number, not True"),
        ("SFTConfig", {"max_steps": 1000.0}, "must be a whole number, not 1000.0"),
        ("SFTConfig", {"max_steps": -2}, "at least -1"),
        ("SFTConfig", {"num_train_epochs": 0}, "above 0"),
        ("SFTConfig", {"--learning-rate": 1.0}, "Did you mean 'learning_rate'?"),
        ("SFTConfig", {"packing_strategy": "bdf"}, "Did you mean 'bfd'?"),
        ("SFTConfig", {"output_dir": "x"}, "can't be set here: use `output` of the recipe"),
        ("GRPOConfig", {"num_generations": 1}, "at least 2"),
        ("GRPOConfig", {"top_p": 1.5}, "at most 1"),
        ("GRPOConfig", {"temperature": 0}, "above 0"),
        ("DPOConfig", {"betta": 0.1}, "Did you mean 'beta'?"),
        ("LoraConfig", {"r": 0}, "at least 1"),
        ("LoraConfig", {"lora_dropout": 1.0}, "below 1"),
        ("SFTConfig", {"learning_rate": 5}, "at most 1"),
        ("SFTConfig", {"logging_steps": 1.5}, "a whole number of steps"),
        ("SFTConfig", {"save_strategy": "best"}, "must be one of no, steps, epoch"),
        ("DPOConfig", {"loss_type": ["sigmoid", "sigmod"]}, "Did you mean 'sigmoid'?"),
        ("GRPOConfig", {"scale_rewards": "sometimes"}, "must be one of group, batch, none"),
        ("SFTConfig", {"ignore_data_skip": True}, "could not resume to the same weights"),
        ("LoraConfig", {"target_modules": 3}, "LoraConfig.target_modules must be"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(config, values, expected):
    ((path, message),) = trainer_fields.check(config, values)
    assert path == tuple(values) and expected in message and "\n" not in message


def test_valid_values_are_accepted():
    values = {"learning_rate": 1, "max_steps": -1, "lr_scheduler_type": "cosine", "bf16": None, "warmup_steps": 0.1}
    assert not list(trainer_fields.check("SFTConfig", values))
    assert not list(trainer_fields.check("LoraConfig", {"r": 8, "target_modules": ["q_proj"], "use_dora": True}))

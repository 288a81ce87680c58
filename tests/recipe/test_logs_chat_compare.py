"""`align logs`, `align chat` and `align compare`: which file and which model they choose, and what they print."""

import json
from pathlib import Path

import pytest

from alignment.chain.plan import plan
from alignment.cli import main
from alignment.evaluation.engines.protocol import Completion
from alignment.recipe import load


@pytest.fixture
def recipe(write, small) -> str:
    return str(write(recipe=small))


def step_of(recipe: str, name: str):
    return next(step for step in plan(load(Path(recipe))) if step.name == name)


def write_log(recipe: str, name: str, text: str) -> None:
    folder = step_of(recipe, name).folder / "logs"
    folder.mkdir(parents=True)
    (folder / "rank0.log").write_text(text)


class Echo:
    """An engine that answers with its model's path and the end of the prompt."""

    stop_ids = ()

    def __init__(self, path: str) -> None:
        self.path, self.tokenizer = path, self

    def convert_tokens_to_ids(self, token: str) -> int:
        return 7

    def encode(self, token: str, add_special_tokens: bool) -> list[int]:
        return [7]

    def generate(self, jobs):
        for job in jobs:
            turns = job.text.count("<|im_start|>user")
            yield job, Completion(f"{Path(self.path).name} answers turn {turns}: {job.text.rstrip()[-60:]}", 5, "stop")


@pytest.fixture
def engines(monkeypatch):
    opened = []

    def open_engine(path, *_, **__):
        opened.append(path)
        return Echo(path)

    monkeypatch.setattr("alignment.evaluation.engines.selection.open_engine", open_engine)
    return opened


def test_logs_prints_the_end_of_the_newest_log(recipe, capsys):
    assert main(["logs", recipe]) == 1
    assert "no step of the recipe has run yet" in capsys.readouterr().err
    write_log(recipe, "data", "old\n")
    write_log(recipe, "sft", "".join(f"line {number}\n" for number in range(100)))
    assert main(["logs", recipe, "-n", "2"]) == 0
    assert capsys.readouterr().out == "line 98\nline 99\n"
    assert main(["logs", recipe, "data", "-n", "0"]) == 0
    assert capsys.readouterr().out == "old\n"


def test_logs_of_an_unknown_step_names_the_steps(recipe, capsys):
    assert main(["logs", recipe, "stf"]) == 1
    assert "Did you mean 'sft'" in capsys.readouterr().err


def test_following_ends_when_the_step_is_done(recipe, capsys):
    write_log(recipe, "data", "all of it\n")
    (step_of(recipe, "data").folder / "artifact.json").write_text(json.dumps({"figures": []}))
    assert main(["logs", recipe, "data", "--follow"]) == 0
    assert capsys.readouterr().out == "all of it\n"


def test_a_dialogue_keeps_its_earlier_turns(engines, capsys):
    assert main(["chat", "models/mine", "--prompt", "first", "--prompt", "second"]) == 0
    first, second = [line for line in capsys.readouterr().out.splitlines() if "answers" in line]
    assert "turn 1" in first and "turn 2" in second
    assert engines == ["models/mine"]


def test_a_stage_of_a_recipe_is_its_model_folder(recipe, engines, capsys):
    assert main(["chat", f"{recipe}:sft", "--prompt", "hello"]) == 1
    assert "is not done" in capsys.readouterr().err
    step = step_of(recipe, "sft")
    step.folder.mkdir(parents=True)
    (step.folder / "artifact.json").write_text(json.dumps({"figures": []}))
    assert main(["chat", f"{recipe}:sft", "--prompt", "hello"]) == 0
    assert engines == [str(step.folder / "model")]


@pytest.mark.parametrize(("spec", "words"), [("{0}", "name a stage of it too"), ("{0}:stf", "no stage 'stf'")])
def test_a_recipe_without_its_stage_is_refused(recipe, engines, capsys, spec, words):
    assert main(["chat", spec.format(recipe), "--prompt", "hello"]) == 1
    assert words in capsys.readouterr().err and not engines


def test_compare_puts_the_answers_of_two_models_below_each_question(engines, capsys):
    assert main(["compare", "models/one", "models/two", "--prompt", "why?", "--prompt", "how?"]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.index("# why?") < printed.index("one answers") < printed.index("two answers") < printed.index("# how?")
    )
    assert engines == ["models/one", "models/two"]


def test_compare_needs_two_models_and_a_question_or_two_results(tmp_path, engines, capsys):
    assert main(["compare", "models/one", "models/two"]) == 1
    assert "--prompt" in capsys.readouterr().err
    (tmp_path / "figures.json").write_text("[]")
    assert main(["compare", str(tmp_path), "models/two", "--prompt", "why?"]) == 1
    assert "is a result folder and the other one is not" in capsys.readouterr().err


def test_chat_loads_a_real_checkpoint(tiny_model_folder, capsys):
    assert main(["chat", str(tiny_model_folder), "--prompt", "hello", "--max-new-tokens", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("\n")
    assert "Traceback" not in captured.err


@pytest.fixture
def tiny_model_folder(tmp_path, tiny_tokenizer) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"

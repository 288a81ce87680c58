"""`align check` refuses settings that the model family of the base model does not support."""

import json

import pytest

from alignment.models.model_family import LLAMA3, SMOLLM2


@pytest.fixture
def mistakes_of(tmp_path, write):
    """Return a function that writes a model folder of a family and a recipe, and returns the recipe's mistakes."""
    from alignment.recipe import RecipeError, load

    (tmp_path / "rows.jsonl").write_text('{"text": "x = 1"}\n')
    (tmp_path / "fim.jsonl").write_text('{"prefix": "a", "middle": "b", "suffix": "c"}\n')

    def check(family, stages, evaluate="[]"):
        folder = tmp_path / "model"
        folder.mkdir()
        tokens = family.added_tokens or family.marks
        added = [{"id": number, "content": token} for number, token in enumerate(tokens)]
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
        (folder / "config.json").write_text(json.dumps({"model_type": family.model_types[0]}))
        (folder / "model.safetensors").write_bytes(b"")  # only its name is looked at
        text = f"name: r\nmodel: {{path: model}}\nstages:\n  {stages}\nevaluate: {evaluate}\n"
        try:
            load(write(recipe=text))
        except RecipeError as error:
            return [str(problem) for problem in error.problems]
        return []

    return check


PRETRAIN = "- {{name: pretrain, kind: pretrain, data: [{{data: rows.jsonl}}], fim: {{{fim}}}}}"


def test_pretraining_with_fim_names_the_family_and_the_setting(mistakes_of):
    (mistake,) = mistakes_of(SMOLLM2, PRETRAIN.format(fim="rate: 0.7"))
    assert "stages.pretrain.fim: the model family SmolLM2 has no fill-in-the-middle tokens" in mistake
    assert "set `fim: {rate: 0}`" in mistake


def test_pretraining_without_fim_is_allowed(mistakes_of):
    assert mistakes_of(SMOLLM2, PRETRAIN.format(fim="rate: 0")) == []


def test_sft_without_fim_settings_is_allowed(mistakes_of, tmp_path):
    (tmp_path / "chat.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    )
    assert mistakes_of(SMOLLM2, "- {name: sft, kind: sft, data: [{data: chat.jsonl}]}") == []


def test_a_fim_benchmark_names_the_family(mistakes_of):
    (mistake,) = mistakes_of(
        SMOLLM2, PRETRAIN.format(fim="rate: 0"), "[{name: infill, benchmark: fim, data: fim.jsonl}]"
    )
    assert "the model family SmolLM2 has no fill-in-the-middle tokens, so `fim` can't be measured" in mistake


def test_a_family_without_a_chat_format_is_refused(mistakes_of):
    (mistake,) = mistakes_of(LLAMA3, PRETRAIN.format(fim="rate: 0"))
    assert "model.path: the model belongs to the family Llama 3, whose chat format is not implemented" in mistake

"""A local checkpoint as writer: a tiny model that answers every question with the same two words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files

from alignment.grading import SandboxSettings
from data_builders.instructions.refine import Refinement
from data_builders.models.writers import TextModel, open_model

ANSWER = "It adds"
QUESTIONS = [[{"role": "user", "content": "What does it do?"}], [{"role": "user", "content": "And <|im_end|> this?"}]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A model whose only layer adds nothing: each token depends on the previous token alone, so its answer is known."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    (before,) = tokenizer.encode("\n")
    sequence = [before, *tokenizer.encode(ANSWER), tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert len(set(sequence)) == len(sequence)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=2048, tie_word_embeddings=False,
        )
    )  # fmt: skip
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        known = torch.nn.functional.normalize(model.model.embed_tokens.weight, dim=1)
        model.lm_head.weight.zero_()
        for token, following in itertools.pairwise(sequence):
            model.lm_head.weight[following] = 10 * known[token]
    folder = tmp_path_factory.mktemp("writer")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_question_gets_its_answers_and_cut_off_answers_are_left_out(checkpoint: Path) -> None:
    author = open_model(TextModel(path=checkpoint))
    assert author.answers(QUESTIONS, 2, temperature=0.8, seed=3) == [[ANSWER] * 2] * 2
    cut = open_model(TextModel(path=checkpoint, max_new_tokens=1))
    assert cut.answers(QUESTIONS, 2, temperature=0.0, seed=3) == [[], []]


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{tmp_path} holds no checkpoint that can be loaded"):
        open_model(TextModel(path=tmp_path)).answers(QUESTIONS, 1, temperature=0.0, seed=0)


def test_the_writers_answer_replaces_prose_always_and_code_only_if_it_parses(checkpoint: Path, tmp_path: Path) -> None:
    code = '"""Sums."""\n\n\ndef add_all(numbers):\n    """Add up all of the numbers, and give their sum as one number."""\n    total = 0\n    for number in numbers:\n        total += number\n    return total\n'
    write_files(tmp_path / "shop", {"shop.py": code})
    refinement = Refinement(writer=TextModel(path=checkpoint, max_new_tokens=16), best_of=2)
    account: dict[str, Any] = run_builder(
        "instructions",
        tmp_path / "out",
        sources=[tmp_path / "shop"],
        kinds=["explain", "implement"],
        refinement=refinement,
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "instructions.jsonl").read_text().splitlines()]
    answers = {row["source"].partition(":")[0]: row["messages"][1]["content"] for row in rows}
    assert answers["explain"] == ANSWER and "total += number" in answers["implement"]
    assert (account["answered_by_the_writer"], account["does_not_parse"]) == (1, 1)


def test_preferences_samples_a_model_runs_its_answers_and_pairs_them_with_the_reference(
    checkpoint: Path, tmp_path: Path
) -> None:
    task = {
        "id": "t", "prompt": "Write f, which adds one.", "language": "python", "kind": "calls", "entry_point": "f",
        "tests": json.dumps({"cases": [{"args": [2], "expected": 3}], "tolerance": None}),
        "reference": "def f(x):\n    return x + 1\n",
    }  # fmt: skip
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    counts = run_builder("preferences", tmp_path / "out", seed=1, model=checkpoint, n=3, references=True,
                         sandbox=SandboxSettings(workers=1, allow_weaker=True), tasks=tmp_path / "tasks.jsonl",
                         max_new_tokens=8)  # fmt: skip
    assert counts == {"tasks": 1, "sampled": 3, "failed": 1, "pairs_with_reference": 1, "pairs": 1}
    (pair,) = [json.loads(line) for line in (tmp_path / "out" / "preferences.jsonl").read_text().splitlines()]
    assert pair["chosen"][0]["content"] == f"```python\n{task['reference']}\n```"
    assert (pair["rejected"][0]["content"], pair["source"]) == (ANSWER, "reference:t")

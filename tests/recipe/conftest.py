"""Fixtures: a small recipe with a stage of every kind, and the mistakes of changed versions of it."""

import pytest

SMALL = """name: small
seed: 3
output: runs
model:
  init: {hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
  tokenizer: data/tokenizer
  dtype: float32
stages:
  - name: data
    kind: build
    builder: synthetic
    settings: {modules: 200, rl_tasks: 20}
  - name: pretrain
    kind: pretrain
    data:
      - {data: data/documents.jsonl, share: 0.5}
      - {data: data/long.jsonl, share: 0.5}
    fim: {level: document, rate: 0.5, spans: lines}
    train:
      max_length: 256
      learning_rate: 4e-3
  - name: sft
    kind: sft
    peft: {r: 4, lora_alpha: 8}
    data: [{data: data/conversations.jsonl}]
    train: {max_length: 256, packing: true}
    context: {yarn_factor: 2.0}
  - name: pairs
    kind: build
    builder: preferences
    settings: {tasks: data/rl.jsonl, n: 2}
  - name: dpo
    kind: dpo
    data: [{data: pairs/preferences.jsonl}]
    train: {beta: 0.1}
  - name: grpo
    kind: grpo
    data: [{data: data/rl.jsonl}]
    rewards: [{name: tests_passed, weight: 1.0}]
    train: {num_generations: 4, max_steps: 3}
    gate: {metric: instruct.pass@1, max_drop: 2}
  - name: more
    kind: evaluate
    model: sft
    benchmarks: [{name: instruct, benchmark: tasks, data: data/heldout-long.jsonl}]
  - name: count
    kind: custom
    run: json:dumps
    model: dpo
  - name: merged
    kind: merge
    models: [{model: sft, weight: 0.5}, {model: dpo}]
    evaluate: false
  - name: kto
    kind: kto
    data: [{data: count/feedback.jsonl}]
    evaluate: false
  - name: export
    kind: export
    formats: [f16, q8_0]
    data: data/heldout-documents.jsonl
    max_perplexity_change: {q8_0: 1.0}
evaluate:
  - {name: instruct, benchmark: tasks, data: data/heldout-short.jsonl, max_new_tokens: 48}
sandbox: {workers: 2, wall_seconds: 10.0}
"""


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into the working directory of the test. Return the path of the last file."""
    monkeypatch.chdir(tmp_path)

    def files(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name}.yaml"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return files


@pytest.fixture
def mistakes(write, small):
    """Return the mistakes of the small recipe after replacements, as text. The list is empty for a correct recipe."""
    from alignment.recipe import RecipeError, load

    def check(*replacements, overrides=(), text=None):
        text = text or small
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new, 1)
        try:
            load(write(recipe=text), overrides)
        except RecipeError as error:
            return [str(problem) for problem in error.problems]
        return []

    return check

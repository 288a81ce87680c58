"""Recipes: all mistakes are reported at once, each with its line and what to do."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from alignment.recipe import Recipe, RecipeError, load
from alignment.recipe.schema import STAGES
from data_builders.builder import BuildContext
from data_builders.builder_registry import find_builder

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_has_no_mistakes(path):
    assert load(path).stages


def test_the_small_recipe_has_no_mistakes(mistakes):
    assert mistakes() == []


def test_all_mistakes_are_reported_at_once_each_with_its_line(mistakes):
    problems = mistakes(("seed: 3", "sede: 3"), ("lora_alpha", "lora_alfa"), ("beta: 0.1", "beta: high"))
    lines = [text.split(": ")[0] for text in problems]
    assert lines == ["recipe.yaml:2", "recipe.yaml:24", "recipe.yaml:35"]
    assert all("Did you mean" in text for text in problems[:2])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("train: {beta: 0.1}", "train:", "stages.dpo.train: is empty: give it a value, or remove it"),
        ("train: {beta: 0.1}", "train: [beta, 0.1]", "stages.dpo.train: must be a mapping (`key: value`)"),
        ("data: [{data: data/rl.jsonl}]", "data: data/rl.jsonl", "stages.grpo.data: must be a list"),
        ("kind: sft", "kind: stf", "stages.sft: kind must be one of"),
        ("kind: sft", "kind: [sft]", "stages.sft: kind must be one of"),
        ("    kind: dpo\n", "", "stages.dpo: kind is missing: one of build,"),
        ("dtype: float32", "dtype: fp32", "model.dtype: must be one of auto, float32, bfloat16, float16, not 'fp32'"),
        ("seed: 3", "seed: -3", "recipe.yaml:2: seed: must be greater than or equal to 0"),
        ("seed: 3", "seed: 3.5", "seed: must be a whole number, not 3.5"),
        ("seed: 3", "seed: '3'", "seed: must be a whole number, not '3'"),
        ("name: small", "name: Small!", "name: must be 1 to 64 characters of a-z, 0-9"),
        ("max_drop: 2", "max_drop: -2", "stages.grpo.gate.max_drop: must be greater"),
        ("max_drop: 2", "maxdrop: 2", "stages.grpo.gate.maxdrop: no such setting. Did you mean 'max_drop'?"),
        ("gate: {metric: instruct.pass@1, max_drop: 2}", "gate: instruct", "stages.grpo.gate: must be a mapping"),
        ("rate: 0.5", "rate: 1.5", "stages.pretrain.fim.rate: must be less than or equal to 1"),
        ("modules: 200", "moduls: 200", "stages.data.settings.moduls: no such setting. Did you mean 'modules'?"),
        ("modules: 200", "modules: many", "stages.data.settings.modules: must be a whole number, not 'many'"),
        ("modules: 200", "modules: -1", "modules: must be greater than or equal to 0, not -1"),
        ("builder: synthetic", "builder: synthetics", "Did you mean 'synthetic'?"),
    ],
)
def test_the_message_for_a_wrong_value_says_what_is_expected(mistakes, old, new, expected):
    (problem,) = mistakes((old, new))
    assert expected in problem and problem.startswith("recipe.yaml:") and len(problem) < 400


def test_a_model_given_as_a_word_shows_how_to_write_it(mistakes):
    problems = mistakes(text="name: x\nmodel: Qwen/Q\nstages: [{name: a, kind: build, builder: synthetic}]\n")
    assert problems == [
        "recipe.yaml:2: model: must be a mapping (`key: value`), not 'Qwen/Q'. "
        "For a checkpoint write `model: {path: Qwen/Q}`"
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights (*.safetensors)"),
        ("tokenizer.json", "no tokenizer.json: copy it there, or name another folder as `tokenizer`"),
    ],
)
def test_a_base_folder_that_is_not_a_checkpoint_is_refused_with_what_is_missing(
    mistakes, checkpoint_folder, missing, expected
):
    text = f"name: x\nmodel: {{path: {checkpoint_folder}}}\nstages: [{{name: e, kind: export, formats: [f16]}}]\n"
    assert mistakes(text=text) == []
    (checkpoint_folder / missing).unlink()
    (problem,) = mistakes(text=text)
    assert problem.startswith("recipe.yaml:2: model.path: ") and expected in problem


def test_a_builder_may_sample_from_the_model_of_an_earlier_stage(mistakes):
    stage = (
        "  - {name: written, kind: build, builder: instructions, settings: {sources: [.], refinement: {writer: {path: %s}}}}\n"
        "  - name: pairs"
    )
    assert mistakes(("  - name: pairs", stage % "sft/model")) == []
    (problem,) = mistakes(("  - name: pairs", stage % "sft"))
    assert "written.settings.refinement.writer.path: stage 'sft' has its model in sft/model: name that" in problem


def test_an_override_is_checked_like_the_recipe(mistakes):
    assert mistakes(overrides=["stages.dpo.train.beta=0.2", "evaluate.instruct.limit=3"]) == []
    assert mistakes(overrides=["stages.dpo.train.betta=0.2"]) == [
        "--set: stages.dpo.train.betta: DPOConfig has no such setting. Did you mean 'beta'?"
    ]
    assert "no such setting" in mistakes(overrides=["sede=1"])[0]


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch, small):
    for folder in ("shared", "own", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "shared/base.yaml").write_text(small.replace("data/long.jsonl", "./rows.jsonl"))
    (tmp_path / "shared/rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "own/rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "own/top.yaml").write_text(
        "extends: ../shared/base.yaml\noutput: here\nstages: [{name: sft, data: [{data: rows.jsonl}]}]\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load(Path("../own/top.yaml"))
    assert recipe.stage("pretrain").data[1].data.path() == tmp_path / "shared/rows.jsonl"
    assert recipe.stage("sft").data[0].data.path() == tmp_path / "own/rows.jsonl"
    assert recipe.folder == tmp_path / "own/here/small"


def test_a_home_folder_is_expanded_and_an_unknown_one_is_a_mistake(mistakes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    assert mistakes(("data/conversations.jsonl", "~/rows.jsonl")) == []
    assert "there is no home folder" in mistakes(("data/conversations.jsonl", "~nobody-here/rows.jsonl"))[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{data: data/conversations.jsonl}", "{data: data/conversatins.jsonl}", "Did you mean 'conversations.jsonl'?"),
        ("data: pairs/preferences", "data: sft/preferences", "stage 'sft' makes a model"),
        ("[{data: data/conversations.jsonl}]", "[{data: pairs/preferences.jsonl}]", "does not come before this one"),
        ("[{data: data/conversations.jsonl}]", "[{data: data/../../x}]", "leads out of stage 'data'"),
        ("[{data: data/conversations.jsonl}]", "[{data: /no/such.jsonl}]", "there is no file or folder /no/such.jsonl"),
        ("tasks: data/rl.jsonl", "tasks: sft/rl.jsonl", "stages.pairs.settings.tasks: stage 'sft' makes a model"),
        ("tokenizer: data/tokenizer", "tokenizer: pairs/tokenizer", "does not come before the model is first used"),
        ("tasks, data: data/heldout-short", "tasks, data: pairs/x", "does not come before the first training stage"),
        ("kind: dpo", "kind: dpo\n    model: data", "stages.dpo.model: stage 'data' makes no model"),
        ("kind: dpo", "kind: dpo\n    model: export", "stage 'export' does not come before this one"),
        ("kind: dpo", "kind: dpo\n    model: sftt", "there is no stage 'sftt'. Did you mean 'sft'?"),
        ("name: export", "name: sft", "two stages are called 'sft'"),
        ("name: export", "name: base", "rename the stage"),
        ("name: export", "name: evaluate-sft", "inserts a step 'evaluate-sft'"),
        ("name: export", "name: artifacts", "'artifacts' is a file or folder that every run writes"),
        ("share: 0.5", "share: 0.4", "the shares add up to 0.9, not to 1"),
        (", share: 0.5}", "}", "give `share` for all sources or for none"),
        ("preferences.jsonl}", "preferences.jsonl, share: 1}", "is used by pretrain and sft stages only, not by dpo"),
        ("peft: {r: 4, lora_alpha: 8}", "quantization: 4bit", "add `peft:` (QLoRA)"),
        ("yarn_factor: 2.0", "original_max_position_embeddings: 64", "is used only with yarn_factor"),
        ("hidden_size: 64", "hidden_size: 66", "must be a multiple of 2 x num_attention_heads (8)"),
        ("metric: instruct.pass@1", "metric: instrct.pass@1", "Did you mean 'instruct.pass@1'?"),
        ("metric: instruct.pass@1", "metric: instruct.pass@5", "pass@k needs n of at least k"),
        ("metric: instruct.pass@1", "metric: instruct", "must be benchmark.metric, for example instruct.pass@1"),
        (", max_drop: 2", "", "give max_drop, min_value or both"),
        ("kind: dpo", "kind: dpo\n    evaluate: false", "no step measures 'instruct' on the earlier model"),
        ("kind: export", "kind: export\n    gate: {metric: a.b, min_value: 1}", "this stage measures nothing"),
        ("benchmark: tasks", "benchmark: task", "Did you mean 'tasks'?"),
        ("tasks, data: data/heldout-short.jsonl", "tasks, n: 4, data: data/rl.jsonl", "greedy samples are all"),
        ("weight: 1.0", "weight: 0", "all weights are 0"),
        ("num_generations: 4", "num_generations: 4, generation_batch_size: 6", "a multiple of num_generations"),
        ("train: {num_gen", "rollout_engine: cpu\n    train: {use_vllm: true, num_gen", "vLLM generates with `use_vllm"),
        ("packing: true", "packing: true, packing_strategy: wrapped", "they attend to each other"),
        ("q8_0: 1.0", "q4_K_M: 1.0", "is not among this stage's formats"),
        ("formats: [f16, q8_0]", "formats: [f16, q8_0, gguf:f16]", "named twice"),
        ("output: runs", "output: recipe.yaml", "is a file: name a folder"),
        ("output: runs", "launch: cpu.yaml", "launch: there is no file cpu.yaml"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_run_is_refused(mistakes, old, new, expected):
    problems = mistakes((old, new))
    assert len(problems) == 1 and expected in problems[0] and problems[0].startswith("recipe.yaml:"), problems


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("data/heldout-documents.jsonl", "data/rl.jsonl", "stages.export.data: an export compares models on"),
        ("{data: data/conversations.jsonl}", "{data: data/rl.jsonl}", "data/rl.jsonl has task rows"),
        ("data: pairs/preferences", "data: data/conversations", "a dpo stage trains on preference rows; data/conv"),
        ("[{data: data/rl.jsonl}]", "[{data: data/documents.jsonl}]", "a grpo stage trains on task rows"),
        ("tasks: data/rl.jsonl", "tasks: data/documents.jsonl", "preferences are made from task rows"),
        ("data/heldout-short.jsonl", "data/long.jsonl", "benchmark 'tasks' measures task or infilling rows"),
        ("data/heldout-long.jsonl", "data/long.jsonl", "stages.more.benchmarks.instruct.data: benchmark 'tasks'"),
    ],
)
def test_rows_of_the_wrong_kind_are_refused(mistakes, old, new, expected):
    problems = mistakes((old, new))
    assert len(problems) == 1 and expected in problems[0] and problems[0].startswith("recipe.yaml:"), problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "own.jsonl has preference rows"),
        ('{"code": "a"}\n', "unsupported row: columns code"),
        ("\n\n", "own.jsonl is empty"),
        ("{\n", "own.jsonl:1: not JSON"),
        ('{"text": "a"}\n', ""),
        ('{"messages": []}\n{', ""),  # only the first row is read
    ],
)
def test_the_first_row_of_an_existing_file_is_checked(mistakes, tmp_path, text, expected):
    (tmp_path / "own.jsonl").write_text(text)
    problems = mistakes(("data/conversations.jsonl", "./own.jsonl"))
    assert len(problems) == bool(expected) and all(expected in problem for problem in problems), problems


def test_an_evaluate_list_without_a_training_stage_is_refused(mistakes):
    text = (
        "name: x\nmodel: {path: a/b}\nstages: [{name: d, kind: build, builder: synthetic}]\n"
        "evaluate: [{name: i, benchmark: humaneval}]\n"
    )
    assert mistakes(text=text) == [
        "recipe.yaml:4: evaluate: measures stages that train or merge, and this recipe has none: use a stage of kind evaluate"
    ]


def test_a_missing_recipe_is_reported():
    with pytest.raises(RecipeError, match="this recipe does not exist"):
        load(Path("no-such-recipe.yaml"))


def test_the_synthetic_builder_makes_the_files_that_its_entry_lists(tmp_path):
    counts = dict(modules=4, repositories=2, standard_library=0, history=0, conversations=4, file_conversations=2)
    counts |= dict(long_conversations=2, rl_tasks=2, heldout_tasks=2, vocab_size=400)
    builder = find_builder("synthetic")
    builder.run(builder.validate(counts), BuildContext(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(builder.outputs)


def test_the_default_output_folder_is_beside_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: r\nmodel: {path: Qwen/Qwen2.5-Coder-0.5B}\n"
        "stages: [{name: p, kind: pretrain, data: [{data: rows.jsonl}]}]\n"
    )
    monkeypatch.chdir("/")
    assert load(recipe).folder == tmp_path / "runs" / "r"


def test_a_recipe_may_name_a_sandbox_service_alone_or_with_limits(write, small):
    recipe_path = write(recipe=small.replace("sandbox: {workers: 2, wall_seconds: 10.0}\n", ""))
    recipe = load(recipe_path, ["sandbox=http://grader.example:8711"])
    assert recipe.sandbox.address == "http://grader.example:8711" and recipe.sandbox.wall_seconds == 10
    assert load(recipe_path, ["sandbox={address: http://host:1, wall_seconds: 3}"]).sandbox.wall_seconds == 3


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("sandbox=host:8711", "like http://host:8711"),
        ("sandbox=http://host:8711/grade", "without a path"),
        ("sandbox={address: http://host:8711, allow_weaker: true}", "remove one of the two settings"),
    ],
)
def test_a_wrong_sandbox_address_is_refused(write, small, setting, expected):
    with pytest.raises(RecipeError, match=expected):
        load(write(recipe=small), [setting])


def settings_classes(annotation):
    """Return all settings classes in an annotation, and in the fields of these classes."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from settings_classes(field.annotation)
    for argument in get_args(annotation):
        yield from settings_classes(argument)


def test_every_setting_is_documented():
    classes = set(settings_classes(Recipe))
    assert set(STAGES.values()) < classes
    undocumented = {
        f"{settings.__name__}.{name}"
        for settings in classes
        for name, field in settings.model_fields.items()
        if name != "kind" and not field.description
    }
    assert undocumented == set()

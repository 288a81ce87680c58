"""Every shipped recipe: it passes all checks, fits its hardware, and suits its model's exact shape."""

import re
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from alignment.models import loading, shapes
from alignment.planning import presentation
from alignment.recipe import SftStage, TrainingStage, launch_file, load
from alignment.stages.config_trial import refusals
from alignment.stages.configs import lora_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(
    path
    for path in (ROOT / "recipes").rglob("*.yaml")
    if "stages" in yaml.safe_load(path.read_text()) and "runs" not in path.parts
)
# Recipes of the whole chain on GPUs; `0.5b-cpu.yaml` adapts a model to one repository with other stages.
SIZED = [path for path in SHIPPED if re.match(r"[\d.]+b", path.stem) and not path.stem.endswith("-cpu")]
names = {"ids": lambda path: str(path.relative_to(ROOT / "recipes"))}


def size_of(path: Path) -> str:
    return path.stem.split("-")[0]


def test_every_size_has_a_recipe_for_full_weights():
    assert {path.stem for path in SIZED} >= set(shapes.SHAPES)


@pytest.mark.parametrize("path", SHIPPED, **names)
def test_the_recipe_passes_our_checks_and_those_of_trl_and_peft(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recipe = load(path)
        assert not refusals([stage for stage in recipe.stages if isinstance(stage, TrainingStage)])


@pytest.mark.parametrize("path", SIZED, **names)
def test_the_header_names_the_command_the_hardware_and_the_licence(path):
    header = re.match(r"(#.*\n)+", path.read_text())[0]
    recipe = load(path)
    assert f"recipes/qwen2.5-coder/{path.name}" in header
    devices = int(re.search(r"# Hardware: (\d+) x (\d+) GB", header)[1])
    assert launch_file.layout_of(recipe.launch.path()).devices == devices
    licence = re.search(r"# Licence: (.*)", header)[1]
    assert licence.startswith("Qwen Research" if size_of(path) == "3b" else "Apache-2.0")
    assert str(recipe.model.path) == f"Qwen/Qwen2.5-Coder-{size_of(path).upper()}"


@pytest.mark.parametrize("path", SIZED, **names)
def test_every_stage_fits_the_hardware_that_the_header_names(path):
    card = int(re.search(r"# Hardware: (\d+) x (\d+) GB", path.read_text())[2])
    plan = presentation.recipe_needs(load(path), card * 1e9 / 2**30)
    assert [stage["stage"] for stage in plan["needs"] if not stage["fits"]] == []
    assert len(plan["needs"]) == 5


@pytest.mark.parametrize("path", SHIPPED, **names)
def test_every_recipe_has_a_plan_before_anything_is_built(path):
    recipe = load(path)
    plan = presentation.recipe_needs(recipe, 80.0)
    assert [stage["stage"] for stage in plan["needs"]] == [
        stage.name for stage in recipe.stages if isinstance(stage, TrainingStage)
    ]
    assert presentation.describe(plan)


@pytest.mark.parametrize("path", SIZED, **names)
def test_no_stage_trains_all_weights_in_sixteen_bits_without_copies(path):
    assert not [text for text in presentation.recipe_needs(load(path), 80.0)["warnings"] if "float32 copies" in text]


@pytest.mark.parametrize("path", SIZED, **names)
def test_the_settings_suit_the_exact_shape(path):
    """Lengths are within the model's positions, and adapters are on layers that exist."""
    recipe, size = load(path), size_of(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.config(size))
    shape = shapes.SHAPES[size]
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == shape.tie_word_embeddings
    linear = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for stage in recipe.stages:
        if not isinstance(stage, TrainingStage):
            continue
        settings = shapes.config(size)
        loading.apply_context(settings, stage.context)
        assert stage.train.get("max_length", 0) <= settings.max_position_embeddings
        if stage.peft:
            targets = lora_config(stage).target_modules
            assert targets == "all-linear" or set(targets) <= linear - {"lm_head"}
        if stage.kind == "grpo":
            whole = stage.max_prompt_length + stage.train["max_completion_length"]
            assert whole <= (stage.train.get("vllm_max_model_length") or settings.max_position_embeddings)


@pytest.mark.parametrize("path", SIZED, **names)
def test_batches_are_the_same_for_every_size_and_variant(path):
    recipe = load(path)
    replicas = launch_file.layout_of(recipe.launch.path()).replicas
    steps = {
        stage.name: stage.train["per_device_train_batch_size"] * stage.train["gradient_accumulation_steps"] * replicas
        for stage in recipe.stages
        if isinstance(stage, TrainingStage)
    }
    assert steps == {"pretrain": 128, "sft": 256, "sft-long": 32, "dpo": 128, "grpo": 256}


def test_packed_stages_keep_samples_separate():
    for path in SHIPPED:
        for stage in load(path).stages:
            if isinstance(stage, SftStage) and stage.train.get("packing"):
                assert stage.train.get("packing_strategy", "bfd") != "wrapped"


def test_the_long_recipe_extends_the_model_to_its_length_and_fits():
    path = ROOT / "recipes" / "qwen2.5-coder" / "long-7b.yaml"
    recipe = load(path)
    card = int(re.search(r"# Hardware: 8 x (\d+) GB", path.read_text())[1])
    (needed,) = presentation.recipe_needs(recipe, card * 1e9 / 2**30)["needs"]
    assert needed["fits"] and needed["tokens_per_step"] == 2 * 8 * 131_072
    stage = recipe.stage("sft-131k")
    config = shapes.config("7b")
    loading.apply_context(config, stage.context)
    assert config.max_position_embeddings == stage.train["max_length"] == 131_072
    assert config.rope_parameters["factor"] == 4.0
    assert shapes.SHAPES["7b"].num_attention_heads % launch_file.layout_of(recipe.launch.path()).sequence == 0

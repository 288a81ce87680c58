"""Load and check recipes: typed settings of a base model and a list of stages. All mistakes are reported at once.

    recipe = load(Path("recipes/quickstart.yaml"), overrides=["stages.dpo.train.beta=0.2"])

Unknown keys are errors at every depth. `train:` takes the settings of the stage's TRL config class, and `peft:` the
settings of PEFT's LoraConfig (see `alignment.recipe.trainer_fields`). This package does not import torch.
"""

from __future__ import annotations

from alignment.models.trainer_classes import CONFIGS
from alignment.recipe.problems import RecipeError
from alignment.recipe.recipe_file import json_schema, load, locate, validate
from alignment.recipe.schema import (
    MODEL_KINDS,
    AnyStage,
    BuildStage,
    CustomStage,
    DpoStage,
    EvaluateStage,
    ExportStage,
    GrpoStage,
    KtoStage,
    MergeStage,
    PretrainStage,
    Recipe,
    SandboxSettings,
    SftStage,
    Stage,
    TrainingStage,
)
from alignment.recipe.stage_parts import BaseModelSettings, BenchmarkSettings, Tracking
from alignment.settings import Reference

__all__ = [
    "CONFIGS",
    "MODEL_KINDS",
    "AnyStage",
    "BaseModelSettings",
    "BenchmarkSettings",
    "BuildStage",
    "CustomStage",
    "DpoStage",
    "EvaluateStage",
    "ExportStage",
    "GrpoStage",
    "KtoStage",
    "MergeStage",
    "PretrainStage",
    "Recipe",
    "RecipeError",
    "Reference",
    "SandboxSettings",
    "SftStage",
    "Stage",
    "Tracking",
    "TrainingStage",
    "json_schema",
    "load",
    "locate",
    "validate",
]

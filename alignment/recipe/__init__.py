"""The recipe: what to run, typed, with every mistake found at once.

    recipe = load(Path("recipes/quickstart.yaml"), overrides=["stages.dpo.train.beta=0.2"])

A recipe is a base model and a list of stages; unknown keys are errors at every depth. `train:` takes any setting of the
stage's TRL config and `peft:` any of PEFT's LoraConfig (see `alignment.recipe.trainer_fields`). Nothing here imports torch.
"""

from __future__ import annotations

from alignment.recipe.loading import json_schema, load, validate
from alignment.recipe.problems import RecipeError
from alignment.recipe.schema import (
    CONFIGS,
    MODEL_KINDS,
    AnyStage,
    BaseModelSettings,
    Benchmark,
    BuildStage,
    CustomStage,
    DpoStage,
    EvaluateStage,
    ExportStage,
    GrpoStage,
    PretrainStage,
    Recipe,
    SandboxSettings,
    SftStage,
    Stage,
    Tracking,
    TrainingStage,
)
from alignment.settings import Reference

__all__ = [
    "CONFIGS",
    "MODEL_KINDS",
    "AnyStage",
    "BaseModelSettings",
    "Benchmark",
    "BuildStage",
    "CustomStage",
    "DpoStage",
    "EvaluateStage",
    "ExportStage",
    "GrpoStage",
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
    "validate",
]

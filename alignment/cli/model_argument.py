"""The argument with which commands name a model: a folder, a name on the hub, or a stage."""

from __future__ import annotations

from pathlib import Path

MODEL_HELP = (
    "a model folder, a name on the hub, RECIPE.yaml:STAGE for the model of a stage (`base` for the recipe's model), or "
    "the stage's folder, such as runs/NAME/sft"
)


def model_path(text: str) -> str:
    """Convert the text by which the user names a model into a folder or a name on the Hugging Face hub.

    Raises:
        ValueError: there is no stage with this name, or its model does not exist yet.
    """
    recipe_file, colon, stage = text.rpartition(":")
    if not colon or not recipe_file.endswith((".yaml", ".yml")):
        if text.endswith((".yaml", ".yml")):
            raise ValueError(f"{text} is a recipe: name a stage of it too, for example {text}:sft, or {text}:base")
        return _model_in(text)
    from alignment.chain.plan import plan
    from alignment.models.stored_config import is_gguf
    from alignment.recipe import load
    from alignment.recipe.schema import makes_model
    from alignment.wording import did_you_mean

    recipe = load(Path(recipe_file), [])
    if stage == "base":
        path = recipe.model.path
        if path is None or is_gguf(path):
            raise ValueError(f"the base model of {recipe_file} is not a folder: write it as one with align import")
        return str(path.path()) if path.exists() else str(path)
    names = [item.name for item in recipe.stages if makes_model(item)]
    if stage not in names:
        raise ValueError(
            f"{recipe_file} has no stage {stage!r} that makes a model: {', '.join(names)}.{did_you_mean(stage, names)}"
        )
    step = next(step for step in plan(recipe) if step.name == stage)
    if step.artifact() is None:
        raise ValueError(f"stage {stage!r} is not done with these settings: align run {recipe_file} --until {stage}")
    return str(step.folder / "model")


def _model_in(text: str) -> str:
    """Return the model in the folder of a stage. Any other text is returned unchanged."""
    folder = Path(text)
    if not (folder / "artifact.json").is_file():
        return text
    if not (folder / "model").is_dir():
        raise ValueError(f"{text} is the folder of a stage that makes no model: name one that trains or merges")
    return str(folder / "model")

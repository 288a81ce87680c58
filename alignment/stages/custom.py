"""A stage of the user's own code: calls the function that `run:` names, and checks what it returned and wrote."""

from __future__ import annotations

import traceback
from typing import Any

from alignment.extensions import Extension, ExtensionError
from alignment.recipe import CustomStage
from alignment.recipe.stage_request import StageRequest


def run(request: StageRequest) -> dict[str, Any]:
    """Call the function with the request. A stage that was interrupted is called again, with the files it has written.

    Returns:
        `result`: the mapping that the function returned.

    Raises:
        ExtensionError: the function raised, or returned something else than a mapping of JSON values, or the folder
            `model` of the artifact does not agree with `makes_model`. The message names file, line and function.
    """
    stage = request.stage
    assert isinstance(stage, CustomStage)
    request = _with_weights(request)
    extension = stage.run.extension()
    try:
        function = extension.load()
        with extension.errors("the function"):
            result = function(request)
    except ExtensionError as error:
        if error.__cause__ is not None:  # for the log of the stage; the terminal shows the message
            traceback.print_exception(error.__cause__)
        raise
    counts = extension.json_mapping(function, result)
    _check_model(extension, function, stage, request)
    return {"result": counts, "device": "cpu"}


def _with_weights(request: StageRequest) -> StageRequest:
    """The same request with a checkpoint in place of random weights, so that every model is a folder or a hub name."""
    if request.model is None or request.model.init is None:
        return request
    from alignment.models import loading

    path = loading.checkpoint_of(request.model, request.seed, request.out / "base")
    return request.model_copy(update={"model": request.model.model_copy(update={"init": None, "path": path})})


def _check_model(extension: Extension, function: Any, stage: CustomStage, request: StageRequest) -> None:
    model, place = request.out / "model", extension.place(function)
    if stage.makes_model and not (model / "config.json").is_file():
        raise ExtensionError(
            f"{place} left no model: `makes_model: true` needs a checkpoint (config.json, weights, tokenizer) "
            f"in {model}"
        )
    if not stage.makes_model and model.exists():
        raise ExtensionError(
            f"{place} left a folder {model}: set `makes_model: true` if later stages may start from it, "
            "or choose another name for the folder"
        )

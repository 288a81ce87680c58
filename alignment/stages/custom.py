"""A stage of the user's own code: calls the function that `run:` names, and checks what it returned and wrote."""

from __future__ import annotations

import json
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
            `model` of the artifact does not agree with `makes_model`. The message names file and function.
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
    _check_result(extension, result)
    _check_model(extension, stage, request)
    return {"result": result, "device": "cpu"}


def _with_weights(request: StageRequest) -> StageRequest:
    """The same request with a checkpoint in place of random weights, so that every model is a folder or a hub name."""
    if request.model is None or request.model.init is None:
        return request
    from alignment.models import loading

    path = loading.checkpoint_of(request.model, request.seed, request.out / "base")
    return request.model_copy(update={"model": request.model.model_copy(update={"init": None, "path": path})})


def _check_result(extension: Extension, result: Any) -> None:
    wanted = "return a mapping of JSON values, for example {'parameters': 12}"
    if not isinstance(result, dict) or not all(isinstance(key, str) for key in result):
        raise ExtensionError(f"{_place(extension)} returned {_described(result)}: {wanted}")
    try:
        json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ExtensionError(f"{_place(extension)} returned what JSON can't hold ({error}): {wanted}") from None


def _described(result: Any) -> str:
    if isinstance(result, dict):
        key = next(key for key in result if not isinstance(key, str))
        return f"a mapping with the key {key!r}, which is not a string"
    return "None" if result is None else f"{type(result).__name__}"


def _check_model(extension: Extension, stage: CustomStage, request: StageRequest) -> None:
    model = request.out / "model"
    if stage.makes_model and not (model / "config.json").is_file():
        raise ExtensionError(
            f"{_place(extension)} left no model: `makes_model: true` needs a checkpoint (config.json, weights, tokenizer) "
            f"in {model}"
        )
    if not stage.makes_model and model.exists():
        raise ExtensionError(
            f"{_place(extension)} left a folder {model}: set `makes_model: true` if later stages may start from it, "
            "or choose another name for the folder"
        )


def _place(extension: Extension) -> str:
    return f"{extension.file()}: {extension.name}()"

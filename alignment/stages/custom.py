"""Run a custom stage: call the user's function that `run:` names, and check its return value and its files."""

from __future__ import annotations

import traceback
from typing import Any

from alignment.extensions import ExtensionError
from alignment.recipe import CustomStage
from alignment.recipe.stage_request import StageRequest

RESERVED = ("checkpoints", "prepared", "start")
"""Names of work folders of training stages, which are deleted after the stage. A function must not use them."""


def run(request: StageRequest) -> dict[str, Any]:
    """Call the user's function with the request.

    After an interruption the function is called again. Files that it wrote before are still in the artifact's folder.

    Returns:
        The mapping that the function returned, under the key `result`, and the device.

    Raises:
        ExtensionError: the function raised an exception, returned something other than a mapping of JSON values, wrote
            a file with a reserved name, wrote a model although `makes_model` is false, or wrote no model although
            `makes_model` is true. The message names file, line and function.
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
    mapping = extension.json_mapping(function, result)
    _check_files(extension.place(function), stage, request)
    return {"result": mapping, "device": "cpu"}


def _with_weights(request: StageRequest) -> StageRequest:
    """Return the request with random weights replaced by a checkpoint on disk.

    The user's function then always gets the model as a folder or a hub name.
    """
    if request.model is None or request.model.init is None:
        return request
    from alignment.models import loading

    path = loading.checkpoint_of(request.model, request.seed, request.out / "base")
    return request.model_copy(update={"model": request.model.model_copy(update={"init": None, "path": path})})


def _check_files(place: str, stage: CustomStage, request: StageRequest) -> None:
    """Check the function's files: no name is reserved, and there is a model if and only if the stage declares one.

    Args:
        place: location of the function (file, line and name), for messages.
        stage: the stage's settings.
        request: the request; its `out` is the folder to check.

    Raises:
        ExtensionError: a file or folder must not be there, or the model is missing.
    """
    for name in RESERVED:
        if (request.out / name).exists():
            raise ExtensionError(f"{place} left {request.out / name}, which the chain would delete: rename it")
    model = request.out / "model"
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

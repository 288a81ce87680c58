"""A stage of the user's own code: calls the function that `run:` names, and checks what it returned and wrote."""

from __future__ import annotations

import traceback
from typing import Any

from alignment.extensions import ExtensionError
from alignment.recipe import CustomStage
from alignment.recipe.stage_request import StageRequest

RESERVED = ("checkpoints", "prepared", "start")
"""Folders of training stages, which the chain removes when a stage is done."""


def run(request: StageRequest) -> dict[str, Any]:
    """Call the function with the request. After an interruption it is called again, with the files it had written.

    Returns:
        `result`: the mapping that the function returned.

    Raises:
        ExtensionError: the function raised, or returned something other than a mapping of JSON values, or left files that
            do not agree with `makes_model` or have reserved names. The message names file, line and function.
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
    """Return the same request with a checkpoint in place of random weights, so that every model is a folder or a hub
    name.
    """
    if request.model is None or request.model.init is None:
        return request
    from alignment.models import loading

    path = loading.checkpoint_of(request.model, request.seed, request.out / "base")
    return request.model_copy(update={"model": request.model.model_copy(update={"init": None, "path": path})})


def _check_files(place: str, stage: CustomStage, request: StageRequest) -> None:
    """Check the names that have a meaning in an artifact; `place` is that of the function, for messages."""
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

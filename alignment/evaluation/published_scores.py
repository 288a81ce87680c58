"""Published scores of released models, and which of these models a checkpoint is.

The figures are in `published/*.json`: model -> mode and tables, each table under the name of its source. Every figure
was copied from the named table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from alignment.models.shapes import SHAPES
from alignment.models.stored_config import stored_config
from alignment.wording import did_you_mean

FOLDER = Path(__file__).parent / "published"
_NAME = re.compile(r"qwen2\.?5[-_ ]coder[-_ ](?P<size>\d+(?:\.\d+)?b)(?P<instruct>[-_ ]instruct)?", re.IGNORECASE)
_END_OF_TURN, _END_OF_TEXT = 151645, 151643
"""`eos_token_id` in config.json of the released instruct models and of the released base models."""


@dataclass(frozen=True)
class PublishedScore:
    """One published figure."""

    value: float
    """Percent."""
    source: str
    """Publication and table."""


@dataclass(frozen=True)
class PublishedModel:
    """A released model with its published figures."""

    name: str
    mode: Literal["base", "chat"]
    """Whether the figures were measured with plain prompts or with chat prompts."""
    scores: Mapping[str, PublishedScore]
    """Name of a benchmark -> its score."""


@dataclass(frozen=True)
class Recognized:
    """The released model with which a checkpoint is compared, and how it was recognized."""

    model: PublishedModel
    reason: str


@cache
def published_models() -> dict[str, PublishedModel]:
    """Read all models with published scores, by name."""
    models: dict[str, PublishedModel] = {}
    for file in sorted(FOLDER.glob("*.json")):
        for name, entry in json.loads(file.read_text(encoding="utf-8")).items():
            scores = {
                benchmark: PublishedScore(value, source)
                for source, table in entry["tables"].items()
                for benchmark, value in table.items()
            }
            models[name] = PublishedModel(name, entry["mode"], scores)
    return models


def published_model(name: str) -> PublishedModel:
    """Return the model with a name. Case does not matter.

    Raises:
        ValueError: there are no published scores of this model.
    """
    by_name = {known.lower(): model for known, model in published_models().items()}
    short = name.rpartition("/")[2].lower()
    if short not in by_name:
        known = ", ".join(published_models())
        raise ValueError(
            f"there are no published scores of {name!r}.{did_you_mean(name, published_models())} Known models: {known}"
        )
    return by_name[short]


def recognize(model_path: str | Path) -> Recognized:
    """Find the released model that a checkpoint is, or from which it was made.

    The name in the path counts first, then the name in the files, then the shape. Models that were trained further keep
    the shape.

    Raises:
        ValueError: the model is not recognized.
    """
    config = stored_config(Path(model_path)) or {}
    for text, reason in ((str(model_path), "its path"), (str(config.get("_name_or_path", "")), "the name in its file")):
        matches = list(_NAME.finditer(text))
        if matches:
            suffix = "-Instruct" if matches[-1]["instruct"] else ""
            name = f"Qwen2.5-Coder-{matches[-1]['size'].upper()}{suffix}"
            if name in published_models():
                return Recognized(published_models()[name], reason)
    size = next((size for size, shape in SHAPES.items() if _has_shape(config, shape)), None)
    kind = {_END_OF_TURN: "-Instruct", _END_OF_TEXT: ""}.get(config.get("eos_token_id", -1))
    if size is None or kind is None:
        raise ValueError(
            f"{model_path}: which released model this is cannot be seen from its name or shape: name the model with "
            "--published, for example --published Qwen2.5-Coder-0.5B-Instruct"
        )
    reason = f"its shape and its end token {config['eos_token_id']}"
    return Recognized(published_models()[f"Qwen2.5-Coder-{size.upper()}{kind}"], reason)


def _has_shape(config: Mapping[str, Any], shape: Any) -> bool:
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    return all(config.get(key) == getattr(shape, key) for key in keys)

"""Collects what is known about an exported model: lineage, datasets, training, ladder, versions.

The card, the ML-BOM and the summary of training content are written from these facts. They may be published, so the
facts contain no local folders, and no credentials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from alignment.fingerprints import package_versions
from alignment.provenance.base_model import base_name
from alignment.provenance.lineage import Lineage, StageArtifact, trace
from data_builders.repositories.remote_git import strip_credentials

_REASONS = ("removed", "dropped", "left_out")
"""Keys of a builder's summary that count what was removed, by reason."""


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset on which a model was trained."""

    name: str
    """Name of the artifact's folder, or of the file or folder outside of the chain."""
    title: str
    role: str
    """Role of the dataset, see `alignment.provenance.lineage`."""
    builder: str = ""
    rows: int | None = None
    bytes: int | None = None
    sha256: str = ""
    licenses: Mapping[str, int] = field(default_factory=dict)
    """Licence -> number of rows."""
    languages: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of files or rows that were removed."""
    redacted: Mapping[str, int] = field(default_factory=dict)
    """Kind of secret or personal data -> number of values that were replaced."""
    finished: str = ""
    """Date on which the dataset was made, or ""."""


@dataclass(frozen=True)
class TrainingFacts:
    """One stage that changed the weights."""

    stage: str
    kind: str
    data: Sequence[str]
    """Names of the datasets that the stage read."""
    samples: int | None
    tokens: int | None
    steps: int | None
    loss: float | None
    contaminated: int
    """Number of rows that were removed because they share text with a benchmark."""


@dataclass(frozen=True)
class ModelFacts:
    """Everything that card, ML-BOM and summary of training content say about a model."""

    name: str
    license: str | None
    base: str
    """Name of the base model."""
    recipe: str
    lineage: Lineage
    datasets: Sequence[DatasetFacts]
    training: Sequence[TrainingFacts]
    ladder: Sequence[Mapping[str, Any]]
    """Entries of `ladder.json` of the base model and of the stages from which the model descends."""
    settings: Sequence[Mapping[str, Any]]
    """Settings of the stages from which the model descends, in the order of the recipe."""
    versions: Mapping[str, str]
    commit: str | None
    """Commit of the toolkit that trained the model."""

    @property
    def fingerprint(self) -> str:
        return str(self.lineage.artifact.content.get("fingerprint", ""))


def collect(
    artifact: StageArtifact, name: str, *, license: str | None = None, base_model: str | None = None
) -> ModelFacts:
    """Collect the facts about the model of an artifact.

    Args:
        artifact: the artifact of a stage that makes or exports a model.
        name: name of the model.
        license: licence of the model.
        base_model: name of the base model, if another one is to be shown than the recorded one.
    """
    lineage = trace(artifact)
    learned = [item for item in lineage.learned() if item.content]
    trained = [item for item in learned if "metrics" in item.content]
    bases = [base_name(base) for base in lineage.base_models()]
    return ModelFacts(
        name=name,
        license=license,
        base=base_model or ", ".join(bases),
        recipe=artifact.folder.parent.parent.name,
        lineage=lineage,
        datasets=_distinct([*_built_datasets(lineage), *_other_datasets(lineage)]),
        training=[_training(item) for item in trained],
        ladder=_ladder(artifact.folder.parent.parent, {"base", *(item.name for item in learned)}),
        settings=[publishable(item.settings) for item in learned],
        versions=trained[-1].content.get("versions", {}) if trained else package_versions(),
        commit=trained[-1].content.get("git_commit") if trained else None,
    )


def _built_datasets(lineage: Lineage) -> Iterator[DatasetFacts]:
    for item in lineage.artifacts:
        role = lineage.roles[item.folder]
        if item.kind != "build" or role not in ("learned", "calibrated"):
            continue
        summary = item.content.get("summary", {})
        removed: dict[str, int] = {}
        for key in _REASONS:
            removed |= _counts(summary.get(key))
        yield DatasetFacts(
            name=item.folder.name,
            title=str(summary.get("title", item.name)),
            role=role,
            builder=str(item.settings.get("builder", "")),
            rows=_integer(summary.get("rows")),
            bytes=_integer(summary.get("bytes")),
            sha256=str(summary.get("sha256", "")),
            licenses=_counts(summary.get("licenses")),
            languages=_counts(summary.get("languages")),
            removed=removed,
            redacted=_counts(summary.get("redacted")),
            finished=str(item.content.get("finished", ""))[:10],
        )


def _other_datasets(lineage: Lineage) -> Iterator[DatasetFacts]:
    """Yield the files outside of the chain from which the model learned."""
    for item in lineage.artifacts:
        for file in item.content.get("files", []):
            path = file.get("path") or file["hub"]
            roles = [origin.role for origin in lineage.files() if origin.path == path]
            if roles and roles[0] in ("learned", "calibrated"):
                yield DatasetFacts(
                    name=PurePath(path).name if "path" in file else path,
                    title=str(file.get("title", "")) or ("dataset on the hub" if "hub" in file else "file"),
                    role=roles[0],
                    sha256=file.get("sha256", ""),
                    licenses=_counts(file.get("licenses")),
                )


def _distinct(datasets: Sequence[DatasetFacts]) -> list[DatasetFacts]:
    """Leave out repeated datasets, and number different datasets of one name."""
    distinct: list[DatasetFacts] = []
    for item in dict.fromkeys((item.name, item.sha256) for item in datasets):
        dataset = next(other for other in datasets if (other.name, other.sha256) == item)
        namesakes = sum(other.name.partition(" (")[0] == dataset.name for other in distinct)
        distinct.append(replace(dataset, name=f"{dataset.name} ({namesakes + 1})") if namesakes else dataset)
    return distinct


def _training(item: StageArtifact) -> TrainingFacts:
    metrics, counts = item.content["metrics"], item.content.get("data", {})
    contaminated = counts.get("decontamination", {}).get("removed") or 0
    return TrainingFacts(
        stage=item.name,
        kind=item.kind,
        data=list(counts.get("sources", {})),
        samples=_integer(counts.get("samples")),
        tokens=_integer(metrics.get("tokens")),
        steps=_integer(metrics.get("steps")),
        loss=metrics.get("train_loss"),
        contaminated=contaminated,
    )


def _ladder(folder: Path, stages: set[str]) -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder / "ladder.json").read_text())
    except (OSError, ValueError):  # no evaluation has finished
        return []
    return [entry for entry in entries if entry["stage"] in stages]


def _integer(value: Any) -> int | None:
    return round(value) if isinstance(value, int | float) else None


def _counts(value: Any) -> dict[str, int]:
    """Return the entries of a mapping that are whole numbers."""
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): count for key, count in items if isinstance(count, int) and not isinstance(count, bool)}


def publishable(value: Any) -> Any:
    """Return JSON values without local folders, credentials, and settings that are not set.

    A path into another artifact becomes `stage/file`, any other absolute path becomes the name of the file.
    """
    if isinstance(value, str):
        return strip_credentials(_without_folders(value))
    if isinstance(value, list):
        return [publishable(item) for item in value]
    if isinstance(value, Mapping):
        kept = {key: publishable(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, [], {})}
    return value


def _without_folders(text: str) -> str:
    if not text.startswith("/") or "\n" in text:
        return text
    parts = PurePath(text).parts
    if "artifacts" in parts[:-1]:
        step, *inside = parts[parts.index("artifacts") + 1 :]
        return "/".join([step.rpartition("-")[0] or step, *inside])
    return parts[-1]

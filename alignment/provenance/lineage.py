"""Follows artifacts back to the repositories, files and base models of which they were made.

The roles of an input, from the strongest to the weakest:

    learned     its content is in the artifact: a model was trained on it, or rows were made of it
    calibrated  it decided how weights were quantized
    measured    the artifact was measured on it, or compared with the original on it
    screened    training rows were compared with it, so that none of its text was trained on

Along a path of several artifacts the weakest role counts, and among several paths the strongest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from alignment.provenance import artifact_file
from alignment.provenance.artifact_file import Artifact
from alignment.provenance.input_files import parse_sources
from alignment.recipe.stage_request import StageRequest

ROLES = ("learned", "calibrated", "measured", "screened")
"""Roles of an input, from the strongest to the weakest."""
_ROLE_OF_KEY = {
    "benchmark": "measured",
    "benchmarks": "measured",
    "search": "measured",
    "decontaminate": "screened",
    "calibration": "calibrated",
    "imatrix_file": "calibrated",
}
_MAKES_NO_CONTENT = ("evaluate",)
"""Kinds of stages whose artifacts hold measurements only."""


@dataclass(frozen=True)
class RepositoryOrigin:
    """A repository whose content is in an artifact, or on which an artifact was measured."""

    name: str
    commit: str
    """Commit that was read, or "" for a folder without history."""
    license: str
    """Licence that the recipe declares, or "" if it was read from the repository's files."""
    head: str
    """For a benchmark of held-out commits: the newest commit. Otherwise ""."""
    role: str
    read_by: str
    """Name of the folder of the artifact whose stage read the repository, or the path of a dataset."""

    def matches(self, name: str | None, commit: str | None) -> bool:
        """Whether the repository has this name (a pattern such as `team-*`), and this commit (or the beginning of it)."""
        commits = [value for value in (self.commit, self.head) if value]
        return (name is None or fnmatch(self.name, name)) and (
            commit is None or any(value.startswith(commit.lower()) for value in commits)
        )


@dataclass(frozen=True)
class FileOrigin:
    """A file or folder outside of the chain that a stage read."""

    path: str
    """Path, or name on the Hugging Face hub."""
    sha256: str
    """Digest of the content, or "" for a name on the hub."""
    role: str
    read_by: str


@dataclass(frozen=True)
class StageArtifact:
    """The artifact of a step. `content` is empty if the artifact's folder was removed."""

    folder: Path
    content: Artifact = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.content.get("stage", self.folder.name.rpartition("-")[0]))

    @property
    def kind(self) -> str:
        return str(self.content.get("kind", "missing"))

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.content.get("settings", {}))

    def repositories(self) -> list[dict[str, str]]:
        """Return name and commit (and license, head) of the repositories that the stage itself read."""
        if "sources" in self.content:
            return list(self.content["sources"])
        sources = self.content.get("summary", {}).get("sources", [])  # artifacts of version 0.1
        return parse_sources(map(str, sources if isinstance(sources, list) else []))

    def inputs(self) -> Iterator[tuple[StageArtifact, str]]:
        """Yield the artifacts that the stage read, each with its role.

        What a measured model learned from is not part of the measurements.
        """
        for step, fingerprint in self.content.get("inputs", {}).items():
            if self.kind in _MAKES_NO_CONTENT and step == self.content.get("model"):
                continue
            folder = self.folder.parent / artifact_file.folder_name(step, fingerprint)
            yield StageArtifact(folder, artifact_file.read(folder) or {}), self._role_of_step(step, folder.name)

    def _role_of_step(self, step: str, folder: str) -> str:
        if self.kind in _MAKES_NO_CONTENT:
            return "measured"
        merged = [model.get("model") for model in self.settings.get("models", [])]
        if step == self.content.get("model") or step in merged:
            return "learned"
        # By name: the folder of the recipe's results may have been moved since.
        return self._role([key for key, value in _strings(self.settings) if folder in Path(value).parts])

    def role_of_path(self, path: str) -> str:
        """Return the role of a file or folder outside of the chain, from the settings in which the path is written."""
        return self._role([key for key, value in _strings(self.settings) if value == path])

    def _role(self, keys: Iterable[str]) -> str:
        """Return the role of an input, from the keys of the settings that name the input."""
        if self.kind in _MAKES_NO_CONTENT:
            return "measured"
        roles = [_role_of_key(key, self.kind) for key in keys]
        return min(roles, key=ROLES.index) if roles else "screened"


@dataclass(frozen=True)
class Lineage:
    """Everything of which an artifact was made, with the role of each part."""

    artifact: StageArtifact
    roles: Mapping[Path, str]
    """Folder of each artifact that contributed -> its role. The artifact itself is `learned`."""
    artifacts: list[StageArtifact]
    """The artifact and all artifacts that contributed, inputs before the artifacts that read them."""

    def learned(self) -> list[StageArtifact]:
        """Return the artifacts whose content is in this artifact, in the order in which they were made."""
        return [item for item in self.artifacts if self.roles[item.folder] == "learned"]

    def repositories(self) -> list[RepositoryOrigin]:
        """Return the repositories of all artifacts and of datasets outside of the chain, strongest role first."""
        origins = []
        for item in self.artifacts:
            role = self.roles[item.folder]
            entries = [(entry, role, item.folder.name) for entry in item.repositories()]
            for file in item.content.get("files", []):
                weaker = _weaker(role, item.role_of_path(file.get("path", "")))
                entries += [(entry, weaker, file["path"]) for entry in file.get("sources", [])]
            for entry, entry_role, read_by in entries:
                origins.append(
                    RepositoryOrigin(
                        entry["name"],
                        entry["commit"],
                        entry.get("license", ""),
                        entry.get("head", ""),
                        entry_role,
                        read_by,
                    )
                )
        return sorted(dict.fromkeys(origins), key=lambda origin: ROLES.index(origin.role))

    def files(self) -> list[FileOrigin]:
        """Return the files outside of the chain, strongest role first."""
        origins = []
        for item in self.artifacts:
            for file in item.content.get("files", []):
                path = file.get("path") or file["hub"]
                role = _weaker(self.roles[item.folder], item.role_of_path(path))
                origins.append(FileOrigin(path, file.get("sha256", ""), role, item.folder.name))
        return sorted(origins, key=lambda origin: ROLES.index(origin.role))

    def base_models(self) -> list[dict[str, Any]]:
        """Return the base models from which the weights of this artifact descend."""
        models = [item.content["base_model"] for item in self.learned() if item.content.get("base_model")]
        return [model for number, model in enumerate(models) if model not in models[:number]]

    def missing(self) -> list[str]:
        """Return the names of folders of artifacts that contributed but were removed."""
        return [item.folder.name for item in self.artifacts if not item.content]


def trace(artifact: StageArtifact) -> Lineage:
    """Follow an artifact back to everything of which it was made."""
    roles: dict[Path, str] = {}
    items: dict[Path, StageArtifact] = {}

    def visit(item: StageArtifact, role: str) -> None:
        known = roles.get(item.folder)
        if known is not None and ROLES.index(known) <= ROLES.index(role):
            return
        roles[item.folder] = role
        for parent, parent_role in item.inputs():
            visit(parent, _weaker(role, parent_role))
        items.setdefault(item.folder, item)

    visit(artifact, "learned")
    return Lineage(artifact, roles, list(items.values()))


def unfinished(request: StageRequest) -> StageArtifact:
    """Return the artifact of a step that is still running, as far as it is known."""
    content = {
        "stage": request.name,
        "kind": request.stage.kind,
        "fingerprint": request.fingerprint,
        "settings": request.stage.model_dump(mode="json"),
        "inputs": request.inputs,
        "model": request.model_stage,
        "base_model": request.base_model,
        "seed": request.seed,
    }
    return StageArtifact(request.out, content)


def find_artifacts(places: Iterable[Path]) -> list[StageArtifact]:
    """Return the artifacts in folders: of a stage, of a recipe, or of several recipes. Oldest first.

    Raises:
        ValueError: a folder does not exist, or contains no artifact.
    """
    folders: dict[Path, None] = {}
    for place in places:
        if not place.exists():
            raise ValueError(
                f"there is no folder {place}: name a recipe's folder such as runs/NAME, or a stage's folder"
            )
        if (place / artifact_file.ARTIFACT).is_file():
            folders[place.resolve()] = None
            continue
        files = sorted(place.resolve().rglob(f"artifacts/*/{artifact_file.ARTIFACT}"))
        if not files:
            raise ValueError(f"{place} has no finished stage: name a recipe's folder such as runs/NAME")
        folders |= dict.fromkeys(file.parent for file in files)
    artifacts = [StageArtifact(folder, artifact_file.read(folder) or {}) for folder in folders]
    return sorted(artifacts, key=lambda item: str(item.content.get("finished", "")))


def _weaker(first: str, second: str) -> str:
    return max(first, second, key=ROLES.index)


def _role_of_key(key: str, kind: str) -> str:
    """Return the role of a path that is the value of a setting.

    Args:
        key: the keys that lead to the setting, joined by dots.
        kind: the kind of the stage.
    """
    parts = key.split(".")
    role = next((_ROLE_OF_KEY[part] for part in parts if part in _ROLE_OF_KEY), "learned")
    if kind == "build":
        return "screened" if "decontaminate" in parts else "learned"
    if kind == "export" and parts[0] == "data":
        return "measured"
    return role


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (keys joined by dots, value) of every string in JSON values."""
    if isinstance(value, str):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _strings(item, f"{key}.{name}" if key else str(name))

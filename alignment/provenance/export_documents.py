"""Adds the documents about a model's origin to an export: sections of the card, ML-BOM, summary of training content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from alignment.export import ExportOptions
from alignment.export.publish import BOM, CONTENT_SUMMARY
from alignment.logs import get_logger
from alignment.models.stored_config import stored_config
from alignment.provenance import artifact_file, mlbom
from alignment.provenance.card_sections import card_sections
from alignment.provenance.lineage import StageArtifact
from alignment.provenance.model_facts import ModelFacts, collect
from alignment.provenance.training_content import training_content

logger = get_logger(__name__)


def with_documents(options: ExportOptions, artifact: StageArtifact, model: Path) -> ExportOptions:
    """Return the options of an export with the documents about the origin of its model.

    Args:
        options: the options of the export.
        artifact: the artifact of the export, or of the stage that made the model. Without content, only the files, the
            base model and the packages are described.
        model: the model's folder.
    """
    name = options.name or model.resolve().name
    facts = collect(artifact, name, license=options.license, base_model=options.base_model)
    known = bool(artifact.content)
    return replace(
        options,
        card_sections=card_sections(facts) if known else "",
        documents=partial(_documents, facts, _architecture(model), known),
    )


def artifact_of(model: Path) -> StageArtifact:
    """Return the artifact whose stage made a model. It has no content if the model is not of a chain."""
    folder = model.resolve().parent
    return StageArtifact(folder, artifact_file.read(folder) or {})


def _architecture(model: Path) -> str:
    architectures = (stored_config(model) or {}).get("architectures") or ["unknown"]
    return str(architectures[0])


def _documents(
    facts: ModelFacts, architecture: str, known: bool, folder: Path, files: Sequence[Path]
) -> dict[str, str]:
    """Return the documents about the files in a folder, as name of the file -> text."""
    documents = {CONTENT_SUMMARY: training_content(facts)} if known else {}
    if mlbom.is_available():
        documents[BOM] = mlbom.ml_bom(facts, folder, files, architecture)
    else:
        logger.info("      no %s: %s", BOM, mlbom.NOT_INSTALLED)
    return documents

"""Writes the CycloneDX ML-BOM of an export: the model, its files with hashes, base model, datasets, sources and packages.

cyclonedx-python-lib 11 has no classes for model cards and for the contents of datasets; these two parts of the document
are added to its JSON.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.provenance.base_model import base_digest
from alignment.provenance.model_facts import DatasetFacts, ModelFacts

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

NOT_INSTALLED = "the ML-BOM needs cyclonedx-python-lib: pip install 'code-alignment[provenance]'"
_APPROACHES = {"pretrain": "self-supervised", "grpo": "reinforcement-learning"}
_MODEL = "model"


def is_available() -> bool:
    """Whether the package that writes the ML-BOM is installed."""
    try:
        import cyclonedx  # noqa: F401
    except ImportError:
        return False
    return True


def ml_bom(facts: ModelFacts, folder: Path, files: Iterable[Path], architecture: str) -> str:
    """Return the ML-BOM (CycloneDX 1.6) as JSON.

    Args:
        facts: the facts about the model.
        folder: the folder that the document describes. Paths of files are relative to it.
        files: the model's files below `folder`.
        architecture: name of the model's architecture, for example `Qwen2ForCausalLM`.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType, Pedigree
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    base, datasets, sources = _base(facts), _datasets(facts), _sources(facts)
    model = Component(
        name=facts.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        version=facts.fingerprint[:12] or None,
        licenses=_licenses([facts.license] if facts.license else []),
        pedigree=Pedigree(ancestors=base) if base else None,
        components=[_file(folder, path) for path in sorted(files)],
        properties=_properties(
            {"fingerprint": facts.fingerprint, "recipe": facts.recipe, "commit": facts.commit or ""}
        ),
    )
    bom = Bom(components=[*datasets, *sources, *_packages(facts)])
    # The same export gets the same number.
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"code-alignment:{facts.name}:{facts.fingerprint}")
    bom.metadata.component = model
    bom.register_dependency(model, [*datasets, *_packages(facts)])
    for dataset, reads in zip(datasets, _reads(facts), strict=True):
        bom.register_dependency(dataset, [source for source in sources if source.bom_ref.value in reads])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    document = json.loads(text)
    document["metadata"]["component"]["modelCard"] = _model_card(facts, architecture)
    contents = {f"dataset:{item.name}": _data(item) for item in facts.datasets}
    for component in document.get("components", []):
        if component["bom-ref"] in contents:
            component["data"] = [contents[component["bom-ref"]]]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _file(folder: Path, path: Path) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    name = path.relative_to(folder).as_posix()
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
    return Component(
        name=name, type=ComponentType.FILE, bom_ref=f"file:{name}", hashes=hashes,
        properties=_properties({"bytes": str(path.stat().st_size)}),
    )  # fmt: skip


def _base(facts: ModelFacts) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType

    if not facts.base:
        return []
    digests = [digest for base in facts.lineage.base_models() if (digest := base_digest(base))]
    return [
        Component(
            name=facts.base,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="base-model",
            # The digest of a folder covers names and contents of its files: no hash that other programs compute.
            properties=_properties({"digest": digests[0] if digests else ""}),
        )
    ]


def _datasets(facts: ModelFacts) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=item.name,
            type=ComponentType.DATA,
            bom_ref=f"dataset:{item.name}",
            description=item.title,
            properties=_properties({"digest": item.sha256}),
            licenses=_licenses(item.licenses),
        )
        for item in facts.datasets
    ]


def _sources(facts: ModelFacts) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType

    components: dict[str, Component] = {}
    for origin in facts.lineage.repositories():
        if origin.role in ("learned", "calibrated"):
            reference = f"source:{origin.name}@{origin.commit}"
            components[reference] = Component(
                name=origin.name,
                type=ComponentType.DATA,
                bom_ref=reference,
                version=origin.commit or None,
                description="repository of source code",
                licenses=_licenses([origin.license] if origin.license else []),
            )
    return list(components.values())


def _reads(facts: ModelFacts) -> list[set[str]]:
    """Return, for each dataset, the references of the repositories that were read for it."""
    origins = facts.lineage.repositories()
    return [
        {f"source:{origin.name}@{origin.commit}" for origin in origins if Path(origin.read_by).name == item.name}
        for item in facts.datasets
    ]


def _packages(facts: ModelFacts) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return [
        Component(
            name=name,
            type=ComponentType.LIBRARY,
            bom_ref=f"package:{name}",
            version=version,
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in facts.versions.items()
    ]


def _licenses(names: Iterable[str]) -> list[Any]:
    """Return licences: SPDX ids where the names are such, else plain names. Text that names no licence is left out."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.license import LicenseExpression

    made = [LicenseFactory().make_from_string(name) for name in names if name not in ("", "none")]
    # The schema allows either one expression, or any number of single licences.
    if len(made) > 1:
        made = [
            LicenseFactory().make_with_name(item.value) if isinstance(item, LicenseExpression) else item
            for item in made
        ]
    return made


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"code-alignment:{name}", value=value) for name, value in values.items() if value]


def _data(item: DatasetFacts) -> dict[str, Any]:
    """Return what the document says about the contents of a dataset."""
    counts = {"rows": item.rows, "bytes": item.bytes}
    counts |= {f"removed:{reason}": count for reason, count in item.removed.items()}
    counts |= {f"replaced:{kind}": count for kind, count in item.redacted.items()}
    counts |= {f"license:{name}": count for name, count in item.licenses.items()}
    properties = [
        {"name": f"code-alignment:{name}", "value": str(count)} for name, count in counts.items() if count is not None
    ]
    return {"type": "dataset", "name": item.name, "contents": {"properties": properties}}


def _model_card(facts: ModelFacts, architecture: str) -> dict[str, Any]:
    kinds = [item.kind for item in facts.training]
    parameters: dict[str, Any] = {
        "task": "text-generation",
        "architectureFamily": "transformer",
        "modelArchitecture": architecture,
        "datasets": [{"ref": f"dataset:{item.name}"} for item in facts.datasets],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if kinds:
        parameters["approach"] = {"type": _APPROACHES.get(kinds[-1], "supervised")}
    metrics = [
        {
            "type": str(entry["metric"]),
            "value": f"{entry['value']:.4g}",
            "slice": str(entry["stage"]),
            "confidenceInterval": {"lowerBound": f"{entry['low']:.4g}", "upperBound": f"{entry['high']:.4g}"},
        }
        for entry in facts.ladder
    ]
    return {
        "modelParameters": parameters,
        **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        "considerations": {
            "useCases": ["completing, writing and explaining source code"],
            "technicalLimitations": [
                "may repeat code that it was trained on",
                "what it writes can be wrong or insecure and has to be reviewed",
            ],
        },
    }

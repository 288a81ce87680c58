"""Artifacts of a chain, written by hand: benchmark and corpus of `shop`, preferences, SFT with a file, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COMMIT, HEAD, OTHER = "a" * 40, "b" * 40, "c" * 40


def write_artifact(runs: Path, stage: str, kind: str, **content: Any) -> Path:
    """Write the artifact.json of a stage, and return the artifact's folder."""
    fingerprint = (stage.encode().hex() + "0" * 64)[:64]
    folder = runs / "artifacts" / f"{stage}-{fingerprint[:12]}"
    folder.mkdir(parents=True)
    inputs = {name: (name.encode().hex() + "0" * 64)[:64] for name in content.pop("reads", [])}
    artifact = {"stage": stage, "kind": kind, "fingerprint": fingerprint, "settings": {"kind": kind}, "inputs": inputs}
    (folder / "artifact.json").write_text(json.dumps(artifact | content))
    return folder


def write_chain(runs: Path) -> dict[str, Path]:
    """Write all artifacts. Return the folder of each stage."""
    base = {"path": "/models/coder-0.5b", "path_digest": "d" * 64}
    shop = {"name": "shop", "commit": COMMIT, "license": "owned"}
    folders = {
        "benchmark": write_artifact(
            runs, "benchmark", "build", sources=[shop | {"head": HEAD}], summary={"title": "Private benchmark", "fim": 3}
        ),
        "corpus": write_artifact(
            runs, "corpus", "build", sources=[shop],
            summary={
                "title": "Code corpus", "rows": 40, "bytes": 5000, "sha256": "e" * 64, "licenses": {"owned": 40},
                "languages": {"python": 38, "go": 2}, "removed": {"near_duplicate": 7}, "redacted": {"PASSWORD": 2},
            },
        ),
        "evaluate-base": write_artifact(runs, "evaluate-base", "evaluate", reads=["benchmark"], base_model=base),
    }  # fmt: skip
    corpus = str(folders["corpus"])
    folders["pretrain"] = write_artifact(
        runs, "pretrain", "pretrain", reads=["corpus", "benchmark"], base_model=base,
        settings={"kind": "pretrain", "data": [{"data": corpus}]},
        files=[
            {"path": "/data/lib.jsonl", "sha256": "f" * 64, "title": "Library", "sources": [{"name": "lib", "commit": OTHER}]}
        ],
        metrics={"tokens": 1234, "steps": 5, "train_loss": 1.5}, data={"samples": 9, "sources": {"corpus": 9}},
        versions={"torch": "2.13.0"}, git_commit="1" * 40,
    )  # fmt: skip
    folders["export"] = write_artifact(
        runs, "export", "export", reads=["pretrain", "corpus"], model="pretrain",
        settings={"kind": "export", "data": corpus, "formats": ["q8_0"]},
    )  # fmt: skip
    (runs / "ladder.json").write_text(
        json.dumps([{"stage": "pretrain", "metric": "fim.stop_rate", "value": 78.3, "low": 66.4, "high": 86.9}])
    )
    return folders

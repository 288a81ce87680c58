"""From a git repository to a model, with one recipe."""

import hashlib
import json
import subprocess
import sys

import pytest
import tiny


def make_repository(folder):
    """A project of two commits, with a password in it."""
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=Ada", "-c", "user.email=ada@firm.example"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    for turn in ("draw the first version", "draw all of it again"):
        for number in range(8):
            lines = "\n".join(
                f"    part_{number}_{line} = shape_{number}({line}, {turn!r})" for line in range(10 + number)
            )
            (folder / f"shape_{number}.py").write_text(
                f"from base import shape_{number}\n\n\ndef draw_{number}(canvas):\n{lines}\n    return canvas\n"
            )
        (folder / "settings.py").write_text(
            'HOST = "localhost"\nPASSWORD = "tr0ub4dor&3xyz"\n' + "TIMEOUT = 3  # seconds\n"
        )
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"Let us {turn} for everybody"], check=True)
    return folder


@pytest.mark.slow
def test_a_repository_becomes_a_corpus_and_the_corpus_a_model(make_workshop):
    folder = make_workshop()
    make_repository(folder / "project")
    recipe = tiny.write_recipe(
        folder,
        {
            "corpus": {"kind": "build", "builder": "corpus", "settings": {"sources": ["project"]}},
            "whole": {"kind": "build", "builder": "repo_level", "settings": {"inputs": ["corpus"], "max_length": 600}},
            "pretrain": {
                "kind": "pretrain",
                "data": [{"data": "corpus"}, {"data": "whole/data"}],
                "fim": {"rate": 0.5},
                "train": tiny.trainer(max_steps=2),
            },
            "export": {"kind": "export", "formats": ["bf16"], "data": "corpus"},
        },
    )
    done = tiny.launch(recipe)
    assert done.returncode == 0, tiny.output(done)
    artifact = json.loads((folder / "runs" / "tiny" / "pretrain" / "artifact.json").read_text())
    assert "tr0ub4dor" not in json.dumps(artifact)
    report = json.loads((folder / "runs" / "tiny" / "corpus" / "report.json").read_text())
    assert report["rows"] == 9 and report["redacted"] == {"PASSWORD": 1}
    _check_documents(folder / "runs" / "tiny")


def _check_documents(runs):
    """Check the documents of the export, and that `align lineage` finds the repository in model and export."""
    sources = json.loads((runs / "corpus" / "artifact.json").read_text())["sources"]
    assert [(entry["name"], len(entry["commit"])) for entry in sources] == [("project", 40)]
    export = runs / "export"
    card, summary = (export / "README.md").read_text(), (export / "training-content.md").read_text()
    for text in (card, summary):
        assert sources[0]["commit"] in text and str(runs.parent) not in text and "tr0ub4dor" not in text
    assert "| PASSWORD 1 |" in card
    bom = json.loads((export / "mlbom.cdx.json").read_text())
    files = {item["name"]: item["hashes"][0]["content"] for item in bom["metadata"]["component"]["components"]}
    assert files == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in export.iterdir() if path.suffix == ".gguf"
    }
    command = [sys.executable, "-m", "alignment.cli", "lineage", str(runs), "--source", "project", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert {(row["stage"], row["role"]) for row in rows} == {
        ("corpus", "learned"), ("whole", "learned"), ("pretrain", "learned"), ("export", "learned"),
    }  # fmt: skip

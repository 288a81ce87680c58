"""The pages: built without a broken link, error texts as printed, and every command block run or exempt with a
reason.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from error_cases import CASES, CHATS, MODEL

from alignment.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SHELL = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```sh\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL
)
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
TEXTS = re.findall(r"^```text\n(.*?)\n```$", TROUBLESHOOTING, re.MULTILINE | re.DOTALL)
RUN = [page for page in PAGES if any(not match["reason"] for match in SHELL.finditer(page.read_text()))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs"))


@pytest.mark.parametrize("name", CASES)
def test_the_page_quotes_the_error_as_it_is_printed(tmp_path, monkeypatch, capsys, name):
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    model = "model: {path: base}\n" if "base/README.md" in case.files else MODEL
    (tmp_path / "recipe.yaml").write_text(f"name: mine\n{model}{case.more}stages: {case.stages}\n")
    for path, text in {"chats.jsonl": CHATS, **case.files}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    assert main(list(case.command)) == 1
    printed = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert any(text in printed for text in TEXTS), f"the page does not quote {printed!r}"


def test_the_page_quotes_no_error_that_no_case_meets():
    assert len(TEXTS) == len(CASES) >= 20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_in_blocks_that_the_test_finds(page):
    text = page.read_text()
    shells = re.findall(r"^```(\w+)$", text, re.MULTILINE)
    assert not {"bash", "shell", "console"} & set(shells), "use ```sh"
    assert shells.count("sh") == len(list(SHELL.finditer(text)))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_command_block_without_a_reason_runs(page, tmp_path):
    """In a folder with the shipped recipes, and a small git repository `app`."""
    for name in ("recipes", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    app = tmp_path / "app"
    app.mkdir()
    for number in range(6):
        steps = "\n".join(f"    value = value * {number + 2} + {step}" for step in range(8))
        (app / f"part{number}.py").write_text(f"def compute_part{number}(value):\n{steps}\n    return value\n")
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@firm.example"]
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", f"Add part {number} of the computation"]):
            subprocess.run(["git", *identity, *command], cwd=app, check=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    align = tools / "align"
    align.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m alignment.cli "$@"\n')
    align.chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for match in SHELL.finditer(page.read_text()):
        if not match["reason"]:
            script = "set -e\n" + match["commands"]
            done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{match['commands']}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the pages are built with the extra [dev]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page, words in {"recipe": "max_prompt_length", "builders": "held_out", "benchmarks": "humaneval"}.items():
        assert words in (tmp_path / "site" / "reference" / page / "index.html").read_text()


def test_every_setting_of_a_stage_is_in_the_recipe_reference():
    sys.path.insert(0, str(ROOT / "docs"))
    from reference_pages import pages

    from alignment.recipe.schema import STAGES

    text = pages()["reference/recipe.md"]
    for kind, stage in STAGES.items():
        section = text.split(f"## A stage of kind `{kind}`")[1].split("\n## ")[0]
        assert [name for name in stage.model_fields if f"| `{name}` |" not in section] == []

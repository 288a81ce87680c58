"""The README: its recipe is valid, and its links lead somewhere."""

import re
from pathlib import Path

from alignment.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_recipe_of_the_readme_passes_the_check(tmp_path, monkeypatch, capsys):
    import subprocess

    recipe = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1].replace("/srv/git/shop", str(tmp_path / "shop"))
    shop = tmp_path / "shop"
    shop.mkdir()
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@firm.example"]
    for number, command in enumerate(
        (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"], ["add", "-A"], ["commit", "-q", "-m", "two"])
    ):
        (shop / "part.py").write_text(f"x = {number}\n")
        subprocess.run(["git", *identity, *command], cwd=shop, check=True)
    (tmp_path / "accelerate_configs").symlink_to(ROOT / "accelerate_configs")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "chats.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "a + b"}]}\n'
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert main(["check", "--fast", str(tmp_path / "recipe.yaml")]) == 0, capsys.readouterr().err


def test_links_of_the_readme_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if not link.startswith("http")]
    assert links and not [link for link in links if not (ROOT / link).exists()]

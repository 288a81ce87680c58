"""Hooks of MkDocs: add the reference pages and the examples to the site; leave missing pages out of the navigation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]  # MkDocs loads this file by its path

from reference_pages import pages  # noqa: E402


def on_config(config: Any) -> Any:
    """Remove entries of the navigation whose page does not exist."""
    config["nav"] = _existing(config["nav"])
    return config


def _existing(entry: Any) -> Any:
    if isinstance(entry, list):
        return [kept for kept in map(_existing, entry) if kept]
    if isinstance(entry, dict):
        return {title: kept for title, value in entry.items() if (kept := _existing(value))}
    return entry if entry in pages() or (ROOT / "docs" / entry).is_file() else None


def on_files(files: Any, config: Any) -> Any:
    """Add the reference pages, and the examples, which pages link to as `../examples/NAME.py`."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "examples").glob("*.py")):
        files.append(File(f"examples/{path.name}", str(ROOT), config["site_dir"], use_directory_urls=False))
    files.append(File("quickstart-ladder.svg", str(ROOT / "recipes"), config["site_dir"], use_directory_urls=False))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links out of `docs` to the copies in the site."""
    return markdown.replace("](../examples/", "](examples/").replace("](../recipes/", "](")

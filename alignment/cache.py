"""The folder for what the toolkit can make or download again: `$ALIGN_CACHE`, by default `~/.cache/code-alignment`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$ALIGN_CACHE`; otherwise `code-alignment` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    if root := os.environ.get("ALIGN_CACHE"):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "code-alignment"

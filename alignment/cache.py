"""Where the toolkit keeps what it can make or fetch again: `$ALIGN_CACHE`, by default `~/.cache/code-alignment`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    root = os.environ.get("ALIGN_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "code-alignment"

"""The cache folder of the toolkit: everything in it can be made or downloaded again.

`$ALIGN_CACHE`, or the user's cache folder (`$XDG_CACHE_HOME/code-alignment`, by default `~/.cache/code-alignment`).
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Return the cache folder; it may not exist yet."""
    root = os.environ.get("ALIGN_CACHE")
    return Path(root) if root else Path(platformdirs.user_cache_dir("code-alignment", appauthor=False))

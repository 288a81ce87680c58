"""Location of the toolkit's cache folder. The folder can be deleted: its files are made or downloaded again if needed.

The folder is `$ALIGN_CACHE` if this variable is set. Otherwise it is the user's cache folder
(`$XDG_CACHE_HOME/code-alignment`, by default `~/.cache/code-alignment`).
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Return the path of the cache folder. The folder may not exist yet."""
    root = os.environ.get("ALIGN_CACHE")
    return Path(root) if root else Path(platformdirs.user_cache_dir("code-alignment", appauthor=False))

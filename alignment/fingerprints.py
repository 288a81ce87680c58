"""Computes hashes of JSON values, and reads the installed versions of packages that can change a result."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "code-alignment")


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON value. The order of keys does not change the hash."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Return the version of each package in `PACKAGES` that is installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

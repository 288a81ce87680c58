"""Describes the base model of a chain, as artifacts record it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def base_name(base: Mapping[str, Any]) -> str:
    """Return a name of a base model that says nothing about this machine: a name on the hub, or the folder's name."""
    if base.get("init"):
        return "random weights"
    path = str(base.get("path", ""))
    return PurePath(path).name if path.startswith("/") else path


def base_digest(base: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of a base model on this machine, or "" for other models."""
    digest = base.get("path_digest")
    return digest if isinstance(digest, str) else ""


def describe_base(base: Mapping[str, Any]) -> str:
    """Return one line about a base model: its path or shape, revision and digest."""
    if init := base.get("init"):
        return f"random weights, {init['num_hidden_layers']} layers of width {init['hidden_size']}"
    digest = base_digest(base)
    revision = f", revision {base['revision']}" if base.get("revision") else ""
    return f"{base.get('path')}{revision}{f', sha256 {digest[:12]}' if digest else ''}"

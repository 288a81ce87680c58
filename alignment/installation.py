"""Location of the shipped recipes and Accelerate config files: in a checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped() -> Path:
    """Return the folder that has `recipes` and `accelerate_configs`: the checkout, or the package's folder `share`."""
    return PACKAGE.parent if is_checkout() else PACKAGE / "share"


def is_checkout() -> bool:
    """Whether the package is used from a checkout of the repository, where `recipes` is beside the package's folder."""
    return (PACKAGE.parent / "recipes" / "run.py").is_file()

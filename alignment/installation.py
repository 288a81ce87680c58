"""Where the shipped recipes and Accelerate config files are: in a checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped() -> Path:
    """Return the folder that holds `recipes` and `accelerate_configs`: the checkout, or `alignment/share` of a wheel."""
    return PACKAGE.parent if is_checkout() else PACKAGE / "share"


def is_checkout() -> bool:
    """Whether the package is used from a checkout, which has the recipes beside the package."""
    return (PACKAGE.parent / "recipes" / "run.py").is_file()

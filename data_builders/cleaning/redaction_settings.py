"""Settings of the redaction of secrets and personal data."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from alignment.settings import Settings


class RedactionSettings(Settings):
    """What is replaced in addition to secrets, e-mail addresses, bank accounts, cards and public IP addresses."""

    model_config = ConfigDict(frozen=True)

    phone_numbers: bool = True
    """Replace telephone numbers: with a country code, or in lines that mention a telephone."""
    internal_hosts: Annotated[tuple[Annotated[str, Field(min_length=2)], ...], Field(strict=False)] = ()
    """Endings of internal host names, for example `[internal, corp.example.com]`. Names with these endings are replaced."""


DEFAULT = RedactionSettings()

"""Settings that name a place outside of the recipe: locations of repositories, and Python interpreters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from alignment.settings import Reference
from data_builders.repositories.remote_git import is_url


class Location(Reference):
    """Location of repositories: a path, a glob, or a URL that git can clone. It cannot refer to an earlier stage."""

    described_as = "path, glob or URL"

    def stage(self, names: Sequence[str]) -> None:
        return

    def absolute(self) -> str:
        """Return the location as an absolute path or glob. A URL is returned unchanged."""
        return str(self) if is_url(self) else os.path.normpath(self.folder / Path(self).expanduser())


class Interpreter(Location):
    """A Python interpreter: a path, or the name of a command such as `python3.12`."""

    described_as = "path or command"

    def absolute(self) -> str:
        """Return the absolute path. The name of a command is returned unchanged, and searched on PATH later.

        Symbolic links are not followed: the `python` of a virtual environment is a link to an interpreter that does not
        have the packages of the environment.
        """
        return str(self) if os.sep not in self else super().absolute()

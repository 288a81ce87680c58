"""Inspect the Python interpreter that runs the tests of a repository, and the packages that are installed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A Python interpreter with the packages that the tests need."""

    executable: str
    version: str
    """The full text of `sys.version`."""
    base: tuple[str, ...]
    """The folder in which the interpreter is installed. Empty if this folder is below /usr."""
    packages: tuple[str, ...]
    """Folders in which packages are installed."""
    distributions: tuple[str, ...]
    """Installed packages as `name==version`."""
    editable: tuple[str, ...] = ()
    """Folders of projects that are installed as editable (`pip install -e`)."""
    paths: tuple[str, ...] = ()
    """Folders outside of the installation from which the interpreter imports modules, for example of editable projects."""


_DESCRIBE = """
import json, os, sys, sysconfig
from importlib import metadata
from urllib.parse import unquote, urlsplit
def editable(item):
    try:
        source = json.loads(item.read_text("direct_url.json") or "{}")
    except (OSError, ValueError):
        return ""
    return unquote(urlsplit(source.get("url", "")).path) if source.get("dir_info", {}).get("editable") else ""
folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
folders += [item for item in sys.path if item.endswith(("site-packages", "dist-packages"))]
print(json.dumps({
    "executable": os.path.realpath(sys.executable), "version": "%d.%d" % sys.version_info[:2], "full": sys.version,
    "paths": [item for item in sys.path if item and os.path.isdir(item) and not item.startswith((sys.prefix, sys.base_prefix))],
    "editable": sorted({editable(item) for item in metadata.distributions()} - {""}),
    "base": sys.base_prefix, "packages": [item for item in dict.fromkeys(folders) if os.path.isdir(item)],
    "distributions": sorted({"%s==%s" % (item.metadata["Name"], item.version) for item in metadata.distributions()}),
}))
"""


def find_environment(interpreter: str | Path | None = None) -> Environment:
    """Describe an interpreter and its packages. By default, describe the interpreter that runs this process.

    If pytest is not installed for the interpreter, the pytest of this process is used. This needs the same version of
    Python.

    Raises:
        ValueError: the interpreter cannot be started or is not Python, or it has no pytest and its version of Python
            differs from the version of this process.
    """
    program = str(interpreter) if interpreter else sys.executable
    if os.sep in program:
        program = str(Path.cwd() / program)  # the interpreter is started in another folder
    try:
        done = subprocess.run(
            [program, "-c", _DESCRIBE], capture_output=True, text=True, timeout=60, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"the interpreter {program} can't be started: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ValueError(f"{program} is not a Python interpreter, or cannot list its packages: {lines[-1]}")
    description = json.loads(done.stdout)
    packages, distributions = list(description["packages"]), list(description["distributions"])
    if not any((Path(folder) / "pytest").is_dir() for folder in packages):
        if description["version"] != "{}.{}".format(*sys.version_info[:2]):
            raise ValueError(f"{program} has no pytest: install pytest with {program} -m pip install pytest")
        ours = sysconfig.get_path("purelib")
        packages.append(ours)
        distributions.append(f"pytest of {ours}")
    base = () if description["base"].startswith("/usr") else (description["base"],)
    return Environment(
        description["executable"], description["full"], base, tuple(packages), tuple(distributions),
        tuple(description["editable"]), tuple(description["paths"]),
    )  # fmt: skip

"""The Python that a repository's tests run with, and what is installed for it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A Python with the packages that the tests need."""

    executable: str
    version: str
    base: tuple[str, ...]
    """Folders of the interpreter outside /usr."""
    packages: tuple[str, ...]
    distributions: tuple[str, ...]
    """Installed packages as ``name==version``."""


_ASK = """
import json, os, sys, sysconfig
from importlib import metadata
folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
folders += [item for item in sys.path if item.endswith(("site-packages", "dist-packages"))]
print(json.dumps({
    "executable": os.path.realpath(sys.executable), "version": "%d.%d" % sys.version_info[:2], "full": sys.version,
    "base": sys.base_prefix, "packages": [item for item in dict.fromkeys(folders) if os.path.isdir(item)],
    "distributions": sorted({"%s==%s" % (item.metadata["Name"], item.version) for item in metadata.distributions()}),
}))
"""


def find_environment(interpreter: str | Path | None = None) -> Environment:
    """What an interpreter has. By default this one's. Raises ValueError where it can't be asked.

    An environment without pytest borrows ours, where the versions of Python agree.
    """
    program = str(interpreter) if interpreter else sys.executable
    try:
        done = subprocess.run([program, "-c", _ASK], capture_output=True, text=True, timeout=60, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"the interpreter {program} can't be started: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ValueError(f"{program} is no Python that can be asked for its packages: {lines[-1]}")
    told = json.loads(done.stdout)
    packages, distributions = list(told["packages"]), list(told["distributions"])
    if not any((Path(folder) / "pytest").is_dir() for folder in packages):
        if told["version"] != "{}.{}".format(*sys.version_info[:2]):
            raise ValueError(f"{program} has no pytest: install it there ({program} -m pip install pytest)")
        ours = sysconfig.get_path("purelib")
        packages.append(ours)
        distributions.append(f"pytest of {ours}")
    base = () if told["base"].startswith("/usr") else (told["base"],)
    return Environment(told["executable"], told["full"], base, tuple(packages), tuple(distributions))

"""Settings for running the tests of a repository, in any language."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from alignment.settings import Settings
from data_builders.repositories.locations import Interpreter

TEST_SECONDS = 10.0
"""Default time limit of one test while the suite runs, in seconds."""


class SuiteSettings(Settings):
    """Settings for running the tests of a repository in the sandbox, without a network."""

    interpreter: Interpreter | None = None
    """Python interpreter with the packages that the tests need, for example `/srv/venv/bin/python`. A relative path starts
    at the folder of the recipe. By default the interpreter that runs the builder. JavaScript tests use the
    `node_modules` of the checkout, Go tests the vendored modules, or those that were downloaded on this machine."""
    paths: list[str] = Field(default_factory=list)
    """Files and folders that contain the tests. By default, the paths in pytest's configuration are used, and all
    JavaScript files that look like tests are used. The default for JavaScript also applies if the given paths contain
    no JavaScript tests."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables that the tests need."""
    prepare: list[str] = Field(default_factory=list)
    """Shell commands that make files which the commit lacks, such as extension modules, for example
    `python setup.py build_ext --inplace`. They run in the sandbox in a copy of each Python repository, without a network and
    without git. Version files and files of the installed package are added without a command."""
    seconds_per_test: Annotated[float, Field(gt=0)] = TEST_SECONDS
    """Time limit of one test while the suite runs. A longer test is interrupted and left out."""
    budget_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Time limit for running the whole suite. Tests that have not run by then are counted and left out."""


def suite_card(tests: SuiteSettings) -> dict[str, Any]:
    """Return the settings as the dataset card shows them.

    The values of environment variables and the path of the interpreter are left out.
    """
    return tests.model_dump() | {
        "environment": sorted(tests.environment),
        "interpreter": tests.interpreter is not None,
    }

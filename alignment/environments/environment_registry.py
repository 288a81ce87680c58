"""Names of the built-in environments, and the function that makes the environment class of a GRPO stage."""

from __future__ import annotations

from typing import Any, Protocol

from alignment.environments.program_environments import PythonEnvironment, VisibleTestsEnvironment
from alignment.environments.repository_environment import RepositoryEnvironment
from alignment.environments.rollout_environment import EnvironmentFactory, EnvironmentLimits, environment_class
from alignment.extensions import ExtensionError, ExtensionReference
from alignment.grading import Grader, RemoteGrader

VISIBLE_TESTS = "tests"
"""Name of the built-in environment that runs the visible tests of a task. For this environment, the tests of each task
are split into visible and hidden tests."""

REPOSITORY = "repository"
"""Name of the built-in environment in which the model changes a repository."""


class EnvironmentSettings(Protocol):
    """`environment:` of a GRPO stage. The recipe's schema implements this protocol."""

    @property
    def name(self) -> str | None:
        """Name of a built-in environment. Exactly one of `name` and `path` is set."""

    @property
    def path(self) -> ExtensionReference | None:
        """Reference to a class in user code."""

    @property
    def seconds(self) -> float:
        """Largest number of seconds that all tool calls of a rollout may take together."""

    @property
    def output_characters(self) -> int:
        """Largest number of characters in the result of one tool call."""


def build_environment(settings: EnvironmentSettings, grader: Grader | RemoteGrader) -> EnvironmentFactory:
    """Return the environment of a GRPO stage as a class without arguments, for TRL's `environment_factory`.

    Args:
        settings: the stage's `environment:`.
        grader: runs programs. It must stay open while the class is used.

    Raises:
        ValueError: the environment has no tools, or it would run programs on this machine and the stage uses a remote
            grading service.
        ExtensionError: the user's class can't be loaded or made.
    """
    limits = EnvironmentLimits(settings.seconds, settings.output_characters)
    if settings.path is not None:
        extension = settings.path.extension()
        made: Any = extension.load()
        if not isinstance(made, type):
            raise ExtensionError(f"{extension.file()}: {extension.name} is a {type(made).__name__}, not a class")
        with extension.errors("the environment"):
            made()
        return environment_class(f"{extension.file()}: {extension.name}", made, limits)
    if settings.name == VISIBLE_TESTS:
        return environment_class(VISIBLE_TESTS, lambda: VisibleTestsEnvironment(grader), limits)
    if settings.name == REPOSITORY:
        return environment_class(REPOSITORY, lambda: RepositoryEnvironment(grader), limits)
    if not isinstance(grader, Grader):
        raise ValueError("the environment `python` runs programs on this machine: remove `sandbox.address`")
    grader.run("pass")  # an unusable sandbox ends the stage here, not every rollout
    return environment_class("python", lambda: PythonEnvironment(grader), limits)

"""Example of your own environment for GRPO: the model can look into boxes before it answers.

Name it in a stage of kind `grpo`; the path is relative to the recipe:

    environment: {path: ../examples/environment.py:Boxes, turns: 2}
    rewards: [{name: environment}]

Each row of the stage has a prompt, and the column `environment` with data for the environment:

    {"id": "1", "prompt": "What is in box a?", "environment": {"boxes": {"a": "7", "b": "3"}, "wanted": "a"}}

Every public method is a tool: the model sees its name, docstring and annotated parameters. `docs/environments.md`
describes the arguments of the methods, and the rules for an environment. The file's content is part of the stage's
fingerprint.
"""

from __future__ import annotations

from typing import Any

from alignment.environments.rollout_environment import ToolError


class Boxes:
    """Named boxes that hold one value each. The reward is 1 if the model reported the right value."""

    def reset(self, environment: dict[str, Any], **columns: Any) -> None:
        """Begin a rollout. The object is reused for many rollouts, so this method must set all attributes.

        Args:
            environment: the row's column `environment`.
            columns: the row's other columns.
        """
        self._boxes: dict[str, str] = environment["boxes"]
        self._wanted: str = environment["wanted"]
        self._reported: str | None = None

    def lookup(self, key: str) -> str:
        """Look into a box.

        Args:
            key: The box's name.
        """
        if key not in self._boxes:
            # The model made a mistake: it gets this message and may try again. Any other exception means that the
            # environment is broken.
            raise ToolError(f"there is no box {key!r}")
        return self._boxes[key]

    def report(self, value: str) -> str:
        """Report the value that was asked for.

        Args:
            value: The value.
        """
        self._reported = value
        return "reported"

    def get_reward(self) -> float:
        """Score the rollout, once at its end."""
        return float(self._reported == self._boxes[self._wanted])

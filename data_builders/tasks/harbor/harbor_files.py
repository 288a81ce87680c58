"""Names of the files in a Harbor task folder, and the errors of tasks that can't be converted.

task.toml                  limits and metadata
instruction.md             what the agent is asked to do
environment/Dockerfile     the agent's container; `environment/repository` is the repository without hidden tests
tests/test.sh              runs the tests and writes the reward; `tests/config.json` names the tests as SWE-bench does
solution/solve.sh          applies the reference patch
"""

from __future__ import annotations

TASK_FILE = "task.toml"
INSTRUCTION = "instruction.md"
DOCKERFILE = "environment/Dockerfile"
REPOSITORY = "environment/repository"
TEST_SCRIPT = "tests/test.sh"
TEST_CONFIG = "tests/config.json"
TEST_FILES = "tests/files"
SOLVE_SCRIPT = "solution/solve.sh"
PATCH = "solution/reference.patch"
WORKSPACE = "/workspace"
"""Folder of the repository in the container."""


class NotConvertible(ValueError):
    """Raised for a task that can't be written to, or read from, a Harbor folder. The message is the reason."""

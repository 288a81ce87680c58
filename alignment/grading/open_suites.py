"""Keeps the launchers of repositories open between gradings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from alignment.grading.nodejs import NodeSnapshot, NodeSuite
from alignment.grading.patched_repository import PatchedSuite
from alignment.grading.projects.project import ProjectSnapshot, ProjectSuite
from alignment.grading.repository import Suite, open_snapshot

MOST_OPEN = 2
"""Maximum number of repositories whose launchers one thread keeps open."""
OpenSuite = Suite | NodeSuite | ProjectSuite | PatchedSuite


class OpenSuites:
    """Keeps the launchers of several repositories open for one thread.

    If more than `MOST_OPEN` repositories are open, the least recently used repository is closed.
    """

    def __init__(self, allow_weaker: bool) -> None:
        self.allow_weaker = allow_weaker
        self.suites: OrderedDict[str, OpenSuite] = OrderedDict()

    def python_suite(self, identifier: str) -> Suite:
        """Return the open `Suite` of a Python repository. Raises ValueError for any other language."""
        suite = self._opened(identifier, lambda: Suite(open_snapshot(identifier), self.allow_weaker))
        if not isinstance(suite, Suite):
            raise ValueError(f"the snapshot {identifier} is of a JavaScript repository: its tasks need the kind 'node'")
        return suite

    def node_suite(self, identifier: str) -> NodeSuite:
        """Return the open `NodeSuite` of a JavaScript repository. Raises ValueError for any other language."""
        suite = self._opened(
            identifier, lambda: NodeSuite(NodeSnapshot.open(open_snapshot(identifier).folder), self.allow_weaker)
        )
        if not isinstance(suite, NodeSuite):
            raise ValueError(f"the snapshot {identifier} is of a Python repository: its tasks need the kind 'pytest'")
        return suite

    def project_suite(self, identifier: str, language: str) -> ProjectSuite:
        """Return the open `ProjectSuite` of a repository in a compiled language.

        Raises:
            ValueError: the snapshot is of another language.
            NoToolchain: the toolchain is missing, or differs from the one that the snapshot was made with.
        """
        suite = self._opened(
            identifier, lambda: ProjectSuite(ProjectSnapshot.open(open_snapshot(identifier).folder), self.allow_weaker)
        )
        if not isinstance(suite, ProjectSuite) or suite.snapshot.data["language"] != language:
            raise ValueError(f"the snapshot {identifier} is not of a repository in {language}")
        return suite

    def patched_suite(self, identifier: str) -> PatchedSuite:
        """Return the open `PatchedSuite` of a Python repository."""
        suite = self._opened(
            f"patched {identifier}", lambda: PatchedSuite(open_snapshot(identifier), self.allow_weaker)
        )
        assert isinstance(suite, PatchedSuite)
        return suite

    def _opened(self, identifier: str, make: Callable[[], OpenSuite]) -> OpenSuite:
        if identifier not in self.suites:
            self.suites[identifier] = make()
            while len(self.suites) > MOST_OPEN:
                self.suites.popitem(last=False)[1].close()
        self.suites.move_to_end(identifier)
        return self.suites[identifier]

    def close(self) -> None:
        """Close all suites."""
        for suite in self.suites.values():
            suite.close()
        self.suites.clear()

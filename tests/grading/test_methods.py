"""Methods are graded with their tests in another process: objects have the same state in both, and no trick wins."""

from __future__ import annotations

import json

import method_hacks as cases
import pytest


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, grader):
    """The snapshot of a repository with a class; the fixture `grader` skips tests if the machine refuses the sandbox."""
    from data_builders.repositories.sources import resolve
    from data_builders.tasks.python.python_suite import prepare_suite

    folder = tmp_path_factory.mktemp("work") / "shelf"
    (folder / "tests").mkdir(parents=True)
    (folder / "shelf.py").write_text(cases.MODULE)
    (folder / "tests" / "test_shelf.py").write_text(cases.TESTS)
    return prepare_suite(resolve([str(folder)])[0])


@pytest.fixture(scope="module")
def method_task(shelf):
    """`method_task(method)`: the row of a tier A task, and the original body."""

    def make(qualname: str) -> tuple[dict, str]:
        function = next(item for item in shelf.functions if item.qualname == qualname)
        names = [name for name in shelf.tests if cases.METHODS[qualname] in name]
        assert len(names) > 1
        tests = {
            "suite": shelf.id,
            "tier": "A",
            "target": function.target(),
            "visible": [],
            "hidden": names,
            "copies": [],
        }
        row = {"kind": "pytest", "language": "python", "entry_point": qualname, "tests": json.dumps(tests)}
        return row, shelf.texts["shelf.py"][function.start : function.end]

    return make


@pytest.fixture(scope="module")
def verdicts(grader, method_task):
    """The verdicts on all programs, graded together: the original bodies, masked bodies and hacks."""
    jobs = {(name, "original"): method_task(name) for name in cases.METHODS}
    jobs |= {(name, "masked"): (method_task(name)[0], "raise NotImplementedError") for name in cases.METHODS}
    jobs |= {(name, hack): (method_task(name)[0], body) for (name, hack), body in cases.HACKS.items()}
    return dict(zip(jobs, grader.grade_many(list(jobs.values())), strict=True))


@pytest.mark.parametrize("name", cases.METHODS)
def test_the_original_method_passes_every_test(verdicts, name):
    assert (verdicts[name, "original"].status, verdicts[name, "original"].detail) == ("passed", "")


@pytest.mark.parametrize("name", cases.METHODS)
def test_a_masked_method_fails(verdicts, name):
    assert verdicts[name, "masked"].status == "failed"


@pytest.mark.parametrize(("name", "hack"), cases.HACKS)
def test_no_hack_of_a_method_passes(verdicts, name, hack):
    assert verdicts[name, hack].status == "failed"

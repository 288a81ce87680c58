"""Disk space is checked by the chain before its first stage, and by a stage before each checkpoint."""

from collections import namedtuple

import pytest

from alignment.chain import conductor as chain
from alignment.planning import disk
from alignment.planning.memory import GIB
from alignment.planning.resources import shape_of
from alignment.recipe import launch_file, load

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    return lambda size: monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(size, 0, size))


def forecast(recipe):
    shape = shape_of(recipe.model)
    return disk.forecast(recipe, shape, launch_file.layout_of(recipe.launch.path()))


def test_the_worst_moment_holds_three_checkpoints_and_the_model(recipe_with):
    """ZeRO keeps float32 copies: a checkpoint has 2 + 4 + 8 bytes per weight; two are kept while one is written."""
    recipe, _ = recipe_with("zero3", train="{max_steps: 2, bf16: true}")
    weights = shape_of(recipe.model).parameters
    assert forecast(recipe)["total"] == pytest.approx(1.05 * weights * (3 * 14 + 2), rel=0.01)


def test_fewer_checkpoints_need_less(recipe_with):
    more = forecast(recipe_with("zero3")[0])
    fewer = forecast(recipe_with("zero3", train="{max_steps: 2, save_total_limit: 1}")[0])
    assert fewer["total"] < more["total"]


def test_finished_stages_need_no_space(recipe_with):
    _, file = recipe_with("zero3")
    file.write_text(file.read_text() + "  - {name: export, kind: export, formats: [q8_0]}\n")
    recipe = load(file)
    layout, shape = launch_file.layout_of(recipe.launch.path()), shape_of(recipe.model)
    assert set(disk.forecast(recipe, shape, layout)["stages"]) == {"sft", "export"}
    assert disk.forecast(recipe, shape, layout, done=["sft", "export"])["total"] == 0


def test_the_chain_does_not_start_if_the_disk_is_too_small(recipe_with, free):
    recipe, _ = recipe_with("zero3")
    free(10 * GIB)
    with pytest.raises(ValueError, match=r"has 10.0 GiB free, and up to \d+\.\d GiB are needed: free some space"):
        chain.run(recipe, environment={})


@pytest.fixture
def checkpoints(tmp_path):
    for step, size in ((2, 10), (10, 1000)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"x" * size)
    return tmp_path


def test_a_checkpoint_that_would_not_fit_is_not_written(checkpoints, free):
    free(1000)
    with pytest.raises(ValueError, match="resumes from checkpoint-10"):
        disk.check_checkpoint_space(checkpoints, 12)
    free(2000)
    disk.check_checkpoint_space(checkpoints, 12)


def test_the_first_checkpoint_is_not_checked(tmp_path, free):
    free(1)
    disk.check_checkpoint_space(tmp_path, 2)

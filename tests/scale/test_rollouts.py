"""GRPO's rollouts: what is counted over a run, and that a sampler with other weights stops it."""

from types import SimpleNamespace

import pytest

from alignment.stages.rollouts import CUT_SHORT, LOGP_DIFFERENCE, ZERO_SPREAD, RolloutWatch
from alignment.stages.vllm_check import check_vllm

STATE = SimpleNamespace(global_step=7)


def log(watch, **figures):
    watch.on_log(None, STATE, None, logs={key.replace("__", "/"): value for key, value in figures.items()})


def test_shares_are_means_over_the_logged_steps():
    watch = RolloutWatch()
    log(watch, frac_reward_zero_std=0.5, completions__clipped_ratio=0.0)
    log(watch, frac_reward_zero_std=1.0, completions__clipped_ratio=0.5)
    assert watch.metrics() == {"groups_without_spread": 0.75, "completions_cut_short": 0.25}


@pytest.mark.parametrize("difference", [0.6, float("nan"), float("inf")])
def test_a_sampler_with_other_weights_stops_the_run(difference):
    with pytest.raises(ValueError, match=r"step 7: .* other weights"):
        log(RolloutWatch(), sampling__sampling_logp_difference__mean=difference)


def test_a_sampler_in_step_is_reported_with_its_worst():
    watch = RolloutWatch()
    for value in (0.01, 0.03):
        log(watch, sampling__sampling_logp_difference__mean=value)
    assert watch.metrics() == {"sampling_logp_difference": 0.02, "largest_sampling_logp_difference": 0.03}


def test_vllm_that_is_not_installed_is_said_before_anything_loads(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="use_vllm=false"):
        check_vllm({"use_vllm": True})
    check_vllm({"use_vllm": False})


def test_a_weight_sync_that_nothing_could_check_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_vllm({"use_vllm": True})
    with pytest.raises(ValueError, match="hides whether vLLM samples"):
        check_vllm({"use_vllm": True, "vllm_importance_sampling_correction": False})


def test_the_figures_are_called_as_trl_logs_them():
    """The names are TRL's: a version that renames them must fail here, not count nothing."""
    import inspect

    from trl import GRPOTrainer

    source = inspect.getsource(GRPOTrainer)
    for name in (ZERO_SPREAD, CUT_SHORT, LOGP_DIFFERENCE):
        assert f'"{name}"' in source

"""GRPO's rollouts: their counts over a run, and a stop if the sampler has other weights than the trainer."""

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
def test_a_sampler_with_other_weights_is_an_error(difference):
    with pytest.raises(ValueError, match=r"step 7: .* other weights"):
        log(RolloutWatch(), sampling__sampling_logp_difference__mean=difference)


def test_the_mean_and_largest_difference_of_a_good_sampler_are_reported():
    watch = RolloutWatch()
    for value in (0.01, 0.03):
        log(watch, sampling__sampling_logp_difference__mean=value)
    assert watch.metrics() == {"sampling_logp_difference": 0.02, "largest_sampling_logp_difference": 0.03}


def test_missing_vllm_is_an_error_before_anything_loads(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="use_vllm=false"):
        check_vllm({"use_vllm": True})
    check_vllm({"use_vllm": False})


def test_settings_that_hide_a_failed_weight_sync_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_vllm({"use_vllm": True})
    with pytest.raises(ValueError, match="hides whether vLLM samples"):
        check_vllm({"use_vllm": True, "vllm_importance_sampling_correction": False})


def test_the_names_of_the_figures_are_those_that_trl_logs():
    """A version of TRL that renames them must fail here instead of counting nothing."""
    import inspect

    from trl import GRPOTrainer

    source = inspect.getsource(GRPOTrainer)
    for name in (ZERO_SPREAD, CUT_SHORT, LOGP_DIFFERENCE):
        assert f'"{name}"' in source

"""Stop signals in a stage's process: deferred to the end of a step while training, at once otherwise."""

import os
import signal
from types import SimpleNamespace

import pytest

from alignment.processes import REQUEUE_CODE, STOP_SIGNALS, StopRequested
from alignment.stages.callbacks import Recorder, save_unit
from alignment.stages.stopping import SWITCH, StopSwitch


@pytest.fixture
def switch():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    installed = StopSwitch()
    installed.install()
    yield installed
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_work_that_is_no_training_ends_at_once(switch, number):
    with pytest.raises(StopRequested) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.code == REQUEUE_CODE == 75


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_training_ends_its_step_before_it_stops(switch, number):
    trained = []
    with pytest.raises(StopRequested), switch.until_step_ends():
        os.kill(os.getpid(), number)
        trained.append(switch.requested)
    assert trained == [True]


def test_training_without_a_signal_goes_on_to_what_follows(switch):
    with switch.until_step_ends():
        pass
    assert not switch.requested


@pytest.mark.parametrize(("step", "per_generation", "saves"), [(3, None, True), (3, 2, False), (4, 2, True)])
def test_a_requested_stop_saves_where_a_checkpoint_holds_all(tmp_path, monkeypatch, step, per_generation, saves):
    monkeypatch.setattr(SWITCH, "requested", True)
    args = SimpleNamespace(output_dir=str(tmp_path), num_iterations=1, gradient_accumulation_steps=1)
    if per_generation:
        args.steps_per_generation = per_generation
    assert save_unit(args) == (per_generation or 1)
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    Recorder(tmp_path, 0, 1).on_step_end(args, SimpleNamespace(global_step=step, max_steps=10), control)
    assert (control.should_save, control.should_training_stop) == (saves, saves)

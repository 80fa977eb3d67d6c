"""Learning rate and loss weights, step by step."""

import pytest

from speecheq.config.schema import Config
from speecheq.dataset.batch import Position
from speecheq.training.schedule import Schedule

HERE = Position()


def schedule(epoch_steps=10, **optim) -> Schedule:
    config = Config()
    for name, value in optim.items():
        setattr(config.optim, name, value)
    return Schedule(config, epoch_steps)


def test_the_learning_rate_warms_up_and_falls():
    made = schedule(epochs=None, warmup_steps=4, max_steps=24, schedule="cosine", learning_rate=1.0)
    rates = [made.learning_rate(step, HERE) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[14] == pytest.approx(0.5) and rates[24] == pytest.approx(0.0)


def test_the_cosine_may_run_over_epochs():
    made = schedule(epochs=4, schedule="cosine", learning_rate=1.0)
    rates = [made.learning_rate(step, Position(step // 10, step % 10)) for step in range(40)]
    assert rates[0] == 1.0 and rates[20] == pytest.approx(0.5) and 0 < rates[39] < 0.01
    assert all(later < earlier for earlier, later in zip(rates, rates[1:]))


def test_a_constant_schedule_without_fine_tuning_keeps_the_papers_first_stage():
    made = schedule(epochs=3)
    for step, place in ((0, HERE), (29, Position(2, 9)), (31, Position(2, 11))):
        weights = made.loss_weights(step, place)
        assert made.learning_rate(step, place) == 1e-4
        assert (weights.alpha, weights.beta, weights.eta) == (1.0, 0.1, 0.1)


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_the_fine_tuning_stage_is_the_papers(by):
    """The first three quarters as in stage one; then beta and eta from 0.1 to 0.01, the rate from 1e-4 to 1e-6."""
    made = schedule(epochs=4 if by == "epochs" else None, max_steps=None if by == "epochs" else 40, finetune=0.25)

    def at(step):
        place = Position(step // 10, step % 10)
        weights = made.loss_weights(step, place)
        return made.learning_rate(step, place), weights.beta, weights.eta, weights.alpha

    for step in (0, 17, 30):
        assert at(step) == pytest.approx((1e-4, 0.1, 0.1, 1.0), rel=1e-12)
    assert at(35) == pytest.approx((1e-5, 0.055, 0.055, 1.0))
    assert at(40) == pytest.approx((1e-6, 0.01, 0.01, 1.0))
    assert at(31)[0] / at(30)[0] == pytest.approx(at(39)[0] / at(38)[0])


def test_an_epoch_that_is_longer_than_expected_waits_for_the_next():
    made = schedule(epochs=4, finetune=0.5)
    assert made.progress(25, Position(1, 14)) == made.progress(20, Position(2, 0)) == 0.5


def test_a_task_that_is_left_out_stays_out():
    made = schedule(epochs=2, finetune=0.5)
    made.config.loss.beta = 0.0
    assert made.loss_weights(19, Position(1, 9)).beta == 0.0


def test_whichever_ends_first_is_the_end():
    made = schedule(epochs=10, max_steps=20)
    assert made.steps() == 20 and made.progress(10, Position(1, 0)) == 0.5
    assert schedule(epochs=2).steps() == 20 and schedule(epochs=2, max_steps=100).progress(10, Position(1, 0)) == 0.5


@pytest.mark.parametrize("length", [{"epochs": 5}, {"epochs": None, "max_steps": 50}], ids=["epochs", "steps"])
def test_the_step_schedule_decays_after_equal_parts_of_the_training(length):
    """Head Fusion's: a tenth, four times, however long the training is."""
    made = schedule(**length, schedule="step", learning_rate=1.0, decay=0.1, decay_part=0.2)
    rates = [made.learning_rate(step, Position(step // 10, step % 10)) for step in range(50)]
    assert rates == pytest.approx([0.1**power for power in range(5) for _ in range(10)])


def test_hgfm_decays_a_hundred_times():
    """Its code multiplies by the twentieth root of 0.5 after each of 100 epochs."""
    made = schedule(epochs=None, max_steps=1000, schedule="step", learning_rate=1.0, decay=0.966, decay_part=0.01)
    rates = [made.learning_rate(step, HERE) for step in range(1000)]
    assert len(set(rates)) == 100 and rates[-1] == pytest.approx(0.966**99)

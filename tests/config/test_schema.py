"""The defaults of the settings, and what follows from them."""

from speecheq.config.schema import Config


def test_the_defaults_are_the_papers():
    config = Config()
    assert (config.loss.gamma, config.loss.alpha, config.loss.beta, config.loss.eta) == (10, 1, 0.1, 0.1)
    assert (config.optim.learning_rate, config.optim.weight_decay, config.data.batch_size) == (1e-4, 1e-5, 32)
    assert (config.model.channels, config.model.num_phones, config.model.num_esc) == (256, 202, 9)


def test_tasks_follow_the_weights():
    config = Config()
    assert config.tasks() == ["emotion", "gender", "phoneme"]
    config.loss.beta = 0.0
    assert config.tasks() == ["emotion", "gender"]
    config.loss.eta = 0.0
    assert config.tasks() == ["emotion"]


def test_what_is_not_the_papers_is_off():
    config = Config()
    assert (config.optim.optimizer, config.optim.ema, config.mixup.alpha) == ("adam", 0, 0)
    assert (config.loss.label_smoothing, config.loss.class_balance, config.specaugment.active) == (0, "none", False)

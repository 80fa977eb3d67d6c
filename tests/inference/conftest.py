"""What the tests of inference share: a predictor, a recording, the command in this process."""

import numpy as np
import pytest
import soundfile

from speecheq.cli import main
from speecheq.inference.predictor import Predictor


@pytest.fixture(scope="session")
def predictor(experiment):
    """Of the tiny trained model, with gender and phones."""
    return Predictor(experiment / "best.pt", "cpu", gender=True, phones=True)


@pytest.fixture(scope="session")
def write_noise():
    """``write_noise(path, seconds, rate, level, seed)``: writes white noise, returns ``path``."""

    def write(path, seconds, rate=16000, level=0.1, seed=0):
        soundfile.write(path, level * np.random.default_rng(seed).standard_normal(round(seconds * rate)), rate)
        return path

    return write


@pytest.fixture
def wav(tmp_path, write_noise):
    return write_noise(tmp_path / "one.wav", 1.0)


@pytest.fixture
def predict(experiment, capsys):
    """``predict(arguments...)``: the exit status, standard output and standard error of ``speecheq predict``."""

    def run(*arguments, model=experiment / "best.pt"):
        capsys.readouterr()
        status = main.main(["predict", *(["--model", str(model)] if model else []), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run

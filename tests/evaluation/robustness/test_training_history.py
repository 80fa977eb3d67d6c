"""What a model was trained on, also before: two real trainings, the second from the weights of the first."""

import pytest

from speecheq.common.errors import InputError
from speecheq.config import layers as configuration
from speecheq.evaluation.robustness.cross_corpus_trial import check_corpus_not_trained_on
from speecheq.evaluation.robustness.training_history import training_history
from speecheq.training.job import Job
from speecheq.training.train import train


@pytest.fixture
def tuned(own_experiment, experiment, tmp_path):
    """A training without phonemes from the weights of one on CASIA that learned phonemes from AISHELL-1."""
    config = configuration.load(own_experiment / "config.yaml")
    config.loss.beta, config.data.corpora, config.optim.max_steps = 0.0, "target", 1
    folder = tmp_path / "exp-tuned" / "nano-wo_mtl" / "casia.speaker" / "fold1" / "seed1"
    train(
        Job(
            config,
            "nano",
            (),
            "wo_mtl",
            experiment.parents[4] / "msud" / "casia.speaker",
            1,
            None,
            folder,
            init_from=own_experiment / "best.pt",
        )
    )
    return folder


def test_what_was_learned_from_is_that_of_all_trainings(own_experiment, tuned):
    (of_before,) = training_history(own_experiment)
    assert (of_before.corpora, of_before.phoneme_corpus) == (("casia",), "aishell")
    found = training_history(tuned)
    assert [training.folder for training in found] == [tuned, own_experiment]
    assert found[0].phoneme_corpus is None and found[1] == of_before
    with pytest.raises(InputError, match="aishell: speecheq learned phonemes from it"):
        check_corpus_not_trained_on("aishell", [of_before])
    with pytest.raises(InputError, match="aishell: wo_mtl started from weights that learned phonemes from it"):
        check_corpus_not_trained_on("aishell", found)
    check_corpus_not_trained_on("emodb", found)


def remove(folder):
    (folder / "best.pt").unlink()


def replace(folder):
    (folder / "best.pt").write_bytes(b"of another training")


def leave_alone(folder):
    """As where only the weights were copied."""
    (folder / "stage.json").unlink()


@pytest.mark.parametrize(
    "change, words",
    [(remove, "do not exist any more"), (replace, "have changed"), (leave_alone, "have no stage.json and run.json")],
)
def test_weights_of_unknown_origin_are_refused(own_experiment, tuned, change, words):
    change(own_experiment)
    with pytest.raises(InputError) as refused:
        training_history(tuned)
    weights = own_experiment / "best.pt"
    assert str(refused.value).startswith(f"{weights}: {tuned} started from these weights, which {words}")


def test_a_phoneme_corpus_that_is_gone_cannot_be_checked(own_experiment, tmp_path):
    (of_before,) = training_history(own_experiment)
    moved = of_before._replace(run={**of_before.run, "phonemes": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="gone/phonemes.json: does not exist any more, but .* was trained with"):
        check_corpus_not_trained_on("emodb", [moved])


def test_older_trainings_do_not_name_the_weights_they_started_from(own_experiment):
    (of_before,) = training_history(own_experiment)
    run = {name: value for name, value in of_before.run.items() if name != "init_from"}
    assert of_before._replace(run=run).initial_weights is None

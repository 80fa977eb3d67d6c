"""The probe's SVMs: how vectors are standardised, how the layer is chosen, what its posteriors are."""

import numpy as np
import pytest

from speecheq.common.errors import InputError
from speecheq.evaluation.probe import ProbeClips, ProbeSettings, held_out_sets, probe, standardise_by_speaker

DIM, CLASSES = 6, 3
GOOD, BAD = 0, 1  # layers
STRONG, MEDIUM, WEAK = 3, 0.9, 0.45  # beside noise of 0.3


def clips(speakers, informative, seed=0, each=4, shift=0.0):
    """``each`` clips of every class and speaker; layer k has a direction of the class as long as ``informative[k]``;
    with "speaker" one of class and speaker.
    """
    random = np.random.default_rng(seed)
    rows, classes, names = [], [], []
    for speaker in speakers:
        for label in np.repeat(np.arange(CLASSES), each):
            layers = []
            for kind in informative:
                vector = 0.3 * random.standard_normal(DIM)
                if kind == "speaker":  # the same direction is another class for the next speaker
                    vector[(label + speaker) % CLASSES] += 3
                    vector[CLASSES + speaker % CLASSES] += 3
                else:
                    vector[label] += kind
                layers.append(vector + shift * speaker)
            rows.append(layers)
            classes.append(label)
            names.append(f"toy s{speaker}")
    return ProbeClips(np.array(rows), np.array(classes), np.array(names))


def part(made, chosen):
    return ProbeClips(made.vectors[chosen], made.classes[chosen], made.speakers[chosen])


def test_the_layer_is_chosen_without_the_test_clips():
    training, dev = clips(range(4), [STRONG, WEAK]), clips([4], [STRONG, WEAK], seed=1)
    test = clips([5], [0, MEDIUM], seed=2)  # where the other layer is better
    result = probe(training, dev, test, CLASSES, unseen_speakers=True)
    assert result.layer == GOOD and result.dev_ua[GOOD] > result.dev_ua[BAD]
    assert result.test_ua[GOOD] < 0.7 < result.test_ua[BAD]
    assert result.posteriors.shape == (2, len(test.classes), CLASSES)
    correct = result.posteriors[result.layer].argmax(1) == test.classes
    assert correct.mean() == pytest.approx(result.test_ua[GOOD]), "the predictions are those of the chosen layer"


def test_for_unseen_speakers_the_layer_is_chosen_on_speakers_that_were_left_out():
    made = clips(range(3), ["speaker", WEAK], each=20)
    is_dev = np.arange(len(made.classes)) % 10 == 0
    training, dev = part(made, ~is_dev), part(made, is_dev)  # the dev part has the speakers of the training part
    known, unseen = (probe(training, dev, clips([7], ["speaker", WEAK], 3), CLASSES, new) for new in (False, True))
    assert known.layer == 0 and known.dev_ua[0] == 1.0, "for known speakers their own directions are the best"
    assert unseen.layer == 1 and unseen.dev_ua[0] < unseen.dev_ua[1] < 1.0


def test_no_clip_chooses_a_layer_that_it_trained():
    training, dev = clips(range(7), [STRONG]), clips(range(2), [STRONG], seed=1)
    own = training.joined(dev)
    groups = held_out_sets(training, dev, unseen_speakers=True)
    assert len(groups) == 5 and np.array_equal(sum(groups), np.ones(len(own.classes)))
    for group in groups:
        assert not set(own.speakers[group]) & set(own.speakers[~group])
    for other_dev, unseen in ((dev, False), (clips([9], [STRONG]), True), (clips([9], [STRONG]), False)):
        (only,) = held_out_sets(training, other_dev, unseen)
        assert np.array_equal(only, np.arange(len(only)) >= len(training.classes)), "the dev part itself"


def test_a_fold_without_a_dev_part_leaves_out_speakers():
    training, nothing = clips(range(3), [STRONG]), part(clips([0], [STRONG]), slice(0, 0))
    assert len(held_out_sets(training, nothing, unseen_speakers=False)) == 3
    with pytest.raises(InputError, match="no dev part and one training speaker"):
        probe(clips([0], [STRONG]), nothing, clips([1], [STRONG]), CLASSES, unseen_speakers=True)


@pytest.mark.parametrize("at_once", [0, 10_000])
def test_the_svm_is_the_one_of_scikit_learn_on_standardised_vectors(at_once, monkeypatch):
    """Also of more clips than the kernel is computed of at once."""
    monkeypatch.setattr("speecheq.evaluation.probe.KERNEL_CLIPS", at_once)
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    training, dev, test = clips(range(4), [WEAK]), clips([4], [WEAK], 1), clips([5], [WEAK], 2, each=30)
    own = training.joined(dev)
    for kernel in ("rbf", "linear"):
        reference = make_pipeline(StandardScaler(), SVC(kernel=kernel, C=10, break_ties=True))
        expected = reference.fit(own.vectors[:, 0], own.classes).predict(test.vectors[:, 0])
        result = probe(training, dev, test, CLASSES, True, ProbeSettings(kernel))
        assert result.posteriors[result.layer].argmax(1).tolist() == expected.tolist()
        assert 0.4 < (expected == test.classes).mean() < 1


def test_posteriors_sum_to_one_and_are_zero_for_classes_without_training_clips():
    made = clips(range(4), [STRONG])
    training = part(made, made.classes != 1)
    dev, test = part(clips([4], [STRONG], 1), slice(0, None, 2)), clips([5], [STRONG], 2)
    result = probe(part(training, training.classes >= 0), part(dev, dev.classes != 1), test, CLASSES, True)
    assert np.allclose(result.posteriors.sum(2), 1) and (result.posteriors[:, :, 1] == 0).all()
    kept = test.classes != 1
    assert (result.posteriors[result.layer].argmax(1)[kept] == test.classes[kept]).all(), (
        "two classes are told apart too"
    )


def test_one_class_is_refused():
    made = clips(range(4), [STRONG])
    same = ProbeClips(made.vectors, np.zeros_like(made.classes), made.speakers)
    with pytest.raises(InputError, match="all training clips are of one class"):
        probe(same, same, same, CLASSES, unseen_speakers=False)


def test_standardising_by_speaker_takes_out_what_is_the_speakers_own():
    training, dev = clips(range(4), [STRONG], shift=40.0), clips([4], [STRONG], 1, shift=40.0)
    test = clips([9], [STRONG], 2, shift=40.0)
    plain = probe(training, dev, test, CLASSES, True)
    by_speaker = probe(training, dev, test, CLASSES, True, ProbeSettings(by_speaker=True))
    assert by_speaker.test_ua == [1.0] and plain.test_ua[0] < 0.7


def test_the_vectors_of_each_speaker_have_mean_0_and_deviation_1(caplog):
    made = clips([1, 2], [STRONG, 0], shift=5.0)
    single = part(clips([3], [STRONG, 0], 1), slice(0, 1))
    found = standardise_by_speaker(made.joined(single)).vectors
    for own in (slice(0, 12), slice(12, 24)):
        assert np.allclose(found[own].mean(0), 0) and np.allclose(found[own].std(0), 1)
    everything = made.joined(single).vectors
    assert np.allclose(found[24], (single.vectors[0] - everything.mean(0)) / everything.std(0))
    assert "1 speakers have one clip" in caplog.text and "toy s3" in caplog.text


def test_a_value_that_never_changes_is_harmless():
    constant = [np.concatenate([made.vectors, np.ones((len(made.classes), 1, 1))], 2) for made in CONSTANT]
    training, dev, test = (
        ProbeClips(vectors, made.classes, made.speakers) for vectors, made in zip(constant, CONSTANT)
    )
    for by_speaker in (False, True):
        assert probe(training, dev, test, CLASSES, True, ProbeSettings(by_speaker=by_speaker)).test_ua == [1.0]


CONSTANT = (clips(range(4), [STRONG]), clips([4], [STRONG], 1), clips([5], [STRONG], 2))


def test_the_majority_class_is_that_of_training_and_dev_clips():
    training, dev, test = clips([0], [STRONG]), clips([1], [STRONG], seed=1), clips([2], [STRONG], seed=2)
    more = ProbeClips(training.vectors[:5], np.full(5, 1), training.speakers[:5])
    result = probe(training.joined(more), dev, test, CLASSES + 1, True, ProbeSettings(kernel="majority"))
    assert result.posteriors.shape == (1, len(test.classes), CLASSES + 1)
    assert (result.posteriors.argmax(2) == 1).all() and result.test_ua == [pytest.approx(1 / CLASSES)]
    assert result.posteriors[0, 0].tolist() == pytest.approx([8 / 29, 13 / 29, 8 / 29, 0])

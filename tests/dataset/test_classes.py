"""Warnings of stage 3 about classes: one class alone, and classes with one or two clips."""

from toy_corpora import ToyCorpora

from speecheq.corpora import Corpus, Utterance
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe

LABELS = {"mad": "anger", "calm": "neutral"}


def warnings_of(toys, folder, caplog, labels):
    """What stage 3 logs about a corpus of two speakers with clips of ``labels`` each."""
    made = ToyCorpora(folder, toys)
    clips = [
        Utterance(f"t-{speaker}-{place}", toys.write_wav(folder / f"{speaker}{place}.wav"), speaker, label=label)
        for speaker in ("s1", "s2")
        for place, label in enumerate(labels)
    ]
    made.add(Corpus("target", "the target", "Mandarin", "DIR/*.wav", labels=LABELS), clips)
    unify(Recipe("target", "speaker", ("target",)), "1", folder / "manifests", folder / "fbank", folder / "msud")
    return caplog.text


def test_one_class_alone(toys, tmp_path, caplog):
    text = warnings_of(toys, tmp_path, caplog, ["mad"] * 4)
    assert "target.speaker, fold 1: all training clips are of one class, anger" in text
    assert "all test clips are of one class, anger" in text and "too few" not in text


def test_a_class_with_one_or_two_clips(toys, tmp_path, caplog):
    text = warnings_of(toys, tmp_path, caplog, ["mad"] * 4 + ["calm"])
    assert "target.speaker, fold 1: too few clips to learn or to test: neutral (2)" in text
    assert "one class" not in text


def test_enough_clips_of_each_class(toys, tmp_path, caplog):
    text = warnings_of(toys, tmp_path, caplog, ["mad", "mad", "calm", "calm"])
    assert "too few" not in text and "one class" not in text

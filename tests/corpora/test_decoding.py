"""Corpora, noises and unlabelled speech in formats that libsndfile cannot read."""

import multiprocessing

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet
from other_formats import RATE, encode, tone

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora import audio_folder, decoding
from speecheq.corpora.audio_headers import read_recording
from speecheq.corpora.audio_quality import AudioClip, measure
from speecheq.corpora.exchange import import_corpus
from speecheq.corpora.prep_script import audio_folder_main
from speecheq.corpora.prepare import PrepareRequest
from speecheq.features.audio import load_waveform


@pytest.fixture
def corpus(tmp_path):
    """A table of two clips in a video and one in an m4a, and the clips as cuts once they are prepared."""
    encode(tmp_path / "lab" / "film.mp4", "aac", tone(4), picture=True)
    encode(tmp_path / "lab" / "a.m4a", "aac", tone(2))
    rows = ["path,speaker,emotion,start,end,utt", "film.mp4,s1,happy,0.5,1.5,one", "film.mp4,s1,happy,2,3,two"]
    (tmp_path / "lab" / "table.csv").write_text("\n".join([*rows, "a.m4a,s2,happy,,,three"]))
    (tmp_path / "lab" / "labels.yaml").write_text("language: English\nlabels: {happy: joy}\n")

    def cuts():
        import_corpus("lab", PrepareRequest(tmp_path / "lab" / "table.csv"), tmp_path / "out")
        recordings = RecordingSet.from_file(tmp_path / "out" / "lab_recordings_all.jsonl.gz")
        return list(CutSet.from_manifests(recordings=recordings))

    return cuts


def test_a_corpus_of_videos_is_prepared_and_read(corpus):
    by_name = {cut.recording_id: cut for cut in corpus()}
    film, clip = by_name["lab-film"], by_name["lab-three"]
    assert film.duration == pytest.approx(4, abs=0.15) and clip.duration == pytest.approx(2, abs=0.15)
    part = load_waveform(film.truncate(offset=1, duration=1))
    assert len(part) == RATE and np.abs(np.fft.rfft(part)).argmax() == pytest.approx(440, abs=2)
    assert np.array_equal(part, load_waveform(film)[RATE : 2 * RATE])
    quality = measure(AudioClip(film.recording.sources[0].source, RATE, 0, film.num_samples))
    assert not quality.problem and quality.channels == 2


def _read(cut):
    return load_waveform(cut).tolist()


def test_forked_processes_read_what_was_decoded_before(corpus):
    film, *_ = corpus()
    first = load_waveform(film)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for read in pool.map(_read, [film] * 8):
            assert np.array_equal(np.float32(read), first)
    assert np.array_equal(load_waveform(film), first), "the end of a process takes nothing away"


def test_without_pyav_a_corpus_is_one_sentence(corpus, monkeypatch):
    monkeypatch.setattr(decoding, "can_decode", lambda: False)
    with pytest.raises(InputError, match="is MPEG-4 .* ffmpeg -i .*install the extra av"):
        corpus()


def test_pyav_that_is_gone_after_stage_1_is_one_sentence(corpus, monkeypatch):
    film, *_ = corpus()
    monkeypatch.setattr(decoding, "can_decode", lambda: False)
    with pytest.raises(InputError, match="is MPEG-4 .* ffmpeg -i .*install the extra av"):
        load_waveform(film)
    assert "extra av" in measure(AudioClip(film.recording.sources[0].source, RATE, 0, 100)).problem


def test_noises_in_other_formats(tmp_path):
    encode(tmp_path / "noise" / "hum.m4a", "aac", tone(2))
    encode(tmp_path / "noise" / "rain.webm", "libopus", tone(2))
    assert audio_folder_main("noise", "noises", [str(tmp_path / "noise"), str(tmp_path / "out")]) == 0
    recordings = RecordingSet.from_file(audio_folder.recordings_manifest(tmp_path / "out"))
    assert {r.id: r.sampling_rate for r in recordings} == {"noise-hum.m4a": RATE, "noise-rain.webm": 48000}
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {}


def test_parts_of_a_file_without_seeking_are_read_in_stage_2(tmp_path):
    """GSM 6.10: the same samples as from the beginning."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(4)[0], 8000, format="WAV", subtype="GSM610")
    recording = read_recording("a", path)
    whole, part = load_waveform(recording.to_cut(), 8000), load_waveform(recording.to_cut().truncate(offset=1.5), 8000)
    assert np.array_equal(part, whole[12000:])
    assert not measure(AudioClip(str(path), 8000, 8000, 8000)).problem

"""Recordings as users have them: what names stand for, how they are cut, what is refused."""

import io
import sys
from contextlib import ExitStack
from pathlib import Path
from unicodedata import normalize

import lhotse
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.features.audio import load_waveform
from speecheq.inference.recordings import (
    CLIPPING,
    OPPOSITE_PHASE,
    SILENCE,
    AudioClip,
    Segment,
    find_segments,
    read_clip,
    split_into_clips,
)
from speecheq.inference.windows import Span, Windows


def write(path, samples, rate=16000, **options):
    soundfile.write(path, samples, rate, **options)
    return path


def noise(seconds, rate=16000, channels=None):
    shape = (round(seconds * rate), channels) if channels else round(seconds * rate)
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


def found(*names):
    with ExitStack() as kept:
        return list(find_segments(names, kept))


def read(path, rate=16000):
    (clip,) = split_into_clips(Segment(str(path), path), Windows())
    return read_clip(clip, rate)


@given(st.integers(1, 10**5), st.integers(1, 60), st.sampled_from([None, 0.1, 0.25, 1, 7.5, 60]))
def test_windows_cover_a_recording_without_leaving_it(frames, length, hop):
    rate = 1000
    windows = Windows(length, hop).split(frames, rate)
    assert windows[0][0] == 0 and sum(windows[-1]) == frames
    if len(windows) > 1:
        step = min(hop or length / 2, length) * rate
        *lengths, last = (count for _, count in windows)
        assert set(lengths) == {length * rate} and length * rate <= last < length * rate + step / 2
        steps = [b - a for (a, _), (b, _) in zip(windows, windows[1:])]
        assert min(steps) >= step / 2, "no window nearly repeats another"
        if hop is None:
            assert max(steps) <= length * rate / 2 + 1, "nothing is left out"
    elif frames > length * rate:
        assert frames < length * rate + min(hop or length / 2, length) * rate / 2
        assert windows == [(0, frames)]
    else:
        assert windows == [(0, frames)]


def test_without_a_window_only_long_recordings_are_cut():
    assert Windows().split(30 * 16000, 16000) == [(0, 30 * 16000)]
    windows = Windows().split(32 * 16000, 16000)
    assert windows[:2] == [(0, 96000), (48000, 96000)] and windows[-1] == (26 * 16000, 96000)


def test_the_last_window_takes_a_short_rest_along():
    """24.00-30.00 s and 24.01-30.01 s would be the same answer twice."""
    assert Windows().split(30 * 16000 + 160, 16000)[-2:] == [(21 * 16000, 96000), (24 * 16000, 96160)]
    assert Windows(4).split(64160, 16000) == [(0, 64160)]


@pytest.mark.parametrize("length, hop", [(0.01, None), (0.29, None), (-1, None), (float("nan"), None), (4, 0.001)])
def test_windows_without_a_useful_answer_are_refused(length, hop):
    with pytest.raises(InputError, match="is not possible, .*; choose 0.(3|01) s or more"):
        Windows(length, hop)


def test_a_folder_is_all_its_audio_in_order(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.wav", "a.FLAC", "in/c.ogg"):
        write(tmp_path / name, noise(0.1), format=name[-4:].strip(".").upper())
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "d.raw").write_bytes(bytes(range(256)) * 9)  # reported when it is read
    assert [part.path.name for part in found(tmp_path)] == ["a.FLAC", "b.wav", "d.raw", "c.ogg"]


def test_hidden_files_of_a_folder_are_skipped_and_counted(tmp_path, caplog):
    folder = tmp_path / ".cache"  # a folder that is named itself may be hidden
    for name in ("a.wav", "._a.wav", "__MACOSX/a.wav", ".trash/b.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, noise(0.1))
    assert [part.path for part in found(folder)] == [folder / "a.wav"]
    assert f"{folder}: 3 hidden files are skipped" in caplog.text


def test_leftovers_of_macos_in_lists_are_skipped_and_counted(tmp_path, caplog):
    audio = write(tmp_path / "a.wav", noise(1))
    lines = ["a a.wav\n", "b ._a.wav\n", "c __MACOSX/a.wav\n", "d .DS_Store\n"]
    (tmp_path / "wav.scp").write_text("".join(lines))
    assert [part.name for part in found(tmp_path)] == ["a"]
    assert f"{tmp_path}: 3 leftovers of macOS are skipped" in caplog.text
    recordings = [lhotse.Recording.from_file(audio, recording_id=name) for name in "ab"]
    recordings[1].sources[0].source = str(tmp_path / "._a.wav")
    lhotse.RecordingSet.from_recordings(recordings).to_file(tmp_path / "recordings.jsonl.gz")
    assert [part.name for part in found(tmp_path / "recordings.jsonl.gz")] == ["a"]
    assert "recordings.jsonl.gz: 1 leftovers of macOS are skipped" in caplog.text


@pytest.mark.parametrize("asked, on_disk", [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_and_folders_are_found_in_another_unicode_form(tmp_path, asked, on_disk):
    folder = tmp_path / normalize(on_disk, "Zoë")
    folder.mkdir()
    write(folder / normalize(on_disk, "é.wav"), noise(0.1))
    for name in ("Zoë", "Zoë/é.wav"):
        assert [part.path.parent for part in found(tmp_path / normalize(asked, name))] == [folder]


def test_manifests_of_lhotse_name_recordings_and_parts_of_them(tmp_path):
    audio = write(tmp_path / "a.wav", noise(2))
    recording = lhotse.Recording.from_file(audio, recording_id="r")
    lhotse.RecordingSet.from_recordings([recording]).to_file(tmp_path / "recordings.jsonl.gz")
    cut = recording.to_cut().truncate(offset=0.5, duration=1.0)
    lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")
    (whole,) = found(tmp_path / "recordings.jsonl.gz")
    (part,) = found(tmp_path / "cuts.jsonl")
    assert whole == Segment("r", audio) and part == Segment(cut.id, audio, 0.5, 1.5)
    (clip,) = split_into_clips(part, Windows())
    assert np.array_equal(read_clip(clip, 16000).samples, load_waveform(cut)), "as stage 2 reads it"


def test_a_kaldi_folder_names_segments(tmp_path):
    audio = write(tmp_path / "a.wav", noise(2))
    (tmp_path / "wav.scp").write_text(f"r {audio}\n")
    assert found(tmp_path) == [Segment("r", audio)]
    (tmp_path / "segments").write_text("u1 r 0.5 1\nu2 r 1 -1\n")
    assert found(tmp_path) == [Segment("u1", audio, 0.5, 1.0), Segment("u2", audio, 1.0)]


def test_a_segment_that_ends_little_after_its_recording_is_cut(tmp_path, caplog):
    audio = write(tmp_path / "a.wav", noise(2))
    (tmp_path / "wav.scp").write_text(f"r {audio}\n")
    (tmp_path / "segments").write_text("u1 r 1 2.02\nu2 r 1 2.5\nu3 r 1 2.6\nu4 r 2.2 2.4\n")
    one, two, three, four = found(tmp_path)
    assert [split_into_clips(part, Windows())[0].span.frames for part in (one, two)] == [16000, 16000]
    assert "u1 ends 0.02 s after the recording and is cut to its end" in caplog.text
    for part in (three, four):
        with pytest.raises(InputError, match=f"{part.name} is to go from"):
            split_into_clips(part, Windows())


def test_one_bad_line_of_a_kaldi_folder_takes_no_other_with_it(tmp_path):
    audio = write(tmp_path / "a.wav", noise(2))
    (tmp_path / "wav.scp").write_text(f"p sox b.wav -t wav - |\nr {audio.name}\n")
    (error, segment) = found(tmp_path)
    assert "wav.scp, line 1: p is the output of a command" in str(error) and segment == Segment("r", audio)
    (tmp_path / "segments").write_text("u1 r 0.5 1\nu2 p 0 1\nu3 r 1\nu4 q 0 1\nu5 r 1 0\nu6 r 1 -1\n")
    first, *errors, last = found(tmp_path)
    assert (first, last) == (Segment("u1", audio, 0.5, 1.0), Segment("u6", audio, 1.0))
    sentences = (
        "wav.scp, line 1: p is",
        "segments, line 3: expected",
        "segments, line 4: the",
        "segments, line 5: the",
    )
    assert len(errors) == 4 and all(sentence in str(error) for sentence, error in zip(sentences, errors)), errors


def test_one_bad_recording_of_a_manifest_takes_no_other_with_it(tmp_path):
    recording = lhotse.Recording.from_file(write(tmp_path / "a.wav", noise(1)), recording_id="r")
    source = lhotse.AudioSource("command", [0], "sox b.wav -t wav -")
    bad = lhotse.Recording("p", [source], 16000, 16000, 1.0)
    lhotse.RecordingSet.from_recordings([bad, recording]).to_file(tmp_path / "r.jsonl")
    (error, segment) = found(tmp_path / "r.jsonl")
    assert "r.jsonl: p is not an audio file" in str(error) and segment.name == "r"


def test_standard_input_is_a_recording(tmp_path, monkeypatch):
    content = write(tmp_path / "a.wav", noise(1)).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with ExitStack() as kept:
        (part,) = find_segments(["-"], kept)
        assert part.name == "-" and split_into_clips(part, Windows())[0].span.frames == 16000
    assert not part.path.exists()


@pytest.mark.parametrize("rate, channels", [(192000, 1), (16000, 8), (44100, 2), (8000, 1), (11025, 3), (44101, 1)])
def test_any_rate_and_channels_are_heard_as_stage_2_hears_them(tmp_path, rate, channels):
    path = write(tmp_path / "a.wav", noise(0.5, rate, channels), rate)
    sound = read(path)
    cut = lhotse.Recording.from_file(path).to_cut()
    assert np.array_equal(sound.samples, load_waveform(cut)) and sound.note == ""
    assert len(sound.samples) == pytest.approx(8000, abs=1)


def test_silence_and_clipping_are_noted(tmp_path):
    assert read(write(tmp_path / "s.wav", np.zeros(16000))).note == SILENCE
    assert read(write(tmp_path / "c.wav", np.clip(40 * noise(1), -1, 1))).note == CLIPPING
    assert read(write(tmp_path / "n.wav", noise(1))).note == ""


@pytest.mark.parametrize("gain, delay", [(-1, 0), (-0.8, 0), (-1, 1), (-1.01, 0)])
def test_channels_in_opposite_phase_are_the_loudest_alone_and_noted(tmp_path, gain, delay, caplog):
    mono = np.convolve(noise(1)[:-delay] if delay else noise(1), np.ones(64) / 8, "same")
    other = gain * np.concatenate([np.zeros(delay), mono])[: len(mono)]
    stereo = write(tmp_path / "a.wav", np.stack([mono, other], 1), subtype="FLOAT")
    loudest = mono if abs(gain) <= 1 else other
    assert read(stereo).note == OPPOSITE_PHASE
    assert np.array_equal(read(stereo).samples, loudest.astype(np.float32))
    cut = lhotse.Recording.from_file(stereo).to_cut()
    assert np.array_equal(load_waveform(cut), read(stereo).samples), "as stage 2 reads it"
    load_waveform(cut)
    assert caplog.text.count("a.wav: the channels cancel each other out") == 1


@pytest.mark.parametrize(
    "channels", [[1, 1], [1, 0], [1, -0.3], [1, 0, 0, 0, 0, 0, 0, 0], [1, -0.5, 0]], ids=lambda gains: str(gains)
)
def test_other_channels_are_averaged(tmp_path, channels):
    mono = noise(1)
    path = write(tmp_path / "a.wav", np.stack([gain * mono for gain in channels], 1), subtype="FLOAT")
    assert read(path).note == "" and read(path).samples == pytest.approx(np.mean(channels) * mono, abs=1e-6)
    independent = np.random.default_rng(0).standard_normal((16000, 16)) / 10
    assert read(write(tmp_path / "b.wav", independent)).note == ""


def test_notes_add_up_but_silence_stays_alone(tmp_path):
    loud = np.clip(40 * noise(1), -1, 1)
    assert read(write(tmp_path / "a.wav", np.stack([loud, -loud], 1), subtype="FLOAT")).note == (
        f"{CLIPPING}; {OPPOSITE_PHASE}"
    )
    assert read(write(tmp_path / "b.wav", 1e-4 * np.stack([loud, -loud], 1), subtype="FLOAT")).note == SILENCE


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda path: path.write_text("this is no audio, whatever it is called"), "is not audio that can be read"),
        (lambda path: path.touch(), "the file is empty"),
        (lambda path: None, "there is no such file"),
        (lambda path: write(path, noise(0.01)), "less than one frame of 25 ms"),
        (lambda path: write(path, np.full(16000, np.nan), subtype="FLOAT"), "not numbers"),
        (lambda path: write(path, np.array([0.1] * 999 + [np.inf]), subtype="FLOAT"), "not numbers"),
        (lambda path: path.write_bytes(write(path, noise(1)).read_bytes()[:20000]), "is truncated"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, make, sentence):
    make(tmp_path / "a.wav")
    with pytest.raises(InputError, match=sentence) as refused:
        read(tmp_path / "a.wav")
    assert str(refused.value).startswith(str(tmp_path / "a.wav")) and str(refused.value).endswith(".")


def test_a_flac_that_ends_early_is_one_sentence(tmp_path):
    whole = write(tmp_path / "a.flac", noise(3))
    whole.write_bytes(whole.read_bytes()[:20000])
    with pytest.raises(InputError, match="a.flac: (cannot be read|ends|is not audio)"):
        read(whole)


def test_names_without_recordings_are_sentences(tmp_path):
    lhotse.SupervisionSet.from_segments([lhotse.SupervisionSegment("s", "r", 0, 1)]).to_file(tmp_path / "s.jsonl")
    (tmp_path / "bad.jsonl.gz").write_text("not gzip")
    (tmp_path / "empty").mkdir()
    errors = [str(error) for error in found(tmp_path / "s.jsonl", tmp_path / "bad.jsonl.gz", tmp_path / "empty")]
    sentences = ("neither recordings nor cuts", "bad.jsonl.gz, line 1: is not a line of a manifest", "no audio")
    assert len(errors) == 3 and all(sentence in error for sentence, error in zip(sentences, errors)), errors


def test_a_part_beyond_the_end_is_a_sentence(tmp_path):
    path = write(tmp_path / "a.wav", noise(1))
    with pytest.raises(InputError, match="is to go from 0.5 to 2 s, but the recording lasts 1 s"):
        split_into_clips(Segment("late", path, 0.5, 2.0), Windows())


def test_a_window_knows_its_seconds():
    clip = AudioClip(Segment("a", Path("a.wav")), 8000, Span(4000, 16000), True)
    assert (clip.start, clip.end) == (0.5, 2.5)

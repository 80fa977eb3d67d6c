"""Audio and video that libsndfile cannot read: decoded where PyAV is installed, reported where it is not."""

import sys

import numpy as np
import pytest
import soundfile
from other_formats import RARE_WAV, RATE, encode, tone

from speecheq.common.errors import InputError
from speecheq.corpora import decoding
from speecheq.inference.recordings import Segment, Windows, read_clip, split_into_clips


@pytest.mark.parametrize(
    "name, codec, picture",
    [("a.m4a", "aac", False), ("a.mp4", "aac", True), ("a.webm", "libopus", False), ("a.aac", "aac", False)],
)
def test_other_formats_are_read_through_pyav(tmp_path, name, codec, picture):
    samples = tone(2)
    path = encode(tmp_path / name, codec, samples, picture)
    (clip,) = split_into_clips(Segment(str(path), path), Windows())
    read = read_clip(clip, RATE).samples
    assert clip.end == pytest.approx(2, abs=0.15)
    middle = np.abs(np.fft.rfft(read[8000:24000]))
    assert middle.argmax() == pytest.approx(440, abs=2), "the same tone"
    assert np.abs(read[8000:24000]).max() == pytest.approx(0.225, rel=0.1), "the mean of both channels"


def test_windows_and_parts_of_a_decoded_file(tmp_path):
    path = encode(tmp_path / "a.m4a", "aac", tone(8))
    clips = split_into_clips(Segment("part", path, 1.0, 7.0), Windows(2, 2))
    assert [(clip.start, clip.end) for clip in clips] == [(1, 3), (3, 5), (5, 7)]
    assert {len(read_clip(clip, RATE).samples) for clip in clips} == {2 * RATE}
    assert len({clip.decoded.name for clip in clips}) == 1, "it is decoded once"


def test_a_decoded_file_is_predicted_and_leaves_nothing(predict, tmp_path, monkeypatch):
    path = encode(tmp_path / "a.m4a", "aac", tone(2))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    status, out, _ = predict(path)
    assert status == 0 and out.startswith(f"{path}: ")
    assert not list((tmp_path / "tmp").iterdir())


def test_damaged_and_mute_files_are_one_sentence(tmp_path, caplog):
    whole = encode(tmp_path / "a.webm", "libopus", tone(8))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    split_into_clips(Segment("a", whole), Windows())
    assert "a.webm: holds" in caplog.text and "though it lasts 8.0 s; it may be truncated" in caplog.text
    path = encode(tmp_path / "a.m4a", "aac", tone(2))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="a.m4a: cannot be decoded"):
        split_into_clips(Segment("a", path), Windows())
    with pytest.raises(InputError, match="mute.mp4: holds no sound"):
        split_into_clips(Segment("a", encode(tmp_path / "mute.mp4", None, tone(1), picture=True)), Windows())


def test_a_codec_that_pyav_does_not_have_is_one_sentence(tmp_path):
    pytest.importorskip("av", reason="needs the extra `av`")
    (tmp_path / "a.wav").write_bytes(RARE_WAV)
    with pytest.raises(InputError, match="a.wav: its sound is in a codec that PyAV does not have"):
        split_into_clips(Segment("a", tmp_path / "a.wav"), Windows())


def test_without_pyav_other_formats_are_reported_and_the_rest_is_predicted(predict, wav, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(decoding, "can_decode", lambda: False)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    (tmp_path / "b.WEBM").write_bytes(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81")
    (tmp_path / "notes.txt").write_text("no audio")
    status, out, err = predict(tmp_path)
    assert status == 1 and out.count("\n") == 1 and "one.wav" in out
    *lines, last = err.splitlines()
    assert len(lines) == 2 and "a.m4a: is MPEG-4" in lines[0] and "b.WEBM: is WebM" in lines[1]
    assert "2 of 3 recordings could not be predicted" in last


def test_gsm_is_read_though_it_cannot_be_sought_in(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8)[0], RATE // 2, format="WAV", subtype="GSM610")
    clips = split_into_clips(Segment("a", path, 1.0), Windows(4, 3))
    whole = soundfile.SoundFile(path).read(20 * RATE, dtype="float32")
    for clip in clips:
        assert np.array_equal(read_clip(clip, 8000).samples, whole[clip.span.first :][: clip.span.frames])

"""The headers of audio files, as lhotse recordings."""

import pytest
import soundfile

from speecheq.corpora import InputError
from speecheq.corpora.audio_headers import read_recording


def test_recordings_of_any_rate_and_channels(toys, tmp_path):
    recording = read_recording("x", toys.write_wav(tmp_path / "a.wav", 0.5, 48000, 2))
    assert (recording.sampling_rate, recording.num_samples, recording.channel_ids) == (48000, 24000, [0, 1])
    with pytest.raises(InputError, match="less than one frame of 25 ms"):
        soundfile.write(tmp_path / "b.wav", [0.0] * 1199, 48000)
        read_recording("x", tmp_path / "b.wav")
    with pytest.raises(InputError, match="there is no such file"):
        read_recording("x", tmp_path / "c.wav")

"""Audio and video that libsndfile does not read, made by PyAV (the extra ``av``)."""

import numpy as np
import pytest

RATE = 16000
# a codec of no name
RARE_WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x99\x09\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\0\0\0\0"


def tone(seconds):
    """Two channels of different loudness."""
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([wave, wave / 2]).astype(np.float32)


def encode(path, codec, samples, picture=False):
    av = pytest.importorskip("av", reason="needs the extra `av`")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        if codec:
            stream = container.add_stream(codec, rate=RATE)
            stream.layout = "stereo"
        if picture:
            image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(video.encode(image))
            container.mux(video.encode(None))
        if codec is None:
            return path
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path

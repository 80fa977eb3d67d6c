"""How well a model does on a corpus that it has never heard, as it is and as people's recordings are.

    python benchmarks/unseen_corpus.py CASIA_FOLDER [--model MODEL] [--every 1] [--threads 1]

The four emotions that most corpora share, anger, joy, neutral and sadness, of CASIA (SPEAKER/EMOTION/NUMBER.wav): UA of
the most probable of these four, chance is 25 %. Prints Markdown tables: each clip by itself and by speaker (predict
--speaker-from), by emotion and by speaker; then each clip by itself at other levels, in noise, through a telephone, as
MP3 and cut short. Changes are drawn from fixed seeds.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from scipy.signal import butter, resample_poly, sosfilt

from speecheq.common.progress import progress
from speecheq.inference.predictor import Prediction, Predictor

EMOTIONS = {"angry": "anger", "happy": "joy", "neutral": "neutral", "sad": "sadness"}
NAMES = list(EMOTIONS.values())
RATE = 16000
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gain(decibels: float) -> Change:
    return lambda clip, _: np.clip(clip * 10 ** (decibels / 20), -1, 1)


def noise(snr: float) -> Change:
    def add(clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
        power = np.mean(clip**2) * 10 ** (-snr / 10)
        return clip + np.sqrt(power) * random.standard_normal(len(clip))

    return add


def telephone(clip: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz at 8 kHz in 8 bits of mu-law (ITU-T G.711)."""
    narrow = resample_poly(sosfilt(butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"), clip), 1, 2)
    file = io.BytesIO()
    soundfile.write(file, np.clip(narrow, -1, 1), RATE // 2, format="WAV", subtype="ULAW")
    file.seek(0)
    return resample_poly(soundfile.read(file)[0], 2, 1)


def mp3(clip: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """MP3 at 32 kbit/s and back."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=RATE)
        stream.bit_rate, stream.layout = 32000, "mono"
        samples = (np.clip(clip, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    return soundfile.read(file)[0]


def first(seconds: float) -> Change:
    return lambda clip, _: clip[: round(seconds * RATE)]


CONDITIONS: dict[str, Change] = {
    **{f"{decibels:+d} dB": gain(decibels) for decibels in (-30, -20, 6)},
    **{f"white noise, SNR {snr} dB": noise(snr) for snr in (20, 10, 5, 0)},
    "telephone (300 to 3400 Hz, mu-law)": telephone,
    "MP3, 32 kbit/s": mp3,
    **{f"the first {seconds:g} s": first(seconds) for seconds in (1.0, 1.5)},
}


def recalls(gold: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
    """The recall of each emotion in %; what got no class counts as wrong."""
    found = [max(NAMES, key=p.posterior.__getitem__) if p.posterior else "" for p in predictions]
    hits = {name: [a == b for a, b in zip(gold, found) if a == name] for name in NAMES}
    return {name: 100 * float(np.mean(values)) for name, values in hits.items() if values}


def row(name: str, gold: Sequence[str], predictions: Sequence[Prediction]) -> str:
    values = recalls(gold, predictions)
    cells = [f"{np.mean(list(values.values())):.1f}", *(f"{values[emotion]:.1f}" for emotion in NAMES)]
    return f"| {name} | {' | '.join(cells)} | {sum(not p.posterior for p in predictions)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder of CASIA, at any depth above the speakers' folders")
    parser.add_argument("--model", help="a checkpoint or model folder (default: the starter)")
    parser.add_argument("--every", type=int, default=1, help="take every N-th clip (default: 1)")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    files = [file for file in sorted(given.corpus.rglob("*.wav")) if file.parent.name in EMOTIONS][:: given.every]
    if not files:
        parser.error(f"{given.corpus}: holds no SPEAKER/EMOTION/*.wav of {', '.join(EMOTIONS)}")
    gold = [EMOTIONS[file.parent.name] for file in files]
    speakers = [file.parent.parent.name for file in files]
    predictor = Predictor(given.model, "cpu")

    print(f"| {len(files)} clips | UA % | {' | '.join(NAMES)} | without an answer |")
    print("| --- " * (3 + len(NAMES)) + "|")
    plain, by_speaker = predictor.predict(files), predictor.predict(files, speakers)
    print(row("each clip by itself", gold, plain))
    print(row("by speaker", gold, by_speaker))
    for speaker in sorted(set(speakers)):
        chosen = [number for number, name in enumerate(speakers) if name == speaker]
        for name, found in (("by itself", plain), ("by speaker", by_speaker)):
            print(row(f"{speaker}, {name}", [gold[n] for n in chosen], [found[n] for n in chosen]))
    for name, change in CONDITIONS.items():
        random = np.random.default_rng(0)
        found = []
        for file in progress(files, name, len(files), "clips"):
            clip, rate = soundfile.read(file)
            assert rate == RATE, file
            found.append(predictor(change(clip, random).astype(np.float32), RATE)[0])
        print(row(name, gold, found), flush=True)


if __name__ == "__main__":
    main()

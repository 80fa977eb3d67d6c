"""How well a model does on a corpus that it has never heard, as it is and as people's recordings are.

    python benchmarks/unseen_corpus.py CASIA_FOLDER [--model MODEL] [--every 1] [--threads 1]

The four emotions that most corpora share, anger, joy, neutral and sadness, of CASIA (SPEAKER/EMOTION/NUMBER.wav): UA of
the most probable of these four, chance is 25 %. Prints a section for a model card (speecheq package --measured): each
clip by itself and by speaker (predict --speaker-from), by emotion, gender and speaker, with confusions and calibration;
then each clip by itself at other levels, in noise, through a telephone, as MP3, cut short and joined to longer ones.
Changes are drawn from fixed seeds.
"""

import argparse
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from scipy.signal import butter, resample_poly, sosfilt

from speecheq.common.markdown import markdown_table
from speecheq.common.progress import progress
from speecheq.evaluation.metrics import calibration, calibration_error
from speecheq.inference.predictor import Prediction, Predictor

EMOTIONS = {"angry": "anger", "happy": "joy", "neutral": "neutral", "sad": "sadness"}
NAMES = list(EMOTIONS.values())
GENDERS = {"women": ["liuchanhg", "zhaoquanyin"], "men": ["ZhaoZuoxiang", "wangzhe"]}
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


def restricted(predictions: Sequence[Prediction]) -> np.ndarray:
    """The posteriors (N, 4) of NAMES alone; zero for what got no class."""
    found = np.array(
        [[p.posterior[name] for name in NAMES] if p.posterior else [0.0] * len(NAMES) for p in predictions]
    )
    return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)


def chosen(posteriors: np.ndarray) -> np.ndarray:
    """The number (N,) of the most probable class; -1 for what got none, which counts as wrong."""
    return np.where(posteriors.any(axis=1), posteriors.argmax(axis=1), -1)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n" + markdown_table(columns, rows), end="", flush=True)


def row(name: str, gold: np.ndarray, posteriors: np.ndarray) -> list[str]:
    """Name, clips, UA, the recall of each emotion in %, and how many clips got no class."""
    hits = chosen(posteriors) == gold
    recalls = {number: 100 * hits[gold == number].mean() for number in set(gold.tolist())}
    cells = [f"{recalls[number]:.1f}" if number in recalls else "n/a" for number in range(len(NAMES))]
    ua = f"{np.mean(list(recalls.values())):.1f}"
    return [name, str(len(gold)), ua, *cells, str((chosen(posteriors) < 0).sum())]


def joined(clips: Sequence[np.ndarray], seconds: float) -> Iterator[np.ndarray]:
    """Recordings of that length, each of clips one after the other; what is left over is shorter and left out."""
    samples = np.concatenate([*clips])
    size = round(seconds * RATE)
    return (samples[start : start + size] for start in range(0, len(samples) - size + 1, size))


def read_clip(file: Path) -> np.ndarray:
    clip, rate = soundfile.read(file)
    assert rate == RATE, file
    return clip


def print_clean(gold: np.ndarray, speakers: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
    """Scores by gender and speaker, confusions and calibration; ``found`` has posteriors by the name of the way."""
    rows = [row(way, gold, posteriors) for way, posteriors in found.items()]
    groups = {**GENDERS, **{name: [name] for name in sorted(set(speakers))}}
    for group, members in groups.items():
        inside = np.isin(speakers, members)
        rows += [row(f"{group}, {way}", gold[inside], values[inside]) for way, values in found.items() if inside.any()]
    table(("clips of", "clips", "UA %", *NAMES, "without an answer"), rows)

    print("\nWhat it confuses: the classes (columns) that the clips of each emotion get, in %.")
    rows = []
    for way, posteriors in found.items():
        for number, name in enumerate(NAMES):
            got = chosen(posteriors)[gold == number]
            rows.append([f"{name}, {way}", *(f"{100 * np.mean(got == other):.1f}" for other in range(len(NAMES)))])
    table(("clips of", *NAMES), rows)

    errors = ", ".join(
        f"{100 * (calibration_error(gold.tolist(), posteriors.tolist()) or 0):.1f} % {way}"
        for way, posteriors in found.items()
    )
    print(f"\nCalibration of the posteriors among these four classes: ECE {errors}.")
    rows = []
    for way, posteriors in found.items():
        bins = calibration(gold.tolist(), posteriors.tolist())
        for number in np.flatnonzero(bins.clips):
            ends = [f"{100 * end / len(bins.clips):.0f}" for end in (number, number + 1)]
            right, mean = (f"{100 * values[number]:.1f}" for values in (bins.accuracy, bins.confidence))
            rows.append([way, " to ".join(ends), str(bins.clips[number]), mean, right])
    table(("way", "posterior %", "clips", "mean posterior %", "accuracy %"), rows)


def print_changed(predictor: Predictor, clips: Sequence[np.ndarray], gold: np.ndarray, speakers: np.ndarray) -> None:
    """Each clip by itself under each condition, and clips of an emotion and speaker one after the other."""

    def predict(name: str, changed: Iterable[np.ndarray], total: int) -> np.ndarray:
        shown = progress(changed, name, total, "clips")
        return restricted([predictor(clip.astype(np.float32), RATE)[0] for clip in shown])

    rows = []
    for name, change in CONDITIONS.items():
        random = np.random.default_rng(0)
        rows.append(row(name, gold, predict(name, (change(clip, random) for clip in clips), len(clips))))
    for seconds in (5.0, 10.0):
        long, classes = [], []
        for speaker, number in product(sorted(set(speakers)), range(len(NAMES))):
            own = [clip for clip, *key in zip(clips, speakers, gold) if key == [speaker, number]]
            long += (found := list(joined(own, seconds)))
            classes += [number] * len(found)
        name = f"clips joined to {seconds:g} s"
        if long:
            rows.append(row(name, np.array(classes), predict(name, long, len(long))))
    table(("recordings", "clips", "UA %", *NAMES, "without an answer"), rows)


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
    gold = np.array([NAMES.index(EMOTIONS[file.parent.name]) for file in files])
    speakers = np.array([file.parent.parent.name for file in files])
    predictor = Predictor(given.model, "cpu")

    print("## Scores on a corpus and a language that are not in its training data\n")
    print(
        f"CASIA (Mandarin, acted): {len(files)} clips of {', '.join(NAMES)} of {len(set(speakers))} speakers, each by "
        "itself and by speaker (`--speaker-from folder`). The most probable of these four classes counts, so chance is "
        f"{100 / len(NAMES):.0f} %."
    )
    plain, by_speaker = predictor.predict(files), predictor.predict(files, speakers.tolist())
    print_clean(gold, speakers, {"by itself": restricted(plain), "by speaker": restricted(by_speaker)})
    print("\nOther recordings, each by itself: the same clips changed, cut, and joined to longer ones.")
    print_changed(predictor, [read_clip(file) for file in files], gold, speakers)


if __name__ == "__main__":
    main()

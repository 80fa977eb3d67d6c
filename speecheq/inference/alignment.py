"""When the phones of a known text are spoken: the most probable CTC path of all its pronunciations.

The path is that through the graph which training with all pronunciations sums over (dataset/phones/lattice.py), found
by Viterbi here, so that it needs neither k2 nor torchaudio; on a graph of one pronunciation it is what torchaudio's
forced_align finds, and on any what k2's shortest path is.

CTC says where a phone is recognised rather than where it begins: often a frame or two, with blanks around. A blank
between two phones of a word is divided between them; between words it is a pause where it is longer than LONGEST_GAP,
else divided too.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, pstdev
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speecheq.common.errors import InputError
from speecheq.dataset.phones.lattice import BLANK, CtcGraph, as_words, ctc_graph, word_of_each
from speecheq.dataset.phones.phone_table import NoPhones, PhoneTable, Word
from speecheq.inference.trained_model import PHONE_FRAMES, PHONES, TorchModel, TrainedModel

# Seconds of blanks between words that are taken for their closures and transitions, and not for a pause.
LONGEST_GAP = 0.1
# The EIS along a recording is predicted of windows of this length and hop, in seconds.
EIS_WINDOW, EIS_HOP = 2.0, 0.5
IMPOSSIBLE = -1e30


class AlignedPhone(NamedTuple):
    """A phone of the text, or a pause: ``start`` and ``end`` in seconds, ``word`` the number of its word."""

    phone: str
    start: float
    end: float
    word: int | None


class Alignment(NamedTuple):
    """The phones of a recording without gaps between 0 and ``seconds``, and the words of its text."""

    phones: list[AlignedPhone]
    words: list[str]
    seconds: float
    score: float  # mean log probability of a frame of the path

    def spoken(self) -> list[AlignedPhone]:
        """Without pauses."""
        return [phone for phone in self.phones if phone.word is not None]

    def word_spans(self) -> list[tuple[str, float, float]]:
        """Each word with its start and end in seconds."""
        spans = []
        for number, text in enumerate(self.words):
            own = [phone for phone in self.phones if phone.word == number]
            spans.append((text, own[0].start, own[-1].end))
        return spans


class PhoneDuration(NamedTuple):
    """How long a phone is, in seconds, over all places where it is spoken."""

    phone: str
    occurrences: int
    mean: float
    deviation: float
    shortest: float
    longest: float


def durations_of(alignments: Iterable[Alignment]) -> list[PhoneDuration]:
    """The durations of each phone that is spoken, by name; without pauses."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for alignment in alignments:
        for phone in alignment.spoken():
            seconds[phone.phone].append(phone.end - phone.start)
    return [
        PhoneDuration(name, len(values), mean(values), pstdev(values), min(values), max(values))
        for name, values in sorted(seconds.items())
    ]


def best_path(log_probs: np.ndarray, graph: CtcGraph) -> tuple[list[tuple[int, int, int]], float]:
    """The most probable path of a CTC graph through log probabilities (T, C).

    Returns: (label, first frame, frame after the last) of each label of the path, blanks left out; the path's log
    probability. Raises ValueError if the frames are too few.
    """
    if len(log_probs) < graph.min_frames:
        raise ValueError(f"the text needs {graph.min_frames} frames, and there are {len(log_probs)}")
    inner = graph.arcs[graph.arcs[:, 2] >= 0]
    source, target, label = inner[:, 0], inner[:, 1], inner[:, 2]
    order = np.argsort(target, kind="stable")
    source, target, label = source[order], target[order], label[order]
    states, first = np.unique(target, return_index=True)
    finals = graph.arcs[graph.arcs[:, 2] < 0, 0]
    best = np.full(int(graph.arcs[:, :2].max()) + 1, IMPOSSIBLE)
    best[0] = 0.0
    places = np.arange(len(source))
    taken = np.empty((len(log_probs), len(states)), dtype=np.int32)  # the arc into each state, at each frame
    for frame, row in enumerate(log_probs):
        scores = best[source] + row[label]
        highest = np.maximum.reduceat(scores, first)
        is_best = scores == np.repeat(highest, np.diff([*first, len(source)]))
        taken[frame] = np.minimum.reduceat(np.where(is_best, places, len(places)), first)
        best = np.full_like(best, IMPOSSIBLE)
        best[states] = highest
    state = int(finals[best[finals].argmax()])
    total, column = float(best[state]), {int(number): place for place, number in enumerate(states)}
    spans: list[tuple[int, int, int]] = []
    inside = None  # the state of the span that is open
    for frame in reversed(range(len(log_probs))):
        arc = taken[frame, column[state]]
        if label[arc] == BLANK:
            inside = None
        elif state == inside:
            spans[-1] = (spans[-1][0], frame, spans[-1][2])
        else:
            spans.append((int(label[arc]), frame, frame + 1))
            inside = state
        state = int(source[arc])
    return spans[::-1], total


def words_of_text(text: str, table: PhoneTable) -> list[Word]:
    """The words of a text with their pronunciations in the phones of ``table``.

    Raises InputError if the table is not that of a language's phones, or the text has no reading.
    """
    from speecheq.dataset.phones import english, mandarin

    symbols = [symbol for number, symbol in enumerate(table.symbols) if number != table.pause]
    try:
        if symbols == mandarin.TABLE.symbols:
            return mandarin.text_to_words(text)
        if symbols == english.TABLE.symbols:
            return english.Reader().words(text)
    except NoPhones as refused:
        raise InputError(f"the text cannot be turned into phones: {refused}.") from refused
    raise InputError("the model's units are no phones of Mandarin or English, so there is nothing to align.")


class Aligner:
    """A trained model that aligns texts to recordings. Raises InputError for a model that cannot."""

    def __init__(self, model: TrainedModel, only_first: bool = False):
        if not model.labels.phones:
            raise InputError("the model was not trained on phones: choose one that was.")
        if not isinstance(model, TorchModel):
            raise InputError("an ONNX model cannot align: take the checkpoint or model folder that it was made of.")
        if model.cmvn == "speaker":
            raise InputError("a model that is normalised by speaker (data.cmvn speaker) cannot align recordings.")
        self.model, self.table, self.only_first = model, PhoneTable(model.labels.phones), only_first

    def __call__(self, samples: np.ndarray, text: str) -> Alignment:
        """Align ``text`` to samples (S,) at 16 kHz. Raises InputError where that is not possible."""
        words = words_of_text(text, self.table)
        if self.only_first:
            words = [Word(word.text, word.pronunciations[:1]) for word in words]
        encoded = as_words([[self.table.encode(phones) for phones in word.pronunciations] for word in words])
        log_probs = self._log_probs(samples)
        graph = ctc_graph(encoded, self.table.pause)
        seconds = len(samples) / 16000
        try:
            spans, total = best_path(log_probs, graph)
        except ValueError as error:
            raise InputError(f"{error}: the recording of {seconds:.2f} s is too short for its text.") from error
        numbers = word_of_each(encoded, [label for label, _, _ in spans], self.table.pause)
        frame = seconds / len(log_probs)
        labels = [self.table.symbols[label] for label, _, _ in spans]
        times = [(start * frame, end * frame) for _, start, end in spans]
        phones = without_gaps(labels, times, numbers, seconds, self.table.symbols[BLANK])
        return Alignment(phones, [word.text for word in words], seconds, total / len(log_probs))

    def _log_probs(self, samples: np.ndarray) -> np.ndarray:
        """Log probabilities (T, phones) of one recording."""
        lengths = torch.tensor([len(samples)])
        inference = self.model.inference[True]
        with torch.inference_mode():
            waveform = torch.from_numpy(samples)[None].to(self.model.device)
            features, frames = self.model.extractor(waveform, lengths)
            tensors: dict[str, Tensor] = dict(zip(inference.outputs, inference(features, frames)))
            logits = tensors[PHONES][0, : int(tensors[PHONE_FRAMES][0])]
            return torch.log_softmax(logits.cpu().double(), dim=1).numpy()


def without_gaps(
    labels: Sequence[str],
    times: Sequence[tuple[float, float]],
    words: Sequence[int | None],
    seconds: float,
    silence: str,
) -> list[AlignedPhone]:
    """Phones that touch: gaps within words and short ones between are divided, others are ``silence``.

    ``labels``, their ``times`` (start, end) in seconds and the numbers of their ``words`` (None: a pause) are those of
    a path; a pause takes the gaps beside it.
    """
    found: list[AlignedPhone] = []
    for label, (start, end), word in zip(labels, times, words):
        phone = AlignedPhone(silence if word is None else label, start, end, word)
        before = found[-1] if found else None
        gap = start - (before.end if before else 0.0)
        if before is None:
            if gap > LONGEST_GAP and word is not None:
                found.append(AlignedPhone(silence, 0.0, start, None))
            else:
                phone = phone._replace(start=0.0)
        elif word is None:
            phone = phone._replace(start=before.end)
        elif before.word is None:
            found[-1] = before._replace(end=start)
        elif before.word == word or gap <= LONGEST_GAP:
            middle = before.end + gap / 2
            found[-1], phone = before._replace(end=middle), phone._replace(start=middle)
        else:
            found.append(AlignedPhone(silence, before.end, start, None))
        found.append(phone)
    if seconds - found[-1].end > LONGEST_GAP and found[-1].word is not None:
        found.append(AlignedPhone(silence, found[-1].end, seconds, None))
    else:
        found[-1] = found[-1]._replace(end=seconds)
    return found

"""A corpus that stage 1 prepared, as the utterances from which it was made."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lhotse import MonoCut, RecordingSet, SupervisionSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import require
from speecheq.corpora.prepare import Corpus, Utterance

# What a supervision's custom holds besides the facts that a prep script kept as ``extra``.
LABELS = ("corpus", "emotion", "intensity", "esc", "eis", "eis_of_corpus", "split", "text_id", "session")


def load_card(folder: Path, name: str) -> dict:
    """The card of a corpus that stage 1 prepared; InputError where it has not, or where it prepared mere sounds."""
    require(folder, "manifests")
    card = read_json(Path(folder) / f"{name}_card.json")
    if "utterances" not in card:
        raise InputError(f"{folder}: holds sounds (noise, room impulse responses), not utterances of a corpus.")
    return card


def corpus_cuts(manifests: Path, corpus: str, splits: Sequence[str]) -> Iterator[MonoCut]:
    """The cuts of a prepared corpus, one an utterance, without features; read one by one, never all at once."""
    for split in splits:
        recordings = iter(RecordingSet.from_jsonl_lazy(manifests / f"{corpus}_recordings_{split}.jsonl.gz"))
        recording = None
        for supervision in SupervisionSet.from_jsonl_lazy(manifests / f"{corpus}_supervisions_{split}.jsonl.gz"):
            while recording is None or recording.id != supervision.recording_id:  # both are in the same order
                recording = next(recordings, None)
                if recording is None:
                    raise InputError(
                        f"{manifests}: the supervision {supervision.id} has no recording, or they are in another "
                        "order; run stage 1 again."
                    )
            start, duration = supervision.start, supervision.duration
            cut = MonoCut(
                id=supervision.id,
                start=start,
                duration=duration,
                channel=0,
                supervisions=[supervision],
                recording=recording,
            )
            supervision.start = 0.0  # in a cut, times count from its start
            yield cut


def declared(manifests: Path) -> Corpus:
    """The declaration with which the corpus in ``manifests`` was prepared; InputError where stage 1 has not run."""
    return Corpus(**require(manifests, "manifests")["options"]["corpus"])


def iter_utterances(manifests: Path, corpus: Corpus) -> Iterator[tuple[Utterance, float]]:
    """Each utterance with the seconds of its whole recording; texts on one line, as tables hold them."""
    for cut in corpus_cuts(Path(manifests), corpus.name, load_card(manifests, corpus.name)["splits"]):
        supervision, recording = cut.supervisions[0], cut.recording
        if [source.type for source in recording.sources] != ["file"]:
            raise InputError(f"{manifests}: the recording {recording.id} is not one audio file.")
        custom = supervision.custom
        is_level = isinstance(custom["intensity"], str)
        is_whole = recording.id == cut.id and cut.start == 0 and abs(cut.duration - recording.duration) < 1e-6
        yield (
            Utterance(
                id=cut.id,
                audio=Path(recording.sources[0].source),
                speaker=supervision.speaker,
                gender=supervision.gender,
                text=" ".join((supervision.text or "").split()),
                label=custom["emotion"],
                level=custom["intensity"] if is_level else None,
                intensity=None if is_level else custom["intensity"],
                split=custom.get("split"),
                text_id=custom.get("text_id"),
                session=custom.get("session"),
                start=cut.start,
                end=None if is_whole else cut.start + cut.duration,
                recording="" if is_whole else recording.id,
                extra={name: value for name, value in custom.items() if name not in LABELS},
            ),
            recording.duration,
        )

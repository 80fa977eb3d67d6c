"""A corpus that stage 1 prepared: its card, its cuts, and the utterances from which it was made."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lhotse import MonoCut, RecordingSet, SupervisionSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import require
from speecheq.corpora.declaration import Corpus, Utterance

# The keys of a supervision's ``custom`` that are not facts a prep script kept as ``extra``.
LABEL_KEYS = ("corpus", "emotion", "intensity", "esc", "eis", "eis_of_corpus", "split", "text_id", "session")


def load_card(folder: Path, name: str) -> dict[str, Any]:
    """The card of a prepared corpus.

    Raises InputError if stage 1 has not run, or if it prepared a folder of unlabelled audio.
    """
    require(folder, "manifests")
    card = read_json(Path(folder) / f"{name}_card.json")
    if "utterances" not in card:
        raise InputError(f"{folder}: holds sounds (noise, room impulse responses), not utterances of a corpus.")
    return card


def load_declaration(manifests: Path) -> Corpus:
    """The declaration with which the corpus in ``manifests`` was prepared; raises InputError if stage 1 has not run."""
    return Corpus(**require(manifests, "manifests")["options"]["corpus"])


def corpus_cuts(manifests: Path, corpus: str, splits: Sequence[str]) -> Iterator[MonoCut]:
    """The cuts of a prepared corpus, one for each utterance, without features; they are read lazily."""
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
            cut = MonoCut(
                id=supervision.id,
                start=supervision.start,
                duration=supervision.duration,
                channel=0,
                supervisions=[supervision],
                recording=recording,
            )
            supervision.start = 0.0  # in a cut, times count from its start
            yield cut


def iter_utterances(manifests: Path) -> Iterator[tuple[Utterance, float]]:
    """Each utterance of a prepared corpus, and the seconds of its whole recording.

    White space in texts becomes single blanks, so that each is one line.
    """
    name = load_declaration(manifests).name
    for cut in corpus_cuts(Path(manifests), name, load_card(manifests, name)["splits"]):
        supervision, recording = cut.supervisions[0], cut.recording
        if [source.type for source in recording.sources] != ["file"]:
            raise InputError(f"{manifests}: the recording {recording.id} is not one audio file.")
        custom = supervision.custom
        is_level = isinstance(custom["intensity"], str)
        is_whole = recording.id == cut.id and cut.start == 0 and abs(cut.duration - recording.duration) < 1e-6
        utterance = Utterance(
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
            extra={name: value for name, value in custom.items() if name not in LABEL_KEYS},
        )
        yield utterance, recording.duration

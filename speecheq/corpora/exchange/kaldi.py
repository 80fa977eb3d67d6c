"""Kaldi data folders: read as a corpus, and written from a prepared one.

    wav.scp      <recording> <audio file>            utt2emo      <utt> <label>
    segments     <utt> <recording> <start> <end>     utt2int      <utt> <level, or value on the scale>
    utt2spk      <utt> <speaker>                     utt2split    <utt> <train, dev or test>
    spk2gender   <speaker> <f|m>                     utt2session  <utt> <session>
    text         <utt> <words>                       utt2text_id  <utt> <number of a text that many clips speak>

Without ``segments`` an utterance is a whole recording of the same name. ``wav.scp`` and ``utt2spk`` are needed,
``utt2emo`` too where ``labels.yaml`` lists labels.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.files import whole_folder
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Utterance
from speecheq.corpora.exchange.labels_file import LABELS_FILE, LabelsFile, gender, number, prefixed, write_labels_file
from speecheq.corpora.exchange.missing_audio import MACOS_LEFTOVER, MissingAudio
from speecheq.corpora.layout import NamesInAnyForm, as_on_disk, composed, is_macos_leftover, keep_matched, read_lines
from speecheq.corpora.prepared_corpus import iter_utterances, load_declaration

LAYOUT = f"a Kaldi data folder DIR/{{wav.scp,utt2spk,utt2emo,{LABELS_FILE}}}"
# Utterances are renamed <speaker><separator><utt>, with the first of these that sorts utterances and speakers alike.
SEPARATORS = ("-", "!")


def _fields(line: str) -> list[str]:
    """The first field and the rest of a line; only blanks and tabs separate Kaldi's fields, no other white space."""
    return (re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=1) + [""])[:2]


class KaldiFile(dict[str, str]):
    """First field -> rest of each line of a file; empty if the file is not ``needed`` and absent.

    Line numbers are found, all at once, only for a message, since a file may have millions of lines.
    """

    def __init__(self, path: Path, needed: bool = False, may_be_empty: bool = False):
        super().__init__()
        self.path = Path(path)
        self._places: dict[str, str] = {}
        self._written: dict[str, str] = {}
        if not needed and not self.path.is_file():
            return
        for where, line in read_lines(self.path):
            name, rest = _fields(line)
            if not rest and not may_be_empty:
                raise InputError(f"{where}: holds one field, {name!r}, where two are expected.")
            if name in self:
                raise InputError(f"{where}: {name} occurs a second time, first in {self._where(name)}; remove one.")
            self[name] = rest

    def _where(self, name: str) -> str:
        if not self._places:
            for where, line in read_lines(self.path):
                self._places.setdefault(_fields(line)[0], where)
        return self._places[self._written.get(name, name)]

    def name_as(self, known: Collection[str]) -> None:
        """Name the lines as ``known`` does, where accents are composed in one (NFC) and not in the other (NFD)."""
        names = NamesInAnyForm(known)
        for name in list(self):
            other = names.find(name)
            if other not in self:
                self[other] = self.pop(name)
                self._written[other] = name

    def compose(self) -> None:
        """Compose the accents of what the lines say of their names: one speaker in two forms would be two."""
        for name, rest in self.items():
            self[name] = composed(rest)

    def fault(self, name: str, problem: Any) -> InputError:
        """The error to raise for the line of ``name``."""
        return InputError(f"{self._where(name)}: {problem}.")

    def refuse_others(self, known: set[str], what: str) -> None:
        """Raise InputError if a line is for none of ``known``: the files then do not belong together."""
        for name in self:
            if name not in known:
                raise self.fault(name, f"{name} is not one of the {what}; the folder's files do not belong together")


def _is_command(path: str) -> bool:
    return path.endswith("|")


def _command_fault(scp: KaldiFile, name: str) -> InputError:
    return scp.fault(
        name,
        f"{name} is the output of a command, which is not run here; convert the recordings to audio files (wav or "
        "flac) and name those",
    )


def _audio_files(scp: KaldiFile) -> dict[str, Path]:
    """Recording -> audio file, of those that are no commands.

    Relative paths start from the folder, or from the nearest one above with such a file.
    """
    paths = {name: path for name, path in scp.items() if not _is_command(path)}
    first = next(iter(paths.values()), "")
    folder = scp.path.parent.resolve()
    base = next((above for above in (folder, *folder.parents) if os.path.isfile(as_on_disk(above / first))), folder)
    return {name: base / path for name, path in paths.items()}


class Segment(NamedTuple):
    """Where an utterance is: ``start`` and ``end`` in seconds, None for the end of the recording."""

    recording: str
    start: float = 0.0
    end: float | None = None


def _read_segment(segments: KaldiFile, name: str, recordings: NamesInAnyForm) -> Segment:
    """The line of the utterance ``name``; raises InputError if it cannot be."""
    fields = segments[name].split()
    if len(fields) != 3:
        raise segments.fault(name, f"expected <utt> <recording> <start> <end>, found {len(fields) + 1} fields")
    recording, start, end = fields
    recording = recordings.find(recording)
    if recording not in recordings.known:
        raise segments.fault(name, f"the recording {recording} is not in wav.scp")
    try:
        begins, ends = number(start), number(end)
    except ValueError as error:
        raise segments.fault(name, error) from error
    if begins < 0 or ends != -1 and ends <= begins:
        raise segments.fault(name, f"the segment from {start} to {end} s is empty or begins before 0")
    return Segment(recording, begins, None if ends == -1 else ends)


def _read_segments(segments: KaldiFile, audio: dict[str, Path]) -> dict[str, Segment]:
    """Utterance -> segment; without a file ``segments`` each recording of ``audio`` is one."""
    recordings = NamesInAnyForm(audio)
    found = {name: _read_segment(segments, name, recordings) for name in segments}
    return found or {name: Segment(name) for name in audio}


def iter_segments(folder: Path) -> Iterator[tuple[str, Path, float, float | None] | InputError]:
    """The utterances of a Kaldi data folder, for which it needs no labels.

    Yields name, audio file, start and end in seconds (None for the end of the file), or an InputError in the place of
    an utterance whose line in ``segments`` cannot be, or whose recording is the output of a command.
    """
    scp, segments = KaldiFile(Path(folder) / "wav.scp", needed=True), KaldiFile(Path(folder) / "segments")
    audio, recordings = _audio_files(scp), NamesInAnyForm(scp)
    for name in segments or scp:
        try:
            segment = _read_segment(segments, name, recordings) if segments else Segment(name)
            if segment.recording not in audio:
                raise _command_fault(scp, segment.recording)
        except InputError as error:
            yield error
        else:
            yield name, audio[segment.recording], segment.start, segment.end


class _DataFolder:
    """The files of a Kaldi data folder. Those that do not belong together are an InputError."""

    def __init__(self, folder: Path, labels: LabelsFile) -> None:
        self.labels = labels
        self.scp = KaldiFile(folder / "wav.scp", needed=True)
        self.speakers = KaldiFile(folder / "utt2spk", needed=True)
        self.emotions = KaldiFile(folder / "utt2emo", needed=bool(labels.corpus.labels))
        self.genders = KaldiFile(folder / "spk2gender")
        self.texts = KaldiFile(folder / "text", may_be_empty=True)
        for name, path in self.scp.items():
            if _is_command(path):
                raise _command_fault(self.scp, name)
        self.audio = _audio_files(self.scp)
        segments = KaldiFile(folder / "segments")
        self.has_segments = bool(segments)
        self.segments = _read_segments(segments, self.audio)
        self.listed = segments.path if segments else self.scp.path
        self.facts = {key: KaldiFile(folder / f"utt2{key}") for key in ("int", "split", "session", "text_id")}
        for file in (self.speakers, self.emotions, self.texts, *self.facts.values()):
            file.name_as(self.segments)
        for file in (self.texts, *self.facts.values()):
            file.refuse_others(set(self.segments), "utterances")
        for file in (self.speakers, self.facts["session"], self.facts["text_id"]):
            file.compose()
        self.genders.name_as(set(self.speakers.values()))

    def names(self, partial: bool, drops: Drops) -> list[str]:
        """The utterances that have a speaker and a label, if there are labels; the others are added to ``drops``."""
        leftovers = {name for name, each in self.segments.items() if is_macos_leftover(self.audio[each.recording])}
        for name in sorted(leftovers):
            drops.add(MACOS_LEFTOVER, name)
        clips, speakers, emotions = (
            [name for name in file if name not in leftovers] for file in (self.segments, self.speakers, self.emotions)
        )
        kept = keep_matched(clips, speakers, self.speakers.path, self.listed, partial, drops, "speaker")
        self.genders.refuse_others(set(self.speakers.values()), "speakers of utt2spk")
        if self.emotions:
            kept &= keep_matched(sorted(kept), emotions, self.emotions.path, self.listed, partial, drops, "label")
        return sorted(kept)

    def label(self, name: str) -> str | None:
        """The label of the utterance ``name``; raises InputError for one that labels.yaml does not list."""
        label = self.emotions.get(name)
        try:
            return None if label is None else self.labels.label(label)
        except ValueError as error:
            raise self.emotions.fault(name, error) from error

    def split(self, name: str) -> str | None:
        """The official part of the utterance ``name``, None where it has none or labels.yaml leaves it out."""
        splits = self.facts["split"]
        try:
            return self.labels.split(splits[name], splits.values) if name in splits else None
        except ValueError as error:
            raise splits.fault(name, error) from error

    def utterance(self, name: str, label: str | None) -> Utterance:
        """The utterance ``name``; raises InputError, which names the file and the line of a value that cannot be."""
        segment, speaker = self.segments[name], self.speakers[name]
        corpus, intensities = self.labels.corpus.name, self.facts["int"]
        try:
            level, intensity = self.labels.intensity(intensities.get(name, ""))
        except ValueError as error:
            raise intensities.fault(name, error) from error
        try:
            sex = gender(self.genders.get(speaker, ""))
        except ValueError as error:
            raise self.genders.fault(speaker, error) from error
        return Utterance(
            id=prefixed(corpus, name),
            audio=self.audio[segment.recording],
            speaker=speaker,
            gender=sex,
            text=self.texts.get(name, ""),
            label=label,
            level=level,
            intensity=intensity,
            split=self.split(name),
            session=self.facts["session"].get(name),
            text_id=self.facts["text_id"].get(name),
            start=segment.start,
            end=segment.end,
            recording=prefixed(corpus, segment.recording) if self.has_segments else "",
            source=f"{self.listed}, utterance {name}",
        )


def find_utterances(folder: Path, labels: LabelsFile, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The utterances of a Kaldi data folder; those to leave out are added to ``drops``.

    Raises InputError for files that do not belong together, and where all audio is missing.
    """
    data = _DataFolder(Path(folder), labels)
    missing, found = MissingAudio(data.scp.path), 0
    for name in data.names(partial, drops):
        recording = data.segments[name].recording
        data.audio[recording] = as_on_disk(data.audio[recording])
        if not os.path.isfile(data.audio[recording]):
            if not partial:
                raise data.scp.fault(
                    recording,
                    f"there is no file {data.audio[recording]}; complete the copy, or accept what is there with "
                    "--partial true",
                )
            drops.add("audio missing", name)
            missing.add(data.audio[recording])
            continue
        found += 1
        label = data.label(name)
        if label in labels.left_out:
            drops.add(f"{LABELS_FILE} leaves the label {label} out", name)
        elif name in data.facts["split"] and data.split(name) is None:
            drops.add(f"{LABELS_FILE} leaves the split {data.facts['split'][name]} out", name)
        else:
            yield data.utterance(name, label)
    missing.check(found)


def _in_one_order(names: list[str], speakers: list[str]) -> bool:
    """Whether sorting by utterance sorts the speakers too, which Kaldi's tools ask of utt2spk."""
    ordered = [speaker.encode() for _, speaker in sorted(zip([name.encode() for name in names], speakers))]
    return ordered == sorted(ordered)


def _kaldi_names(names: list[str], speakers: list[str]) -> list[str]:
    """The utterances' names, with their speakers before them only where Kaldi's order asks for it."""
    if _in_one_order(names, speakers):
        return names
    for separator in SEPARATORS:
        renamed = [f"{speaker}{separator}{name}" for name, speaker in zip(names, speakers)]
        if _in_one_order(renamed, speakers):
            log.info(
                "utterances are named <speaker>%s<utt>, since Kaldi asks for one order of utterances and speakers",
                separator,
            )
            return renamed
    raise InputError(
        "the speakers' names cannot be brought into the order that Kaldi asks for (one begins like another and goes on "
        "with '!'); export a table instead."
    )


def _data_files(utterances: list[tuple[Utterance, float]]) -> dict[str, dict[str, str]]:
    """File -> first field -> rest, of utterances with the seconds of their recordings."""
    names = _kaldi_names([utterance.id for utterance, _ in utterances], [one.speaker for one, _ in utterances])
    has_segments = any(utterance.recording for utterance, _ in utterances)
    has_texts = any(utterance.text for utterance, _ in utterances)
    files: dict[str, dict[str, str]] = {}

    def add(file: str, name: str, value: str | None) -> None:
        if value is not None and value != "":
            files.setdefault(file, {})[name] = value

    for name, (utterance, seconds) in zip(names, utterances):
        recording = utterance.recording_id if has_segments else name
        add("wav.scp", recording, str(utterance.audio))
        add("reco2dur", recording, f"{seconds:.6f}")
        if has_segments:
            end = seconds if utterance.end is None else utterance.end
            add("segments", name, f"{recording} {utterance.start:.6f} {end:.6f}")
        add("utt2spk", name, utterance.speaker)
        add("spk2gender", utterance.speaker, utterance.gender and utterance.gender.lower())
        add("utt2emo", name, utterance.label)
        add("utt2int", name, utterance.level if utterance.intensity is None else repr(utterance.intensity))
        for key in ("split", "session", "text_id"):
            add(f"utt2{key}", name, getattr(utterance, key))
        if has_texts:  # Kaldi asks for all utterances, also those whose text is empty
            files.setdefault("text", {})[name] = utterance.text
    by_speaker: dict[str, list[str]] = {}
    for name, speaker in sorted(files["utt2spk"].items()):
        by_speaker.setdefault(speaker, []).append(name)
    files["spk2utt"] = {speaker: " ".join(members) for speaker, members in by_speaker.items()}
    return files


def _warn_of_gaps(folder: Path, files: dict[str, dict[str, str]], utterances: list[Utterance]) -> None:
    """Warn of what Kaldi's files cannot hold, and of what Kaldi's tools will miss."""
    without = sorted(set(files["spk2utt"]) - set(files.get("spk2gender", files["spk2utt"])))
    if without:
        log.warning(
            "%s: spk2gender, in which Kaldi's tools ask for all speakers, lacks those of unknown gender: %s",
            folder,
            ", ".join(without),
        )
    left_behind = sorted({fact for utterance in utterances for fact in utterance.extra or {}})
    if left_behind:
        log.warning(
            "%s: Kaldi has no file for these facts of clips, which are not exported: %s", folder, ", ".join(left_behind)
        )
    other = sum(Path(utterance.audio).suffix.lower() != ".wav" for utterance in utterances)
    if other:
        log.warning("%s: %d utterances are not in wav files, which Kaldi reads only through a command", folder, other)


def export_kaldi(manifests: Path, folder: Path) -> None:
    """Write the prepared corpus in ``manifests`` as a Kaldi data folder, with the ``labels.yaml`` to read it back.

    Files are sorted in the C locale. Facts that Kaldi has no file for (``extra``) are not exported; a warning lists
    them. Raises InputError if ``folder`` is not empty, or if a name holds blanks, which end a field in Kaldi's files.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; name a new one for the Kaldi files.")
    corpus = load_declaration(manifests)
    found = list(iter_utterances(manifests))
    utterances = [utterance for utterance, _ in found]
    for utterance in utterances:
        for name in (utterance.id, utterance.speaker, utterance.recording_id):
            if not name or re.search(r"\s", name):
                raise InputError(
                    f"{manifests}: the name {name!r} holds blanks, which Kaldi's files cannot; export a table instead."
                )
    files = _data_files(found)
    _warn_of_gaps(folder, files, utterances)
    with whole_folder(folder) as temporary:
        for file, lines in files.items():
            with open(temporary / file, "wb") as stream:
                for line in sorted(f"{name} {rest}".rstrip(" ").encode() + b"\n" for name, rest in lines.items()):
                    stream.write(line)
        write_labels_file(corpus, temporary / LABELS_FILE)
    log.info("%s: %d utterances of %s -> %s", corpus.name, len(utterances), corpus.title, folder)

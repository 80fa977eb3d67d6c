"""Kaldi data folders: read as a corpus, and written from a prepared one.

    wav.scp      <recording> <audio file>            utt2emo      <utt> <label>
    segments     <utt> <recording> <start> <end>     utt2int      <utt> <level, or value on the scale>
    utt2spk      <utt> <speaker>                     utt2split    <utt> <official part>
    spk2gender   <speaker> <f|m>                     utt2session  <utt> <session>
    text         <utt> <words>                       utt2text_id  <utt> <number of a text that many clips speak>

Without ``segments`` an utterance is a whole recording of the same name. ``wav.scp`` and ``utt2spk`` are needed,
``utt2emo`` too where ``labels.yaml`` names labels.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import whole_folder
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.exchange.labels_file import LABELS_FILE, Declaration, gender, number, prefixed, write_declaration
from speecheq.corpora.prepare import Utterance, keep_matched, read_lines
from speecheq.corpora.prepared_corpus import declared, iter_utterances

LAYOUT = f"a Kaldi data folder DIR/{{wav.scp,utt2spk,utt2emo,{LABELS_FILE}}}"
# Speakers are put before utterances with the first of these that leaves both in one order.
SEPARATORS = ("-", "!")


def _fields(line: str) -> list[str]:
    """The first field and the rest; Kaldi's separators are blanks and tabs, not other white space of Unicode."""
    return (re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=1) + [""])[:2]


class KaldiFile(dict[str, str]):
    """The lines of one file: the first field -> the rest. Empty where the file may be absent and is.

    Where a line stands is looked up only for a message: a folder may have millions.
    """

    def __init__(self, path: Path, needed: bool = False, may_be_empty: bool = False):
        super().__init__()
        self.path = Path(path)
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
        return next(where for where, line in read_lines(self.path) if _fields(line)[0] == name)

    def fault(self, name: str, problem: Any) -> InputError:
        """What is wrong with the line of ``name``."""
        return InputError(f"{self._where(name)}: {problem}.")

    def refuse_others(self, known: set[str], what: str) -> None:
        """InputError where a line is of nothing known: the files then do not belong together."""
        for name in self:
            if name not in known:
                raise self.fault(name, f"{name} is not one of the {what}; the folder's files do not belong together")


def _audio_files(scp: KaldiFile) -> dict[str, Path]:
    """Recording -> audio file; relative names are those of the folder or of the nearest folder above that has them."""
    for name, path in scp.items():
        if path.endswith("|"):
            raise scp.fault(
                name,
                f"{name} is the output of a command, which is not run here; convert the recordings to audio "
                "files (wav or flac) and name those",
            )
    first = next(iter(scp.values()), "")
    folder = scp.path.parent.resolve()
    base = next((above for above in (folder, *folder.parents) if os.path.isfile(above / first)), folder)
    return {name: base / path for name, path in scp.items()}


Part = tuple[str, float, float | None]


def _segments(segments: KaldiFile, audio: dict[str, Path]) -> dict[str, Part]:
    """Utterance -> (recording, start, end in seconds or None for the end of the recording)."""
    parts: dict[str, Part] = {}
    for name, rest in segments.items():
        fields = rest.split()
        if len(fields) != 3:
            raise segments.fault(name, f"expected <utt> <recording> <start> <end>, found {len(fields) + 1} fields")
        recording, start, end = fields
        if recording not in audio:
            raise segments.fault(name, f"the recording {recording} is not in wav.scp")
        try:
            begins, ends = number(start), number(end)
        except ValueError as error:
            raise segments.fault(name, error) from error
        if begins < 0 or ends != -1 and ends <= begins:
            raise segments.fault(name, f"the segment from {start} to {end} s is empty or begins before 0")
        parts[name] = (recording, begins, None if ends == -1 else ends)
    return parts


def recordings_of(folder: Path) -> Iterator[tuple[str, Path, float, float | None]]:
    """(name, audio file, start, end in seconds or None) of each utterance of a Kaldi data folder, no labels needed."""
    audio = _audio_files(KaldiFile(Path(folder) / "wav.scp", needed=True))
    segments = _segments(KaldiFile(Path(folder) / "segments"), audio)
    for name, (recording, start, end) in (segments or {name: (name, 0.0, None) for name in audio}).items():
        yield name, audio[recording], start, end


def find_utterances(folder: Path, declaration: Declaration, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The utterances of a Kaldi data folder; those without speaker or label are counted and left out."""
    folder, corpus = Path(folder), declaration.corpus
    scp, speakers = KaldiFile(folder / "wav.scp", needed=True), KaldiFile(folder / "utt2spk", needed=True)
    emotions = KaldiFile(folder / "utt2emo", needed=bool(corpus.labels))
    genders, texts = KaldiFile(folder / "spk2gender"), KaldiFile(folder / "text", may_be_empty=True)
    audio = _audio_files(scp)
    parts = _segments(KaldiFile(folder / "segments"), audio)
    listed = folder / ("segments" if parts else "wav.scp")
    parts = parts or {name: (name, 0.0, None) for name in audio}
    facts = {key: KaldiFile(folder / f"utt2{key}") for key in ("int", "split", "session", "text_id")}
    for file in (texts, *facts.values()):
        file.refuse_others(set(parts), "utterances")

    kept = keep_matched(list(parts), list(speakers), speakers.path, listed, partial, drops, "speaker")
    genders.refuse_others(set(speakers.values()), "speakers of utt2spk")
    if emotions:
        kept &= keep_matched(sorted(kept), list(emotions), emotions.path, listed, partial, drops, "label")
    for name in sorted(kept):
        recording, start, end = parts[name]
        if not os.path.isfile(audio[recording]):
            if not partial:
                raise scp.fault(
                    recording,
                    f"there is no file {audio[recording]}; complete the copy, or accept what is "
                    "there with --partial true",
                )
            drops.add("audio missing", name)
            continue
        label = emotions.get(name)
        try:
            if label is not None:
                declaration.check_label(label)
        except ValueError as error:
            raise emotions.fault(name, error) from error
        if label in declaration.left_out:
            drops.add(f"{LABELS_FILE} leaves the label {label} out", name)
            continue
        try:
            level, intensity = declaration.intensity(facts["int"].get(name, ""))
        except ValueError as error:
            raise facts["int"].fault(name, error) from error
        try:
            sex = gender(genders.get(speakers[name], ""))
        except ValueError as error:
            raise genders.fault(speakers[name], error) from error
        yield Utterance(
            id=prefixed(corpus.name, name),
            audio=audio[recording],
            speaker=speakers[name],
            gender=sex,
            text=texts.get(name, ""),
            label=label,
            level=level,
            intensity=intensity,
            split=facts["split"].get(name),
            session=facts["session"].get(name),
            text_id=facts["text_id"].get(name),
            start=start,
            end=end,
            recording=prefixed(corpus.name, recording) if listed.name == "segments" else "",
            source=f"{listed}, utterance {name}",
        )


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


def export_kaldi(manifests: Path, folder: Path) -> None:
    """Write the prepared corpus in ``manifests`` as a Kaldi data folder, with the ``labels.yaml`` to read it back.

    Files are sorted in the C locale. Facts that Kaldi has no file for (``extra``) stay behind and are named.
    InputError where ``folder`` holds something, or where a name holds blanks, which for Kaldi end a field.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; name a new one for the Kaldi files.")
    corpus = declared(manifests)
    found = list(iter_utterances(manifests, corpus))
    utterances = [utterance for utterance, _ in found]
    for utterance in utterances:
        for name in (utterance.id, utterance.speaker, utterance.recording or utterance.id):
            if not name or re.search(r"\s", name):
                raise InputError(
                    f"{manifests}: the name {name!r} holds blanks, which Kaldi's files cannot; export a table instead."
                )
    names = _kaldi_names([utterance.id for utterance in utterances], [utterance.speaker for utterance in utterances])
    in_parts = any(utterance.recording for utterance in utterances)
    files: dict[str, dict[str, str]] = {}

    def say(file: str, name: str, value: str | None) -> None:
        if value is not None and value != "":
            files.setdefault(file, {})[name] = value

    for name, (utterance, seconds) in zip(names, found):
        recording = (utterance.recording or utterance.id) if in_parts else name
        say("wav.scp", recording, str(utterance.audio))
        say("reco2dur", recording, f"{seconds:.6f}")
        if in_parts:
            end = seconds if utterance.end is None else utterance.end
            say("segments", name, f"{recording} {utterance.start:.6f} {end:.6f}")
        say("utt2spk", name, utterance.speaker)
        say("spk2gender", utterance.speaker, utterance.gender and utterance.gender.lower())
        say("utt2emo", name, utterance.label)
        say("utt2int", name, utterance.level if utterance.intensity is None else repr(utterance.intensity))
        for key in ("split", "session", "text_id"):
            say(f"utt2{key}", name, getattr(utterance, key))
    if any(utterance.text for utterance in utterances):  # of all utterances, as Kaldi asks, also where some say nothing
        files["text"] = {name: utterance.text for name, utterance in zip(names, utterances)}
    by_speaker: dict[str, list[str]] = {}
    for name, speaker in sorted(files["utt2spk"].items()):
        by_speaker.setdefault(speaker, []).append(name)
    files["spk2utt"] = {speaker: " ".join(members) for speaker, members in by_speaker.items()}
    without = sorted(set(by_speaker) - set(files.get("spk2gender", by_speaker)))
    if without:
        log.warning(
            "%s: spk2gender, in which Kaldi's tools ask for all speakers, lacks those of unknown gender: %s",
            folder,
            ", ".join(without),
        )
    left_behind = sorted({fact for utterance in utterances for fact in utterance.extra})
    if left_behind:
        log.warning(
            "%s: Kaldi has no file for these facts of clips, which stay behind: %s", folder, ", ".join(left_behind)
        )
    other = sum(utterance.audio.suffix.lower() != ".wav" for utterance in utterances)
    if other:
        log.warning("%s: %d utterances are not in wav files, which Kaldi reads only through a command", folder, other)
    with whole_folder(folder) as temporary:
        for file, lines in files.items():
            with open(temporary / file, "wb") as stream:
                for line in sorted(f"{name} {rest}".rstrip(" ").encode() + b"\n" for name, rest in lines.items()):
                    stream.write(line)
        write_declaration(corpus, temporary / LABELS_FILE)
    log.info("%s: %d utterances of %s -> %s", corpus.name, len(utterances), corpus.title, folder)

#!/usr/bin/env python3
"""LibriSpeech (SLR12): read English speech with transcripts, the phoneme data of Experiment 2 (section 3.1)."""

from collections.abc import Iterator
from pathlib import Path

from speecheq.common.log import one_line
from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    iter_clips,
    iter_folders,
    keep_matched,
    log,
    read_lines,
    run,
)

# Utterances of each subset. They are downloaded one by one, so any set of whole subsets is a whole copy.
SUBSETS = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}
LIBRISPEECH = Corpus(
    name="librispeech",
    title="LibriSpeech",
    language="English",
    layout="DIR/[LibriSpeech/]<subset>/<speaker>/<chapter>/{<speaker>-<chapter>-<number>.flac,*.trans.txt}",
    splits=("train", "dev", "test"),
    test_split="test",
    has_transcripts=True,
)


def read_genders(path: Path) -> dict[str, str]:
    """Speaker -> F or M from SPEAKERS.TXT; lines are ``ID | SEX | SUBSET | MINUTES | NAME``, comments begin with ;."""
    if not path.is_file():
        log.warning("LibriSpeech: %s is missing, so no gender is known", path)
        return {}
    genders: dict[str, str] = {}
    # Latin-1 takes any bytes: only names are not ASCII, and they are not used
    for where, line in read_lines(path, ("utf-8", "latin-1")):
        if line.startswith(";"):
            continue
        fields = [value.strip() for value in line.split("|", 4)]  # a name may hold a |
        if len(fields) != 5 or not fields[0] or fields[1] not in ("F", "M"):
            raise InputError(f"{where}: expected '<speaker> | F or M | <subset> | <minutes> | <name>', found {line!r}.")
        if genders.setdefault(fields[0], fields[1]) != fields[1]:
            raise InputError(
                f"{where}: the speaker {one_line(fields[0])} is {fields[1]} here and {genders[fields[0]]} above."
            )
    return genders


def read_transcripts(path: Path, chapter: str) -> dict[str, str]:
    """Utterance -> text from a *.trans.txt; ``chapter`` is ``<speaker>-<chapter>``, with which utterances begin."""
    transcripts: dict[str, str] = {}
    for where, line in read_lines(path):
        name, *text = line.split(maxsplit=1)
        if not text:
            raise InputError(f"{where}: expected '<utterance> <text>', found {line!r}.")
        if not name.startswith(f"{chapter}-"):
            raise InputError(f"{where}: the utterance {name!r} is not of the chapter {chapter}.")
        if name in transcripts:
            raise InputError(f"{where}: the utterance {name} occurs a second time.")
        transcripts[name] = text[0].strip()
    return transcripts


def read_subset(subset: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Utterance -> audio file, and utterance -> text, of all chapters of a subset."""
    clips: dict[str, Path] = {}
    transcripts: dict[str, str] = {}
    for speaker in iter_folders(subset):
        for folder in iter_folders(speaker):
            chapter = f"{speaker.name}-{folder.name}"
            for clip in iter_clips(folder, ".flac"):
                if not clip.stem.startswith(f"{chapter}-"):
                    raise InputError(f"{clip}: is not of the chapter {chapter}; move it to its own.")
                clips[clip.stem] = clip
            table = folder / f"{chapter}.trans.txt"
            if table.is_file():
                transcripts.update(read_transcripts(table, chapter))
    return clips, transcripts


def holds_subsets(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in SUBSETS)


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """Clips with a transcript of the subsets that are there, each held against its official count."""
    root = find_root(corpus_dir, lambda path: holds_subsets(path / "LibriSpeech") or holds_subsets(path), LIBRISPEECH)
    root = root / "LibriSpeech" if holds_subsets(root / "LibriSpeech") else root
    for folder in iter_folders(root):
        if folder.name.partition("-")[0] in LIBRISPEECH.splits and folder.name not in SUBSETS:
            raise InputError(f"{folder}: is not a subset of LibriSpeech ({', '.join(SUBSETS)}); remove the folder.")
    genders = read_genders(root / "SPEAKERS.TXT")
    absent = [subset for subset in SUBSETS if not (root / subset).is_dir()]
    if absent:
        log.info("LibriSpeech: without %s, which %s does not hold", ", ".join(absent), root)
    for subset, official in SUBSETS.items():
        if subset in absent:
            continue
        folder = root / subset
        clips, transcripts = read_subset(folder)
        tables = folder / "*" / "*" / "*.trans.txt"
        matched = keep_matched(list(clips), list(transcripts), tables, folder, partial, drops, "transcript")
        if len(matched) != official:
            found = (
                f"{len(matched)} utterances found ({len(clips)} clips, {len(transcripts)} transcripts), {subset} has "
                f"{official}"
            )
            if not partial:
                raise InputError(f"{folder}: {found}; complete the subset, or accept it as it is with --partial true.")
            log.warning("LibriSpeech: a partial copy, %s", found)
        for name in sorted(matched):
            speaker = name.partition("-")[0]
            yield Utterance(
                id=name,
                audio=clips[name],
                speaker=speaker,
                gender=genders.get(speaker),
                text=transcripts[name],
                split=subset.partition("-")[0],
                extra={"subset": subset},
            )


if __name__ == "__main__":
    run(LIBRISPEECH, find_utterances)

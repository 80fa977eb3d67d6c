"""Stage 2: the features of a corpus, computed once and stored in archives.

    OUT_DIR/cuts.jsonl.gz            the cuts of the corpus, with their features
    OUT_DIR/parts-<key>/00000.lca    an archive with the features of a part, CUTS_A_PART cuts
    OUT_DIR/parts-<key>/00000.jsonl.gz, 00000.json    the cuts of the part, and the sizes of its two files

A part is done if its file of sizes exists and is correct; an interrupted run continues with the other parts. What is
computed is a ``FeatureSet``: filter banks here, the states of a pretrained encoder in encoder_states.py.
"""

import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, MonoCut
from lhotse.features.io import LilcomChunkyWriter, MemoryLilcomReader

from speecheq.common.errors import InputError
from speecheq.common.files import (
    folder_in_use,
    make_parent,
    note_sizes,
    remove_leftovers,
    sizes_are_as_noted,
    whole_file,
    write_fault_is_an_input_error,
)
from speecheq.common.log import log
from speecheq.common.process_pool import in_processes
from speecheq.common.progress import Progress
from speecheq.common.stages import Drops, Stage, require
from speecheq.corpora.prepared_corpus import corpus_cuts, load_card
from speecheq.features.audio import load_waveform, resampler_name
from speecheq.features.fbank import Fbank, FbankConfig
from speecheq.features.speech_activity import LEAST_SPEECH, NONE, SECONDS_KEY, speech_cut

# Values are stored as multiples of 2**-10, which keeps them within 0.0005 at 1.8 bytes a value.
TICK_POWER = -10
# The storage types of archives and of shards.
STORED_AS = (LilcomChunkyWriter.name, MemoryLilcomReader.name)
CUTS_A_PART = 250
FORMAT = 1


def load_features(cut: MonoCut) -> torch.Tensor:
    """The stored features (T, D) of a cut, as float32.

    Raises InputError if they cannot be read (the archive is gone or damaged) or have another storage type.
    """
    if cut.features.storage_type not in STORED_AS:  # other types unpickle, or download
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} have the storage type {cut.features.storage_type}, "
            "which stage 2 does not write; run it again."
        )
    try:
        features = cut.load_features()
    except Exception as error:  # lilcom, the file system and lhotse raise different ones
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        again = "run stage 2" if cut.features.storage_type == LilcomChunkyWriter.name else "remove it and run stage 3"
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} cannot be read ({reason}); {again} again."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


class FeatureSet(ABC):
    """What stage 2 computes of a corpus; passed to processes, so it holds settings only."""

    suffix: str  # of the archives

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """All that changes the stored values, for the stage's key."""

    @abstractmethod
    def extract(self, cuts: list[MonoCut], archive: Path) -> None:
        """Write the features of ``cuts`` to ``archive`` and refer to them in the cuts, which may be shortened."""

    def check(self, corpus: str, seconds: float, out_dir: Path) -> None:  # noqa: B027
        """Called before about ``seconds`` of audio of a corpus are computed; may raise InputError."""

    def report(self, corpus: str, cuts: CutSet) -> None:  # noqa: B027
        """Called with all cuts when the last is computed; may log what users should know."""

    def uses_processes(self) -> bool:
        """Whether several processes are faster than one."""
        return True


@dataclass(frozen=True)
class FbankSet(FeatureSet):
    """The filter banks of section 3.2, as lhotse features in lilcom archives."""

    speech_activity: str = NONE  # one of SPEECH_ACTIVITIES
    config = FbankConfig()
    suffix = ".lca"

    def options(self) -> dict[str, Any]:
        options = {"fbank": self.config.to_dict(), "tick_power": TICK_POWER}
        if self.speech_activity == NONE:  # features made before there was a choice are those of none
            return options
        return {**options, "speech_activity": self.speech_activity}

    def extract(self, cuts: list[MonoCut], archive: Path) -> None:
        extractor, config = Fbank(self.config), self.config
        with whole_file(archive) as temporary, LilcomChunkyWriter(temporary, tick_power=TICK_POWER) as writer:
            for number, cut in enumerate(cuts):
                cuts[number] = cut = speech_cut(cut, self.speech_activity)
                features = extractor.extract(load_waveform(cut, config.sampling_rate), config.sampling_rate)
                cut.features = Features(
                    type=extractor.name,
                    num_frames=len(features),
                    num_features=features.shape[1],
                    frame_shift=config.frame_shift,
                    sampling_rate=config.sampling_rate,
                    start=cut.start,
                    duration=cut.duration,
                    storage_type=writer.name,
                    storage_path=str(archive.resolve()),
                    storage_key=writer.write(cut.id, features),
                    recording_id=cut.recording.id,
                    channels=0,
                )

    def report(self, corpus: str, cuts: CutSet) -> None:
        """Warn once of the clips that stayed whole because too little speech was found in them."""
        if self.speech_activity == NONE:
            return
        whole = [cut.id for cut in cuts if cut.custom[SECONDS_KEY] < LEAST_SPEECH]
        if whole:
            log.warning(
                "%s: less than %g s of speech was found in %d clips (such as %s), which are used whole",
                corpus,
                LEAST_SPEECH,
                len(whole),
                whole[0],
            )


def _extract_part(cuts: list[MonoCut], feature_set: FeatureSet, archive: Path) -> int:
    """Write the features of ``cuts`` to ``archive`` and their manifest beside it; returns how many."""
    feature_set.extract(cuts, archive)
    manifest = archive.with_suffix(".jsonl.gz")
    with whole_file(manifest) as temporary:
        CutSet.from_cuts(cuts).to_file(temporary)
    # last: it marks the part as done
    note_sizes(_note(archive), (archive, manifest))
    return len(cuts)


def _note(archive: Path) -> Path:
    return archive.with_suffix(".json")


class _CorpusFeatures:
    """Stage 2 of one corpus: its stamp and its parts."""

    def __init__(self, corpus: str, manifests: Path, out_dir: Path, feature_set: FeatureSet, cuts: Path | None) -> None:
        self.corpus, self.feature_set, self.cuts = corpus, feature_set, cuts
        self.manifests, self.out_dir = Path(manifests), Path(out_dir)
        self.card = load_card(self.manifests, corpus)
        options = {"corpus": corpus, **feature_set.options()}
        if set(self.card["counts"]["sampling_rate"]) != {str(FbankConfig.sampling_rate)}:
            options["resampler"] = resampler_name()
        self.stage = Stage("features", corpus, self.out_dir, options, [self.cuts or self.manifests], FORMAT)
        self.parts_dir = self.out_dir / f"parts-{self.stage.key}"

    def archive(self, part: int) -> Path:
        return self.parts_dir / f"{part:05d}{self.feature_set.suffix}"

    def parts(self, numbers: Collection[int] | None) -> Iterator[tuple[Path, list[MonoCut]]]:
        """Yield (archive, its cuts) of the parts with these numbers, or of all; one part is in memory at a time."""
        if self.cuts is None:
            cuts = corpus_cuts(self.manifests, self.corpus, self.card["splits"])
        else:
            cuts = (cut.drop_features() for cut in load_cuts(self.cuts))
        for number in count() if numbers is None else range(max(numbers) + 1):
            part = list(islice(cuts, CUTS_A_PART))
            if not part:
                return
            if numbers is None or number in numbers:
                yield self.archive(number), part

    def missing(self, numbers: Collection[int] | None) -> list[int]:
        """Those of the parts with these numbers, or of all, that are not done."""
        parts = range(math.ceil(self.card["utterances"] / CUTS_A_PART)) if numbers is None else sorted(numbers)
        return [part for part in parts if not sizes_are_as_noted(_note(self.archive(part)))]

    def compute(self, nj: int, numbers: Collection[int] | None) -> list[Path]:
        """Compute the parts with these numbers, or all, unless they are done. Returns their archives."""
        with write_fault_is_an_input_error(self.parts_dir):
            self.parts_dir.mkdir(parents=True, exist_ok=True)
        archives: list[Path] = []
        utterances = self.card["utterances"]
        total = utterances if numbers is None else min(utterances, len(numbers) * CUTS_A_PART)
        left = len(self.missing(numbers)) * CUTS_A_PART / utterances
        self.feature_set.check(self.corpus, min(1.0, left) * self.card["hours"] * 3600, self.out_dir)
        with Progress(f"{self.corpus}: features", total, "clips") as shown:

            def missing() -> Iterator[tuple[list[MonoCut], FeatureSet, Path]]:
                for archive, part in self.parts(numbers):
                    archives.append(archive)
                    if sizes_are_as_noted(_note(archive)):
                        shown.update(len(part))
                    else:
                        yield part, self.feature_set, archive

            nj = 1 if utterances <= CUTS_A_PART else nj
            for cuts in in_processes(_extract_part, missing(), nj, str(self.out_dir)):
                shown.update(cuts)
        return archives

    def finish(self, archives: list[Path]) -> None:
        """Join the manifests of all parts, write the stamp, and remove files of earlier runs."""
        self.stage.invalidate()
        with whole_file(self.out_dir / "cuts.jsonl.gz") as temporary, open(temporary, "wb") as cuts:
            for archive in archives:  # concatenated gzip files are a gzip file
                cuts.write(archive.with_suffix(".jsonl.gz").read_bytes())
        self.feature_set.report(self.corpus, CutSet.from_jsonl_lazy(self.out_dir / "cuts.jsonl.gz"))
        names = [os.path.relpath(archive, self.out_dir) for archive in archives]
        utterances = self.card["utterances"]
        self.stage.finish(self.out_dir, utterances, utterances, Drops(), outputs=["cuts.jsonl.gz", *names])
        for stale in self.out_dir.glob("parts-*"):
            if stale != self.parts_dir:
                shutil.rmtree(stale)
        remove_leftovers(self.parts_dir)


def missing_parts(
    corpus: str, manifests: Path, out_dir: Path, feature_set: FeatureSet = FbankSet(), cuts: Path | None = None
) -> list[int] | None:
    """The numbers, from 0, of the parts that ``compute_features`` would compute; None if the corpus is done."""
    features = _CorpusFeatures(corpus, manifests, out_dir, feature_set, cuts)
    return features.missing(None) if features.stage.needs_run() else None


def compute_features(
    corpus: str,
    manifests: Path,
    out_dir: Path,
    nj: int = 1,
    feature_set: FeatureSet = FbankSet(),
    parts: Collection[int] | None = None,
    cuts: Path | None = None,
) -> None:
    """Stage 2: compute and store the features of a corpus in ``out_dir``, in ``nj`` processes.

    With ``parts`` (numbers from 0) only these parts are computed, so that the jobs of an array share a corpus; a final
    call without ``parts`` joins them. ``cuts`` is the folder of another feature set of the corpus, whose cuts are
    taken; without it they are made of the manifests. Raises InputError if an earlier stage has not run or a recording
    cannot be read.
    """
    features = _CorpusFeatures(corpus, manifests, out_dir, feature_set, cuts)
    if not features.stage.needs_run() or features.stage.added_to_plan():
        return
    nj = nj if feature_set.uses_processes() else 1
    if parts is not None:
        make_parent(features.out_dir)
        # many jobs may compute parts at once, but not beside a full run
        with folder_in_use(features.manifests), folder_in_use(features.out_dir):
            features.compute(nj, parts)
        return
    with features.stage.locked() as is_missing:
        if is_missing:
            features.finish(features.compute(nj, None))


def load_cuts(fbank_dir: Path) -> CutSet:
    """The cuts of a corpus with stored features, read lazily; raises InputError if stage 2 has not run."""
    require(fbank_dir, "features")
    return CutSet.from_jsonl_lazy(Path(fbank_dir) / "cuts.jsonl.gz")

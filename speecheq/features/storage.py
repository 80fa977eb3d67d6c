"""Stage 2: the features of a corpus, computed once and stored in archives."""

import math
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
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
from speecheq.common.process_pool import in_processes
from speecheq.common.progress import Progress
from speecheq.common.stages import Drops, Stage, require
from speecheq.corpora.prepared_corpus import corpus_cuts, load_card
from speecheq.features.audio import load_waveform, resampler_name
from speecheq.features.fbank import Fbank, FbankConfig

# Values are stored as multiples of 2**-10, which keeps them within 0.0005 at 1.8 bytes a value.
TICK_POWER = -10
# Archives, and what was read from a shard.
STORED_AS = (LilcomChunkyWriter.name, MemoryLilcomReader.name)
CUTS_A_PART = 250
# Raised when what this stage writes changes its meaning.
FORMAT = 1


def load_features(cut: MonoCut) -> torch.Tensor:
    """The stored features (T, D) of a cut; InputError where the archive is gone or not whole, or of another kind."""
    if cut.features.storage_type not in STORED_AS:  # others unpickle, or fetch from a network
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} are stored as {cut.features.storage_type}, not as "
            "stage 2 does; run it again."
        )
    try:
        features = cut.load_features()
    except Exception as error:  # lilcom, the file system and lhotse each have their own, lhotse's of many lines
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        again = "run stage 2" if cut.features.storage_type == LilcomChunkyWriter.name else "remove it and run stage 3"
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} cannot be read ({reason}); {again} again."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def _extract_part(cuts: list[MonoCut], config: FbankConfig, archive: Path) -> int:
    """Write the features of ``cuts`` to ``archive`` and their manifest beside it; returns how many."""
    extractor = Fbank(config)
    done = []
    with whole_file(archive) as temporary, LilcomChunkyWriter(temporary, tick_power=TICK_POWER) as writer:
        for cut in cuts:
            samples = load_waveform(cut, config.sampling_rate)
            features = extractor.extract(samples, config.sampling_rate)
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
            done.append(cut)
    with whole_file(archive.with_suffix(".jsonl.gz")) as temporary:
        CutSet.from_cuts(done).to_file(temporary)
    # written last: a part counts as done when this file is there and the sizes in it are right
    note_sizes(_note(archive), (archive, archive.with_suffix(".jsonl.gz")))
    return len(done)


def _archive(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}.lca"


def _note(archive: Path) -> Path:
    return archive.with_suffix(".json")


def _in_parts(
    cuts: Iterable[MonoCut], folder: Path, numbers: Collection[int] | None = None
) -> Iterator[tuple[Path, list[MonoCut]]]:
    """(archive, its cuts), CUTS_A_PART at a time; of the parts with these numbers, or of all."""
    cuts = iter(cuts)
    for number in count() if numbers is None else range(max(numbers) + 1):
        part = list(islice(cuts, CUTS_A_PART))
        if not part:
            return
        if numbers is None or number in numbers:
            yield _archive(folder, number), part


def _stage(corpus: str, manifests: Path, out_dir: Path, card: Mapping[str, Any], config: FbankConfig) -> Stage:
    options = {"corpus": corpus, "fbank": config.to_dict(), "tick_power": TICK_POWER}
    if set(card["counts"]["sampling_rate"]) != {str(config.sampling_rate)}:
        options["resampler"] = resampler_name()
    return Stage("features", corpus, out_dir, options, [manifests], FORMAT)


def missing_parts(corpus: str, manifests: Path, out_dir: Path, config: FbankConfig = FbankConfig()) -> list[int] | None:
    """The numbers, from 0, of the parts that ``compute_features`` would compute; None where the corpus is done."""
    manifests, out_dir = Path(manifests), Path(out_dir)
    card = load_card(manifests, corpus)
    stage = _stage(corpus, manifests, out_dir, card, config)
    if not stage.needs_run():
        return None
    parts = range(math.ceil(card["utterances"] / CUTS_A_PART))
    return [part for part in parts if not sizes_are_as_noted(_note(_archive(out_dir / f"parts-{stage.key}", part)))]


def compute_features(
    corpus: str,
    manifests: Path,
    out_dir: Path,
    nj: int = 1,
    config: FbankConfig = FbankConfig(),
    parts: Collection[int] | None = None,
) -> None:
    """Stage 2: the features of one corpus, ``out_dir``/cuts.jsonl.gz and archives beside it.

    ``nj`` processes work on parts of 250 cuts, and no more of the corpus is held at a time; a run that was broken off
    goes on with the parts that are missing or not whole. With ``parts``, numbers from 0, only these are computed, and
    left for a run without to be joined: so jobs share a corpus. Raises InputError where stage 1 has not run or a
    recording cannot be read.
    """
    manifests, out_dir = Path(manifests), Path(out_dir)
    card = load_card(manifests, corpus)
    stage = _stage(corpus, manifests, out_dir, card, config)
    if not stage.needs_run() or stage.added_to_plan():
        return
    if parts is not None:
        make_parent(out_dir)
        with folder_in_use(manifests), folder_in_use(out_dir):  # many jobs may have parts, but none beside a whole run
            _compute(stage, corpus, manifests, out_dir, nj, config, card, parts)
        return
    with stage.locked() as is_missing:
        if is_missing:
            _compute(stage, corpus, manifests, out_dir, nj, config, card, parts)


def _compute(
    stage: Stage,
    corpus: str,
    manifests: Path,
    out_dir: Path,
    nj: int,
    config: FbankConfig,
    card: Mapping[str, Any],
    parts: Collection[int] | None,
) -> None:
    """The archives that are missing, and, of all of them (no ``parts``), their cuts and the stamp."""
    parts_dir = out_dir / f"parts-{stage.key}"
    with write_fault_is_an_input_error(parts_dir):
        parts_dir.mkdir(parents=True, exist_ok=True)
    archives: list[Path] = []
    utterances = card["utterances"] if parts is None else min(card["utterances"], len(parts) * CUTS_A_PART)
    with Progress(f"{corpus}: features", utterances, "clips") as shown:

        def missing() -> Iterator[tuple[Path, list[MonoCut]]]:
            for archive, part in _in_parts(corpus_cuts(manifests, corpus, card["splits"]), parts_dir, parts):
                archives.append(archive)
                if sizes_are_as_noted(_note(archive)):
                    shown.update(len(part))
                else:
                    yield archive, part

        tasks = ((part, config, archive) for archive, part in missing())
        nj = 1 if card["utterances"] <= CUTS_A_PART else nj
        for cuts in in_processes(_extract_part, tasks, nj, str(out_dir)):
            shown.update(cuts)
    if parts is not None:
        return
    stage.invalidate()
    with whole_file(out_dir / "cuts.jsonl.gz") as temporary, open(temporary, "wb") as cuts:
        for archive in archives:  # files of gzip one after the other are a file of gzip
            cuts.write(archive.with_suffix(".jsonl.gz").read_bytes())
    names = [os.path.relpath(archive, out_dir) for archive in archives]
    stage.finish(out_dir, card["utterances"], card["utterances"], Drops(), outputs=["cuts.jsonl.gz", *names])
    for stale in out_dir.glob("parts-*"):
        if stale != parts_dir:
            shutil.rmtree(stale)
    remove_leftovers(parts_dir)


def load_cuts(fbank_dir: Path) -> CutSet:
    """The cuts of a corpus whose features are stored, read lazily; InputError where stage 2 has not run."""
    require(fbank_dir, "features")
    return CutSet.from_jsonl_lazy(Path(fbank_dir) / "cuts.jsonl.gz")

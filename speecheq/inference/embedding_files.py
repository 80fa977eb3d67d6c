"""Embeddings as a file: .npz, .parquet, or a manifest of cuts for lhotse; written row by row, and renamed at the end.

- ``.npz``: ``ids`` (n,), ``starts`` and ``ends`` (n,) in seconds, ``embeddings`` (n, D) float32. Of frames there is one
  array (frames, D) of all clips one after the other, those of clip i from ``offsets[i]`` to ``offsets[i + 1]``,
  ``frame_shift`` seconds apart.
- ``.parquet``: the columns id, start, end, embedding, and of frames frame_shift.
- ``.jsonl.gz``: a cut for each row, with the array ``embedding`` (``cut.load_embedding()``), whose values are in .npy
  files in the folder beside it that ends in ``.arrays``.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from lhotse import MonoCut, fastcopy
from lhotse.array import Array, TemporalArray
from lhotse.cut import Cut
from lhotse.serialization import SequentialJsonlWriter

from speecheq.common.errors import InputError, optional_package
from speecheq.common.files import whole_file, whole_folder
from speecheq.corpora.audio_headers import read_recording
from speecheq.inference.embedder import Embedding
from speecheq.inference.recordings import STANDARD_INPUT, CutSegment

NPZ, PARQUET, LHOTSE = SUFFIXES = (".npz", ".parquet", ".jsonl.gz")
FIELD = "embedding"
ARRAYS = ".arrays"
LHOTSE_STORAGE = "numpy_files"
# A row group of a Parquet file holds about so many bytes of values.
ROW_GROUP_BYTES = 16 << 20


class EmbeddingFile(Protocol):
    """A file that is being written."""

    def add(self, embedding: Embedding) -> None:
        """Write one row, which has values."""

    def finish(self) -> None:
        """Write what comes after the last row."""


def check_suffix(out: Path) -> str:
    """The one of SUFFIXES that ``out`` has; raises InputError for another, and for .parquet without pyarrow."""
    suffix = next((known for known in SUFFIXES if out.name.endswith(known)), "")
    if not suffix:
        raise InputError(f"{out}: is named neither {', '.join(SUFFIXES[:-1])} nor {LHOTSE}; rename it.")
    if suffix == PARQUET:
        _pyarrow(out)
    return suffix


def _pyarrow(out: Path) -> Any:
    with optional_package("pyarrow", f"{out}: a Parquet file"):
        import pyarrow.parquet
    return pyarrow


def check_embeddings_output(out: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if ``out`` is a folder, one of ``inputs`` by any name, or a manifest of something else."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file for --out.")
    if any(out.exists() and path.exists() and os.path.samefile(path, out) for path in inputs):
        raise InputError(f"{out}: is one of the inputs; name another file for --out.")
    if out.name.endswith(LHOTSE) and out.exists() and not _arrays_of(out).is_dir():
        raise InputError(
            f"{out}: is there, and speecheq embed did not write it, as no {_arrays_of(out).name} is beside it; name "
            "another file for --out."
        )


def _arrays_of(out: Path) -> Path:
    return Path(str(out.absolute()).removesuffix(LHOTSE) + ARRAYS)


@contextmanager
def open_output(out: Path, frames: bool) -> Iterator[EmbeddingFile]:
    """A file to add embeddings to, under a temporary name until all are written; ``frames``: they are (T, D)."""
    suffix = check_suffix(out)
    with ExitStack() as stack:
        temporary = stack.enter_context(whole_file(out))
        writer: EmbeddingFile
        if suffix == NPZ:
            parts = stack.enter_context(tempfile.TemporaryFile(dir=out.absolute().parent))
            writer = _Npz(temporary, parts, frames)
        elif suffix == PARQUET:
            writer = stack.enter_context(_Parquet(temporary, _pyarrow(out), frames))
        else:
            folder = _arrays_of(out)
            arrays = stack.enter_context(whole_folder(folder))
            manifest = stack.enter_context(SequentialJsonlWriter(temporary))
            writer = _Lhotse(manifest, arrays, folder)
        yield writer
        writer.finish()


class _Npz:
    """Values go to a temporary file, and from there, a piece at a time, into the archive once their number is known."""

    def __init__(self, path: Path, values: BinaryIO, frames: bool):
        self.path, self.values, self.frames = path, values, frames
        self.ids: list[str] = []
        self.times: list[tuple[float, float]] = []
        self.offsets, self.dim, self.frame_shift = [0], 0, 0.0

    def add(self, embedding: Embedding) -> None:
        assert embedding.values is not None
        rows = np.atleast_2d(embedding.values).astype("<f4")
        self.values.write(rows.tobytes())
        self.ids.append(embedding.segment.name)
        self.times.append((embedding.start, embedding.end))
        self.offsets.append(self.offsets[-1] + len(rows))
        self.dim, self.frame_shift = rows.shape[1], embedding.frame_shift

    def finish(self) -> None:
        times = np.array(self.times, dtype=np.float64).reshape(-1, 2)
        small: dict[str, Any] = {"ids": np.array(self.ids, dtype=np.str_), "starts": times[:, 0], "ends": times[:, 1]}
        if self.frames:
            small.update(offsets=np.array(self.offsets), frame_shift=np.array(self.frame_shift))
        self.values.flush()  # what is mapped below is the file
        embeddings = np.memmap(self.values, "<f4", "r", shape=(self.offsets[-1], self.dim))
        np.savez(self.path, **small, embeddings=embeddings)


class _Parquet:
    """Rows are written in groups of some size, so that readers can skip and memory is bounded."""

    def __init__(self, path: Path, pyarrow: Any, frames: bool):
        self.path, self.arrow, self.frames = path, pyarrow, frames
        self.rows: list[dict[str, Any]] = []
        self.bytes = 0
        self.writer: Any = None

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.writer is not None:
            self.writer.close()

    def _open(self, dim: int) -> None:
        arrow = self.arrow
        vector = arrow.list_(arrow.float32(), dim)
        fields = [("id", arrow.string()), ("start", arrow.float64()), ("end", arrow.float64())]
        fields += [("frame_shift", arrow.float64())] if self.frames else []
        fields += [(FIELD, arrow.list_(vector) if self.frames else vector)]
        self.writer = arrow.parquet.ParquetWriter(str(self.path), arrow.schema(fields))

    def add(self, embedding: Embedding) -> None:
        assert embedding.values is not None
        if self.writer is None:
            self._open(embedding.values.shape[-1])
        row = {"id": embedding.segment.name, "start": embedding.start, "end": embedding.end}
        values = list(embedding.values) if self.frames else embedding.values  # Arrow takes arrays (D,) only
        self.rows.append({**row, "frame_shift": embedding.frame_shift, FIELD: values})
        self.bytes += embedding.values.nbytes
        if self.bytes >= ROW_GROUP_BYTES:
            self.finish()

    def finish(self) -> None:
        if self.rows:
            self.writer.write_table(self.arrow.Table.from_pylist(self.rows, self.writer.schema))
        self.rows, self.bytes = [], 0


class _Lhotse:
    """Cuts with arrays; a cut of a manifest keeps its id and its supervisions."""

    def __init__(self, manifest: SequentialJsonlWriter, arrays: Path, final: Path):
        self.manifest, self.arrays, self.final = manifest, arrays, final
        self.count = 0

    def add(self, embedding: Embedding) -> None:
        values = embedding.values
        assert values is not None
        key = f"{self.count // 1000:06d}/{self.count % 1000:03d}.npy"
        (self.arrays / key).parent.mkdir(exist_ok=True)
        np.save(self.arrays / key, values, allow_pickle=False)
        array = Array(LHOTSE_STORAGE, str(self.final), key, list(values.shape))
        cut = self._cut(embedding)
        stored = array if values.ndim == 1 else TemporalArray(array, 0, embedding.frame_shift, cut.start)
        cut.custom = {**(cut.custom or {}), FIELD: stored}
        self.manifest.write(cut)
        self.count += 1

    def _cut(self, embedding: Embedding) -> Cut:
        segment, start, duration = embedding.segment, embedding.start, embedding.end - embedding.start
        if segment.name == STANDARD_INPUT:
            raise InputError("standard input has no file that a cut can name; write .npz or .parquet.")
        if isinstance(segment, CutSegment):
            cut = segment.cut
            if embedding.windowed:
                cut = cut.truncate(offset=max(0.0, start - cut.start), duration=duration, preserve_id=True)
        else:
            recording = read_recording(segment.name, segment.path)
            cut = MonoCut(segment.name, start, min(duration, recording.duration - start), 0, [], recording=recording)
        return fastcopy(cut, id=f"{segment.name}-{start:.2f}" if embedding.windowed else segment.name)

    def finish(self) -> None:
        pass

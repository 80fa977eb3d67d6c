"""Stages of a recipe: whether a stage is done, which stages it requires, what it wrote and dropped.

A stage writes one folder, and as its last file there its stamp, ``stage.json``. The stamp holds the stage's key: a
digest of its options, of its inputs (names and sizes, and the content of tables and transcripts), and of a format
number, which developers raise when the stage's code changes meaning. A stage is skipped if its stamp has the same key
and its outputs still have the sizes that the stamp lists; otherwise it runs again.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from speecheq.common.digests import describe_files, digest, tree_sizes
from speecheq.common.errors import InputError
from speecheq.common.files import folder_in_use, locked_folder, read_json, remove_leftovers, whole_folder, write_json
from speecheq.common.log import log

STAMP = "stage.json"
# With this environment variable a command only plans, and exits with NOT_DONE if work remains.
ONLY_ASK = "SPEECHEQ_ONLY_ASK"
NOT_DONE = 3
# Keys of every stamp.
STAMPED = {"stage", "key", "inputs"}
NUMBERS = {"corpora": 0, "manifests": 1, "features": 2, "unify": 3, "shar": 3, "train": 4, "probe": 5, "score": 5}

# In planning mode, the stages that would run; else None.
_plan: list["Stage"] | None = [] if os.environ.get(ONLY_ASK) else None


@contextmanager
def planning() -> Iterator[list["Stage"]]:
    """Inside this context, no stage runs; yields the list of stages that would."""
    global _plan
    before, _plan = _plan, []
    try:
        yield _plan
    finally:
        _plan = before


def status() -> int:
    """Exit status of a command without errors: 0, or NOT_DONE if it only planned and work remains."""
    return NOT_DONE if _plan else 0


def _read_stamp(folder: Path) -> dict[str, Any]:
    """The stamp in a stage's folder; raises InputError if it is damaged."""
    path = folder / STAMP
    try:
        stamp = read_json(path)
    except InputError:
        stamp = None
    if not isinstance(stamp, dict) or not set(stamp) >= STAMPED:
        raise InputError(f"{path}: is damaged; run its stage again.")
    return stamp


def describe_input(path: Path) -> Any:
    """A value that changes with an input: the stage's key for a stage's folder, else ``describe_files``."""
    if (path / STAMP).is_file():
        return _read_stamp(path)["key"]
    return describe_files(path)


class Drops:
    """Utterances that a stage left out, by reason."""

    def __init__(self) -> None:
        self.by_reason: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, utterance: str) -> None:
        self.by_reason[reason].append(utterance)

    def __len__(self) -> int:
        return sum(map(len, self.by_reason.values()))

    def copy(self) -> "Drops":
        other = Drops()
        for reason, names in self.by_reason.items():
            other.by_reason[reason] = list(names)
        return other

    def counts(self) -> dict[str, int]:
        """The number of utterances by reason."""
        return {reason: len(names) for reason, names in sorted(self.by_reason.items())}

    def report(self, title: str, examples: int = 3) -> None:
        """Log one line per reason, with the first few utterances; the stamp lists all of them."""
        for reason, names in sorted(self.by_reason.items()):
            more = ", ..." if len(names) > examples else ""
            log.warning("%s: %d dropped: %s (%s%s)", title, len(names), reason, ", ".join(names[:examples]), more)


class Stage:
    """One stage's folder, key and stamp.

    ``name`` is a key of NUMBERS, ``title`` names what the stage works on, ``options`` are all settings that its outputs
    depend on, ``inputs`` the files and folders it reads, ``version`` is its format number.
    """

    def __init__(
        self, name: str, title: str, folder: Path, options: Mapping[str, Any], inputs: Iterable[Path], version: int
    ):
        self.name, self.title, self.folder = name, title, Path(folder)
        self.inputs = {str(path): describe_input(Path(path)) for path in inputs}
        self.options = dict(options)
        self.version = version
        self.key = digest([name, self.options, sorted(map(str, self.inputs.values())), version])
        self.started = time.monotonic()
        self._found: dict[str, Any] | None = None  # the stamp that needs_run() read last

    def _stamp(self) -> dict[str, Any] | None:
        """The stamp in the folder: None if there is none, empty if it is damaged."""
        if not (self.folder / STAMP).is_file():
            return None
        try:
            return _read_stamp(self.folder)
        except InputError:
            return {}

    def added_to_plan(self) -> bool:
        """In planning mode, add the stage to the plan and return True: the stage must then not run."""
        if _plan is None:
            return False
        _plan.append(self)
        return True

    def needs_run(self) -> bool:
        """Whether there is no stamp with this key, or an output is missing or changed. Logs the reason."""
        self._found = stamp = self._stamp()
        where = f"stage {NUMBERS[self.name]} ({self.name}) of {self.title}"
        if stamp is None:
            return True
        if not stamp:
            log.warning("%s: %s is damaged: running the stage again", where, self.folder / STAMP)
            return True
        if stamp["key"] != self.key:
            changed = [k for k in self.options if stamp["options"].get(k) != json.loads(json.dumps(self.options[k]))]
            changed += [k for k in stamp["options"] if k not in self.options]
            because = "its inputs changed"
            if stamp["format"] != self.version:
                because = "this version of the program writes another format"
            elif changed:
                because = f"its options changed ({', '.join(changed)})"
            log.info("%s: done before, but %s: running it again", where, because)
            return True
        for name, size in stamp["outputs"].items():
            path = Path(os.path.normpath(self.folder / name))
            if not path.is_file() or path.stat().st_size != size:
                log.warning("%s: %s is missing or has changed: running the stage again", where, path)
                return True
        log.info("%s: already done with the same arguments, skipped (%s)", where, self.folder)
        return False

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[bool]:
        """Inside this context, no other process writes to the stage's folder or to its input stages' folders.

        Yields whether the stage still needs to run: another process may have done it meanwhile. Leftovers of killed
        processes are removed. Raises InputError if another process reads the folder, writes to it and ``wait`` is
        false, or has changed an input of this stage.
        """
        with ExitStack() as opened:
            try:
                opened.enter_context(locked_folder(self.folder, wait))
            except InputError:
                if self._stamp() == self._found or self.needs_run():
                    raise
                yield False  # another process has done it and is reading it
                return
            if self._stamp() != self._found and not self.needs_run():
                yield False
                return
            remove_leftovers(self.folder)
            for source, key in self.inputs.items():
                if (Path(source) / STAMP).is_file():
                    opened.enter_context(folder_in_use(source))
                    if describe_input(Path(source)) != key:
                        raise InputError(
                            f"{source}: was rewritten while {self.title} was about to read it; run the same command "
                            "again when the process that writes there has ended."
                        )
            yield True

    @contextmanager
    def replace_folder(self) -> Iterator[Path]:
        """Yield a new folder, which replaces the stage's folder on success.

        Raises InputError if the stage's folder holds files that the stage did not write.
        """
        stamp = self._stamp()
        is_ours = stamp is not None and stamp.get("stage", self.name) == self.name
        if self.folder.is_dir() and any(self.folder.iterdir()) and not is_ours:
            raise InputError(
                f"{self.folder}: holds files that stage {NUMBERS[self.name]} ({self.name}) did not write and would "
                "replace; name a new or empty folder."
            )
        with whole_folder(self.folder) as temporary:
            yield temporary

    def invalidate(self) -> None:
        """Remove the stamp; call it before a stage changes its outputs in place."""
        (self.folder / STAMP).unlink(missing_ok=True)

    def finish(
        self,
        folder: Path,
        went_in: int,
        came_out: int,
        drops: Drops | None = None,
        outputs: Sequence[str] | None = None,
        unit: str = "utterances",
    ) -> None:
        """Write the stamp into ``folder`` (which may still have its temporary name) and log the counts.

        ``went_in``, ``came_out``: numbers of ``unit``. ``outputs``: the files whose sizes the stamp lists, relative to
        ``folder``; by default all files in it.
        """
        drops = drops or Drops()
        sizes = tree_sizes(folder) if outputs is None else {name: os.path.getsize(folder / name) for name in outputs}
        stamp = {
            "stage": self.name,
            "title": self.title,
            "key": self.key,
            "options": self.options,
            "inputs": self.inputs,
            "format": self.version,
            "in": went_in,
            "out": came_out,
            "dropped": dict(sorted(drops.by_reason.items())),
            "seconds": round(time.monotonic() - self.started, 2),
            "outputs": {name: size for name, size in sizes.items() if name != STAMP},
        }
        write_json(folder / STAMP, stamp)
        drops.report(self.title)
        log.info(
            "stage %d (%s) of %s: %d %s in, %d out, %d dropped, %.1f s -> %s",
            NUMBERS[self.name],
            self.name,
            self.title,
            went_in,
            unit,
            came_out,
            len(drops),
            stamp["seconds"],
            self.folder,
        )


def require(folder: Path, name: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """The stamp of the stage ``name`` in ``folder``.

    Raises InputError, which names the stage to run, if the stage has not run, an output (except those in ``without``)
    is missing or has another size, or an input stage has run again since.
    """
    path, number = Path(folder) / STAMP, NUMBERS[name]
    if not path.is_file():
        raise InputError(
            f"{folder}: stage {number} ({name}) has not been run or did not finish; run it first, with "
            f"--stage {number} --stop-stage {number} and the same options."
        )
    stamp = _read_stamp(Path(folder))
    for output, size in stamp["outputs"].items():
        written = Path(os.path.normpath(Path(folder) / output))
        if output in without and not written.exists():
            continue
        if not written.is_file() or written.stat().st_size != size:
            raise InputError(
                f"{written}: is missing or has changed since stage {number} ({name}); run stage {number} again."
            )
    for source, key in stamp["inputs"].items():
        if (Path(source) / STAMP).is_file() and _read_stamp(Path(source))["key"] != key:
            raise InputError(
                f"{folder}: is out of date, {source} was rewritten since; run stage {number} ({name}) again."
            )
    return stamp


def history(folders: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """The stamps of stages' folders and of all their input stages, by folder, earlier stages first.

    An input that is gone or was rewritten since is left out with its own inputs: its stamp no longer describes what was
    read. Copies of a folder count once.
    """
    found: dict[Path, dict[str, Any]] = {}
    seen = set()

    def add(folder: Path, key: str | None) -> None:
        if folder in found or not (folder / STAMP).is_file():
            return
        stamp = _read_stamp(folder)
        work = stamp["title"], stamp["key"]
        if key in (None, stamp["key"]) and work not in seen:
            seen.add(work)
            found[folder] = stamp
            for source, source_key in stamp["inputs"].items():
                add(Path(source), source_key)

    for folder in folders:
        add(Path(folder), None)
    return dict(sorted(found.items(), key=lambda item: (NUMBERS[item[1]["stage"]], str(item[0]))))

"""What a stage read, wrote and dropped; whether it is done; what it needs from the stage before.

A stage writes one folder. When it ends, the last file it writes there is its stamp, ``stage.json``, which
holds the stage's key: a digest of the options it read, of its inputs (names and sizes, and what tables and
transcripts say), and of a format number that is raised by hand when the stage's code changes meaning. A stage
whose stamp has the same key and whose outputs still have the sizes noted there is skipped; every other stage
is redone.
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
# Set in the environment of a command, it does nothing but tell whether it has anything to do: status 0 or NOT_DONE.
ONLY_ASK = "SPEECHEQ_ONLY_ASK"
NOT_DONE = 3
# What every stamp says.
STAMPED = {"stage", "key", "inputs"}
NUMBERS = {"corpora": 0, "manifests": 1, "features": 2, "unify": 3, "shar": 3, "train": 4, "score": 5}


# While commands only plan: the stages that would run.
_plan: list["Stage"] | None = [] if os.environ.get(ONLY_ASK) else None


@contextmanager
def planning() -> Iterator[list["Stage"]]:
    """While it is entered, no stage runs; yields the list of those that would."""
    global _plan
    before, _plan = _plan, []
    try:
        yield _plan
    finally:
        _plan = before


def status() -> int:
    """Exit status of a command that met no fault: 0, or NOT_DONE if it only planned and has something to do."""
    return NOT_DONE if _plan else 0


def _read_stamp(folder: Path) -> dict[str, Any]:
    """The stamp in a stage's folder; InputError where it is damaged."""
    path = folder / STAMP
    try:
        stamp = read_json(path)
    except InputError:
        stamp = None
    if not isinstance(stamp, dict) or not set(stamp) >= STAMPED:
        raise InputError(f"{path}: is damaged; run its stage again, which writes it anew.")
    return stamp


def describe_input(path: Path) -> Any:
    """What makes an input new: a stage's key for a stage's folder, sizes and texts for a file or another folder."""
    if (path / STAMP).is_file():
        return _read_stamp(path)["key"]
    return describe_files(path)


class Drops:
    """Utterances that a stage left out, by reason, so that none is lost silently."""

    def __init__(self) -> None:
        self.by_reason: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, utterance: str) -> None:
        self.by_reason[reason].append(utterance)

    def __len__(self) -> int:
        return sum(map(len, self.by_reason.values()))

    def copy(self) -> "Drops":
        """The same, to be added to apart."""
        other = Drops()
        for reason, names in self.by_reason.items():
            other.by_reason[reason] = list(names)
        return other

    def counts(self) -> dict[str, int]:
        return {reason: len(names) for reason, names in sorted(self.by_reason.items())}

    def report(self, title: str, examples: int = 3) -> None:
        """One log line a reason, with the first few utterances; the stamp holds all of them."""
        for reason, names in sorted(self.by_reason.items()):
            more = ", ..." if len(names) > examples else ""
            log.warning("%s: %d dropped: %s (%s%s)", title, len(names), reason, ", ".join(names[:examples]), more)


class Stage:
    """One stage's folder, key and stamp.

    ``name`` is one of NUMBERS, ``title`` says on what it works, ``options`` are all settings that its outputs
    depend on, ``inputs`` the files and folders it reads; ``version`` is its format number.
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
        self._found: dict[str, Any] | None = None  # the stamp that was looked at last

    def _stamp(self) -> dict[str, Any] | None:
        """None where there is none; one that is damaged is empty."""
        if not (self.folder / STAMP).is_file():
            return None
        try:
            return _read_stamp(self.folder)
        except InputError:
            return {}

    def added_to_plan(self) -> bool:
        """Whether the command only plans (``planning``), so that the stage must not run; it is then in the plan."""
        if _plan is None:
            return False
        _plan.append(self)
        return True

    def needs_run(self) -> bool:
        """False where the stage ran with this key and its outputs are still whole; logs what it found."""
        self._found = stamp = self._stamp()
        where = f"stage {NUMBERS[self.name]} ({self.name}) of {self.title}"
        if stamp is None:
            return True
        if not stamp:
            log.warning("%s: %s is damaged: the stage is redone", where, self.folder / STAMP)
            return True
        if stamp["key"] != self.key:
            changed = [k for k in self.options if stamp["options"].get(k) != json.loads(json.dumps(self.options[k]))]
            changed += [k for k in stamp["options"] if k not in self.options]
            because = "what it reads changed"
            if stamp["format"] != self.version:
                because = "what this version of the program writes has changed"
            elif changed:
                because = f"its options changed ({', '.join(changed)})"
            log.info("%s: done before, but %s: it is redone", where, because)
            return True
        for name, size in stamp["outputs"].items():
            path = Path(os.path.normpath(self.folder / name))
            if not path.is_file() or path.stat().st_size != size:
                log.warning("%s: %s is not whole any more: the stage is redone", where, path)
                return True
        log.info("%s: already done with the same arguments, skipped (%s)", where, self.folder)
        return False

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[bool]:
        """While it is entered, no other process writes to the stage's folder or to the stages' folders that it reads.

        Yields whether the stage is still to be done: another process that was at it, which is waited for, may have done
        it. InputError where that is not to be waited for (not ``wait``), where another process reads the folder, or
        where one has changed what this stage reads. Leftovers of processes that were killed are removed.
        """
        with ExitStack() as opened:
            try:
                opened.enter_context(locked_folder(self.folder, wait))
            except InputError:
                if self._stamp() == self._found or self.needs_run():
                    raise
                yield False  # another process has done it and reads it
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
                            f"{source}: was made anew while {self.title} was about to read it; run the same command "
                            "again, when what writes there has ended."
                        )
            yield True

    @contextmanager
    def replace_folder(self) -> Iterator[Path]:
        """Yield a new folder that takes the place of the stage's own once it is whole.

        InputError where the stage's folder holds something that the stage did not write, which would be lost.
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
        """For stages that write in place: what is about to change must not be taken for done."""
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

        ``outputs`` names the files whose sizes are noted, relative to ``folder``; by default all of them.
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
    """The stamp of an earlier stage.

    InputError that names the stage to run where it has not run, where its outputs (but those of ``without``, which
    may be gone) are not as it left them, or where a stage that it read has run anew since.
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
                f"{written}: is not as stage {number} ({name}) left it (missing or another size); run stage {number} "
                "again."
            )
    for source, key in stamp["inputs"].items():
        if (Path(source) / STAMP).is_file() and _read_stamp(Path(source))["key"] != key:
            raise InputError(
                f"{folder}: is out of date, {source} was made anew since; run stage {number} ({name}) again."
            )
    return stamp


def history(folders: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """The stamps of stages' folders and of all stages behind them, by folder, the earlier stages first.

    An input that is gone, or was made anew since, is left out with all behind it: its stamp is not of what was read.
    Of a folder that was copied, one is taken.
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
            for source, of_source in stamp["inputs"].items():
                add(Path(source), of_source)

    for folder in folders:
        add(Path(folder), None)
    return dict(sorted(found.items(), key=lambda item: (NUMBERS[item[1]["stage"]], str(item[0]))))

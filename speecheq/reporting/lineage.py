"""What lies behind an experiment: its data with their counts and drops, its trainings, the recordings of its clips.

Read from what the stages noted (``stage.json``, ``run.json``, ``msud.json``); what is not at hand is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.files import read_json
from speecheq.common.stages import NUMBERS, history
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.evaluation.score import STAMP_FOLDER
from speecheq.reporting.experiment import Experiment, ScoredFold
from speecheq.reporting.tables import NOT_AVAILABLE, Column, Table

# Of the utterances that were dropped for one reason, so many are named.
EXAMPLES = 3
# How far a cut may end before its recording and still be the whole of it, in seconds.
WHOLE = 1e-3

Stamps = Mapping[Path, Mapping[str, Any]]


def stamps_of(experiment: Experiment) -> Stamps:
    """The stamps of all stages that the experiment went through, by folder, as far as they are at hand."""
    return history(folder for fold in experiment.scored for folder in (fold.folder, fold.folder / STAMP_FOLDER))


def has_data(stamps: Stamps) -> bool:
    """Whether the data of stage 3 that the experiment was scored on are at hand."""
    return any(stamp["stage"] == "unify" for stamp in stamps.values())


def stages_table(stamps: Stamps) -> Table:
    """What went into each stage, came out of it, and was dropped for which reasons."""

    def why(dropped: Mapping[str, list[str]]) -> str:
        return "; ".join(
            f"{len(names)}: {reason} ({', '.join(names[:EXAMPLES])}{', ...' * (len(names) > EXAMPLES)})"
            for reason, names in sorted(dropped.items())
        )

    rows = [
        [
            f"stage {NUMBERS[stamp['stage']]} ({stamp['stage']})",
            stamp["title"],
            str(stamp["in"]),
            str(stamp["out"]),
            str(sum(map(len, stamp["dropped"].values()))),
            why(stamp["dropped"]),
        ]
        for stamp in stamps.values()
    ]
    return Table(
        "stages",
        "utterances that went in, came out and were dropped, stage by stage",
        [*map(Column, ("stage", "of", "in", "out", "dropped", "why"))],
        rows,
    )


def _run_note(fold: ScoredFold) -> dict[str, Any]:
    """``run.json`` of a fold; empty where it is not at hand."""
    path = fold.folder / "run.json"
    return read_json(path) if path.is_file() else {}


def sets_table(experiment: Experiment) -> Table | None:
    """The clips of each set of each fold, counted; None where no fold noted them."""

    def counts(of: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(of.items()))

    sets = {}
    for fold in experiment.scored:
        for name, of in _run_note(fold).get("msud", {}).get("sets", {}).items():
            sets[fold.run["fold"], name] = of  # the same for all seeds
    rows = [
        [str(number), name, str(of["clips"]), *(counts(of[what]) for what in ("corpus", "class", "eis", "gender"))]
        for (number, name), of in sorted(sets.items())
    ]
    if not rows:
        return None
    return Table(
        "sets",
        "clips of each set (emotion and gender are trained on, dev chooses the checkpoint)",
        [*map(Column, ("fold", "set", "clips", "corpora", "classes", "EIS", "gender"))],
        rows,
    )


def trainings_table(experiment: Experiment) -> Table:
    """Each training: when, where and of which revision it was made."""
    rows = []
    for fold in experiment.scored:
        run, note = fold.run, _run_note(fold)
        rows.append(
            [
                str(run["fold"]),
                str(run["seed"]),
                str(run["steps"]),
                str(run["best_epoch"]),
                f"{run['train_seconds']:.0f}",
                run["device"],
                run["trained_at_git"],
                run["scored_at_git"],
                *(note.get(key, NOT_AVAILABLE) for key in ("started", "machine", "command")),
                ", ".join(f"{name} {version}" for name, version in note.get("versions", {}).items()) or NOT_AVAILABLE,
            ]
        )
    return Table(
        "trainings",
        "trainings",
        [
            *map(
                Column,
                (
                    "fold",
                    "seed",
                    "steps",
                    "best epoch",
                    "seconds",
                    "device",
                    "trained at git",
                    "scored at git",
                    "started",
                    "machine",
                    "command",
                    "versions",
                ),
            )
        ],
        rows,
    )


class Place(NamedTuple):
    """Where a clip can be heard: a file, and from when to when, in seconds, where it is a part of it."""

    path: Path
    part: tuple[float, float] | None


def recordings(stamps: Stamps) -> dict[str, Place]:
    """Test clip -> its recording, of those whose file is at hand; found through the cuts that stage 3 wrote."""
    found: dict[str, Place] = {}
    for folder, stamp in stamps.items():
        if "msud.json" not in stamp["outputs"]:
            continue
        for name in read_json(folder / "msud.json")["tests"]:
            path = folder / f"{name}.jsonl.gz"
            if not path.is_file() or path.stat().st_size != stamp["outputs"].get(path.name):
                continue  # it is not what was scored
            for cut in open_cuts(path):
                if cut.id in found or not cut.has_recording:
                    continue
                source = cut.recording.sources[0]
                if source.type == "file" and Path(source.source).is_file():
                    is_whole = cut.start < WHOLE and cut.end > cut.recording.duration - WHOLE
                    found[cut.id] = Place(Path(source.source), None if is_whole else (cut.start, cut.end))
    return found

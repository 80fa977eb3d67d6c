"""What an experiment was made from: its data with counts and dropped utterances, its trainings, its recordings.

Read from the notes of the stages (``stage.json``, ``run.json``, ``msud.json``); what cannot be found is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.files import read_json
from speecheq.common.stages import NUMBERS, history
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.evaluation.score import STAMP_FOLDER
from speecheq.reporting.experiment import Experiment, ScoredFold
from speecheq.reporting.tables import NOT_AVAILABLE, Table, build_table

EXAMPLES = 3  # how many of the utterances that were dropped for one reason are named
WHOLE = 1e-3  # seconds; a cut that starts and ends within it of its recording counts as the whole recording

Stamps = Mapping[Path, Mapping[str, Any]]


def stage_stamps(experiment: Experiment) -> Stamps:
    """The stamps of all stages that led to the experiment, by folder; those that cannot be found are left out."""
    return history(folder for fold in experiment.scored for folder in (fold.folder, fold.folder / STAMP_FOLDER))


def has_data(stamps: Stamps) -> bool:
    """Whether the data of stage 3 that the experiment was scored on can be found."""
    return any(stamp["stage"] == "unify" for stamp in stamps.values())


def _examples(names: list[str]) -> str:
    return ", ".join(names if len(names) <= EXAMPLES else [*names[:EXAMPLES], "..."])


def _drop_reasons(dropped: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{len(names)}: {reason} ({_examples(names)})" for reason, names in sorted(dropped.items()))


def stages_table(stamps: Stamps) -> Table:
    """How many utterances went into each stage, came out and were dropped, and why."""
    return build_table(
        "stages",
        "utterances that went in, came out and were dropped, stage by stage",
        stamps.values(),
        {
            "stage": lambda stamp: f"stage {NUMBERS[stamp['stage']]} ({stamp['stage']})",
            "data": lambda stamp: stamp["title"],
            "in": lambda stamp: str(stamp["in"]),
            "out": lambda stamp: str(stamp["out"]),
            "dropped": lambda stamp: str(sum(map(len, stamp["dropped"].values()))),
            "reasons": lambda stamp: _drop_reasons(stamp["dropped"]),
        },
    )


def _read_run(fold: ScoredFold) -> dict[str, Any]:
    """``run.json`` of a fold, {} if there is none."""
    path = fold.folder / "run.json"
    return read_json(path) if path.is_file() else {}


def sets_table(experiment: Experiment) -> Table | None:
    """The number of clips in each set of each fold; None if no fold noted them."""
    sets = {
        (fold.run["fold"], name): counts  # the same for all seeds
        for fold in experiment.scored
        for name, counts in _read_run(fold).get("msud", {}).get("sets", {}).items()
    }
    if not sets:
        return None

    def counts_by(kind: str):
        return lambda item: ", ".join(f"{name} {count}" for name, count in sorted(item[1][kind].items()))

    return build_table(
        "sets",
        "clips of each set (emotion and gender are trained on, dev chooses the checkpoint)",
        sorted(sets.items(), key=lambda item: item[0]),
        {
            "fold": lambda item: str(item[0][0]),
            "set": lambda item: item[0][1],
            "clips": lambda item: str(item[1]["clips"]),
            "corpora": counts_by("corpus"),
            "classes": counts_by("class"),
            "EIS": counts_by("eis"),
            "gender": counts_by("gender"),
        },
    )


def trainings_table(experiment: Experiment) -> Table:
    """When, where and from which revision each fold and seed was trained."""

    def from_run(key: str):
        return lambda training: str(training[0][key])

    def from_note(key: str):
        return lambda training: training[1].get(key, NOT_AVAILABLE)

    def versions(training) -> str:
        found = training[1].get("versions", {})
        return ", ".join(f"{name} {version}" for name, version in found.items()) or NOT_AVAILABLE

    return build_table(
        "trainings",
        "trainings",
        [(fold.run, _read_run(fold)) for fold in experiment.scored],
        {
            "fold": from_run("fold"),
            "seed": from_run("seed"),
            "steps": from_run("steps"),
            "best epoch": from_run("best_epoch"),
            "seconds": lambda training: f"{training[0]['train_seconds']:.0f}",
            "device": from_run("device"),
            "trained at git": from_run("trained_at_git"),
            "scored at git": from_run("scored_at_git"),
            "started": from_note("started"),
            "machine": from_note("machine"),
            "command": from_note("command"),
            "versions": versions,
        },
    )


class ClipRecording(NamedTuple):
    """The audio file of a clip; ``span`` is its start and end in seconds if the clip is a part of the file."""

    path: Path
    span: tuple[float, float] | None


def recordings(stamps: Stamps) -> dict[str, ClipRecording]:
    """Test clip -> its recording, for clips whose file exists; found in the cuts that stage 3 wrote."""
    found: dict[str, ClipRecording] = {}
    for folder, stamp in stamps.items():
        if "msud.json" not in stamp["outputs"]:
            continue
        for name in read_json(folder / "msud.json")["tests"]:
            path = folder / f"{name}.jsonl.gz"
            if not path.is_file() or path.stat().st_size != stamp["outputs"].get(path.name):
                continue  # changed since it was scored
            for cut in open_cuts(path):
                if cut.id in found or not cut.has_recording:
                    continue
                source = cut.recording.sources[0]
                if source.type == "file" and Path(source.source).is_file():
                    is_whole = cut.start < WHOLE and cut.end > cut.recording.duration - WHOLE
                    found[cut.id] = ClipRecording(Path(source.source), None if is_whole else (cut.start, cut.end))
    return found

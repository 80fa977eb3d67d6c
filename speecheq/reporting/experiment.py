"""The scores of an experiment over its folds and seeds: means, standard deviations, pooled scores and intervals.

They are computed from ``metrics.json``, ``scores.tsv`` and ``config.yaml`` of the scored folders; neither checkpoints
nor corpora are needed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.log import one_line
from speecheq.common.stages import STAMP, require
from speecheq.config.layers import flat, learned, load
from speecheq.config.schema import FBANK
from speecheq.dataset.classes import class_table
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation import score, significance
from speecheq.evaluation.former_runs import unscored
from speecheq.evaluation.metrics import specified
from speecheq.evaluation.predictions import ClipPrediction, detailed_scores
from speecheq.evaluation.robustness.conditions import ConditionResult
from speecheq.evaluation.score_files import METRICS, SCORE_AGAIN, SCORES, read_metrics, read_scores, write_scores
from speecheq.seqm import ClassTable

# What the folds of an experiment have in common, besides score.EXPERIMENT: system, training data and labels.
COMMON = ("system", "config", "corpora", "phonemes", "per_set", "units", "label_sets")
# The same of what score files came to hold later, with the values of those without it.
LATER: dict[str, Any] = {
    "sounds": {},
    "features": FBANK,
    "encoder_train": "none",
    "by_speaker": False,
    "select": "best",
    "probe": None,
    "as_published": [],
    "context": "none",
    "signal": "",
}
AUDIO_FOLDERS = {"noise": "noises", "rir": "room impulse responses", "unlabelled": "unlabelled speech"}


def config_name(run: Mapping[str, Any]) -> str:
    """The configuration, and the settings that --set changed."""
    return one_line(run["config"] + (f" ({', '.join(run['set'])})" if run["set"] else ""))


def scored_folders(experiment: Path) -> tuple[list[Path], list[str]]:
    """Find the scored folds and seeds of an experiment (``<config>-<system>/<target>.<protocol>``).

    Returns:
        The folders whose scores are complete and up to date; and for each other folder the reason why it is left out:
        its training is running, was interrupted or is newer than its scores, a file is damaged, or another version of
        the program scored it.
    """
    folders, left_out = [], []
    for stamp in sorted(Path(experiment).glob(f"fold*/seed*/{score.STAMP_FOLDER}/{STAMP}")):
        folder = stamp.parent.parent
        try:
            require(folder, "train", without=score.CHECKPOINTS)
            if require(stamp.parent, "score")["format"] != score.FORMAT:
                raise InputError(f"{folder}: was scored by another version of the program; run stage 5 (score) again.")
        except InputError as stale:
            left_out.append(str(stale))
            continue
        folders.append(folder)
    return folders, left_out + unscored(experiment, folders)


def describe_audio_folders(folders: Mapping[str, Mapping[str, Any]]) -> str:
    """The noises, impulse responses and unlabelled speech that a training used (``sounds`` of ``run.json``)."""
    return ", ".join(
        f"{AUDIO_FOLDERS[kind]} ({counts['files']} files, {counts['hours']:.2g} h)"
        for kind, counts in sorted(folders.items())
    )


@dataclass(frozen=True)
class ScoredFold:
    """The score files of one fold and seed: ``metrics.json``, and ``scores.tsv`` as set -> predictions."""

    folder: Path
    metrics: Mapping[str, Any]
    sets: Mapping[str, Sequence[ClipPrediction]]

    @property
    def run(self) -> Mapping[str, Any]:
        return self.metrics["run"]

    @property
    def name(self) -> str:
        return f"fold {self.run['fold']}, seed {self.run['seed']}"


def scores_of(
    predictions: Sequence[ClipPrediction], folds: Sequence[ScoredFold], set_name: str
) -> dict[str, float | None]:
    """``detailed_scores`` of clips of the set ``set_name``, of the tasks that the trainings of ``folds`` learned."""
    run = folds[0].run
    classes = class_table(run)
    own_classes = [classes.names.index(label) for label in run["label_sets"][set_name]]
    genders, intensities = (
        any(fold.metrics.get(f"{set_name}.{score}") is not None for fold in folds) for score in ("gender", "eis_mse")
    )
    return detailed_scores(predictions, genders, classes, own_classes, intensities)


def read_fold(folder: Path) -> ScoredFold:
    """Read one fold and seed. Raises InputError if a file is damaged or belongs to another fold."""
    metrics, scores = read_metrics(folder), folder / SCORES
    sets = read_scores(scores)
    found, place = f"fold{metrics['run']['fold']}/seed{metrics['run']['seed']}", f"{folder.parent.name}/{folder.name}"
    if found != place:
        raise InputError(f"{folder / METRICS}: holds the scores of {found}, but lies in {place}; {SCORE_AGAIN}")
    for name in metrics["run"]["label_sets"]:
        clips, expected = len(sets.get(name, ())), metrics.get(f"{name}.clips")
        if clips != expected:
            raise InputError(
                f"{scores}: has {clips} clips of the set {name}, but {METRICS} beside it counts {expected}; "
                f"{SCORE_AGAIN}"
            )
    return ScoredFold(folder, metrics, sets)


def _settings(fold: ScoredFold) -> dict[str, Any]:
    """What all folds of an experiment must have in common: all settings except the seed, and the data."""
    settings = flat(learned(load(fold.folder / "config.yaml")))
    del settings["run.seed"]
    run = {key: fold.run[key] for key in (*score.EXPERIMENT, *COMMON)}
    return {**settings, **run, **{key: fold.run.get(key, default) for key, default in LATER.items()}}


def check_same_experiment(folds: Sequence[ScoredFold]) -> None:
    """Raise InputError if the folds differ in settings or data, or if two folds of a seed test the same clip."""
    first = _settings(folds[0])
    tested: dict[tuple[int, str], Path] = {}
    for fold in folds:
        other = _settings(fold)
        differences = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if differences:
            raise InputError(
                f"{folds[0].folder} and {fold.folder} differ in {', '.join(differences)}, so no mean can be taken over "
                "them; train both with the same settings and data, or keep one elsewhere with --exp."
            )
        for prediction in fold.sets[TEST]:
            before = tested.setdefault((fold.run["seed"], prediction.id), fold.folder)
            if before != fold.folder:
                raise InputError(
                    f"{fold.folder / SCORES}: its test clip {prediction.id} is also one of {before}, so the "
                    "score files of different folds are mixed; remove both and run stage 5 (score) again."
                )


@dataclass(frozen=True)
class Experiment:
    """A system on a target under a protocol, with the folds and seeds that were scored.

    ``summary``: its ``metrics.json``. ``predictions``: those of the test clips of all folds. ``conditions``: its
    results under other test conditions.
    """

    summary: dict[str, Any]
    scored: Sequence[ScoredFold]
    predictions: significance.PooledPredictions
    conditions: Sequence[ConditionResult] = ()

    @property
    def run(self) -> Mapping[str, Any]:
        return self.summary["run"]

    @property
    def name(self) -> str:
        """Configuration and system."""
        return f"{config_name(self.run)}-{self.run['system']}"

    @property
    def classes(self) -> ClassTable:
        return class_table(self.run)

    @property
    def test_clips(self) -> list[ClipPrediction]:
        """The target's test clips of all folds and seeds."""
        return [clip for fold in self.scored for clip in fold.sets[TEST]]

    @property
    def test_sets(self) -> list[str]:
        return sorted(self.run["label_sets"])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _deviation(values: Iterable[float | None]) -> float | None:
    return significance.standard_deviation([value for value in values if value is not None])


def _deviations(name: str, folds: Sequence[ScoredFold]) -> dict[str, float | None]:
    """Standard deviations of a score: over all folds and seeds, of folds (means over seeds), of seeds (over folds).

    The last two are taken over the folds that every seed has.
    """
    value = {(fold.run["fold"], fold.run["seed"]): fold.metrics.get(name) for fold in folds}
    seeds = sorted({seed for _, seed in value})
    shared = [fold for fold in sorted({fold for fold, _ in value}) if all((fold, seed) in value for seed in seeds)]
    return {
        f"std.{name}": _deviation(value.values()),
        f"std_of_folds.{name}": _deviation([_mean([value[fold, seed] for seed in seeds]) for fold in shared]),
        f"std_of_seeds.{name}": _deviation([_mean([value[fold, seed] for fold in shared]) for seed in seeds]),
    }


def _pooled_scores(folds: Sequence[ScoredFold]) -> dict[str, float | None]:
    """Scores over the test clips of all folds of a seed together, averaged over seeds."""
    by_seed: dict[int, list[ClipPrediction]] = defaultdict(list)
    for fold in folds:
        by_seed[fold.run["seed"]].extend(fold.sets[TEST])
    each = [scores_of(predictions, folds, TEST) for predictions in by_seed.values()]
    return {f"pooled.test.{name}": _mean(scores[name] for scores in each) for name in each[0]}


def _interval_ends(names: Sequence[str], samples: Any, units: int) -> dict[str, float | None]:
    """The ends of the intervals of scores, from bootstrap ``samples`` of each over so many speakers (``units``).

    They are None where there are no samples, or not all are numbers.
    """
    ends: dict[str, float | None] = {}
    for name in names:
        low, high = None, None
        if samples is not None and np.isfinite(getattr(samples, name)).all():
            low, high = significance.bootstrap_interval(getattr(samples, name), units)
        ends.update({f"low.pooled.test.{name}": low, f"high.pooled.test.{name}": high})
    return ends


def _intervals(predictions: significance.PooledPredictions, folds: Sequence[ScoredFold]) -> dict[str, float | None]:
    """Those of WA and UA, and of the MSE and CCC of the EIS, which need labels."""
    samples = significance.bootstrap_accuracies(predictions)
    accuracies = _interval_ends(significance.Accuracies._fields, samples, predictions.units)
    rows = [
        (fold.run["seed"], clip.speaker, clip.gold_eis, clip.predicted_eis)
        for fold in folds
        if fold.metrics.get("test.eis_mse") is not None
        for clip in fold.sets[TEST]
        if specified([clip.gold_eis])[0]
    ]
    if not rows:
        return {**accuracies, **_interval_ends(significance.EisScores._fields, None, 0)}
    eis = significance.EisPredictions(*map(np.array, zip(*rows)))
    intensities = _interval_ends(significance.EisScores._fields, significance.bootstrap_eis(eis), eis.units)
    return {**accuracies, **intensities}


def _summary_of_runs(runs: Sequence[Mapping[str, Any]], predictions: significance.PooledPredictions) -> dict[str, Any]:
    def values(key: str) -> list:
        return sorted({run[key] for run in runs})

    lists = ("ctc_backend", "device", "steps", "test_speakers_in_training", "trained_at_git", "scored_at_git")
    return {
        **{key: runs[0][key] for key in ("set", *score.EXPERIMENT, *COMMON)},
        **{key: runs[0].get(key, default) for key, default in LATER.items()},
        "speech_activity": next((run["speech_activity"] for run in runs if "speech_activity" in run), ""),
        "folds": values("fold"),
        "of_folds": runs[0]["folds"],
        "seeds": values("seed"),
        "test_speakers": len(np.unique(predictions.speakers)),
        "train_seconds": round(sum(run["train_seconds"] for run in runs), 1),
        "trainings": len(runs),
        "ensemble": [],  # the seeds whose predictions were averaged (ensemble.py)
        "parameters": max((run.get("parameters") for run in runs), key=lambda number: number or 0),  # None: not known
        **{key: values(key) for key in lists},
    }


def pooled(folds: Sequence[ScoredFold]) -> Experiment:
    """An experiment of its scored folds and seeds, at least one, in the order given.

    Keys of its summary: ``test.ua`` and other scores are means over folds and seeds; ``std.test.ua`` is their standard
    deviation, ``std_of_folds.`` and ``std_of_seeds.`` are those over folds and over seeds alone; ``pooled.test.ua`` is
    computed over the clips of all folds together, for each seed, and averaged over seeds; ``low.pooled.test.ua`` and
    ``high.`` are the ends of its 95 % interval (``significance.bootstrap_interval``).
    """
    predictions = significance.PooledPredictions.from_rows(
        [
            (fold.run["seed"], fold.run["fold"], clip.id, clip.speaker, clip.gold_esc, clip.predicted_esc)
            for fold in folds
            for clip in fold.sets[TEST]
        ]
    )
    summary: dict[str, Any] = {}
    for name in sorted({name for fold in folds for name in fold.metrics if name != "run"}):
        summary[name] = _mean(fold.metrics.get(name) for fold in folds)
        summary.update(_deviations(name, folds))
    summary.update(_pooled_scores(folds))
    summary["pooled.test.per"] = summary["test.per"]  # every fold is scored on the same utterances
    summary.update(_intervals(predictions, folds))
    summary["run"] = _summary_of_runs([fold.run for fold in folds], predictions)
    of_one_class = {fold.run["fold"] for fold in folds if len({clip.gold_esc for clip in fold.sets[TEST]}) == 1}
    summary["run"]["one_class_folds"] = sorted(of_one_class)
    return Experiment(summary, folds, predictions)


def summarise(experiment: Path, folders: Sequence[Path]) -> Experiment:
    """Write metrics.json and scores.tsv of an experiment, from its folds and seeds.

    ``folders``: those of ``scored_folders``, at least one. metrics.json is the summary of ``pooled``. Raises InputError
    if score files are damaged or do not belong together.
    """
    folds = sorted(map(read_fold, folders), key=lambda fold: (fold.run["fold"], fold.run["seed"]))
    check_same_experiment(folds)
    found = pooled(folds)
    write_json(Path(experiment) / METRICS, found.summary)
    sets = {
        f"{name}/fold{fold.run['fold']}/seed{fold.run['seed']}": clips
        for fold in folds
        for name, clips in fold.sets.items()
    }
    write_scores(Path(experiment) / SCORES, sets, found.classes)
    return found

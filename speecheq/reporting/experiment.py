"""The score files of an experiment over its folds and seeds as one summary: means, spreads, pooled scores, intervals.

Everything is computed from ``metrics.json``, ``scores.tsv`` and ``config.yaml`` of the scored folders; no checkpoint
and no corpus is needed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.log import one_line
from speecheq.common.stages import STAMP, require
from speecheq.config.layers import flat, learned, load
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation import significance
from speecheq.evaluation.predictions import ClipPrediction, detailed_scores
from speecheq.evaluation.robustness.conditions import ConditionResult
from speecheq.evaluation.score import CHECKPOINTS, EXPERIMENT, FORMAT, STAMP_FOLDER
from speecheq.evaluation.score_files import METRICS, SCORE_AGAIN, SCORES, read_metrics, read_scores, write_scores
from speecheq.seqm import ClassTable

# Besides EXPERIMENT, what its folds have in common: what was trained on which data, and scored against which labels.
ALIKE = ("system", "config", "corpora", "phonemes", "per_set", "units", "label_sets")
# The kinds of what a training has beside its corpora, in words.
SOUNDS = {"noise": "noises", "rir": "room impulse responses", "unlabelled": "unlabelled speech"}


def config_of(run: Mapping[str, Any]) -> str:
    """The size, and what --set changed of it."""
    return one_line(run["config"] + (f" ({', '.join(run['set'])})" if run["set"] else ""))


def scored_folders(experiment: Path) -> tuple[list[Path], list[str]]:
    """The folders of an experiment (``<config>-<system>/<target>.<protocol>``) whose scores are up to date, and why
    others are not.

    Left out are scores of a training that is under way, broken off, or newer than they are, scores that are not whole,
    and those of another version of the program.
    """
    folders, left_out = [], []
    for stamp in sorted(Path(experiment).glob(f"fold*/seed*/{STAMP_FOLDER}/{STAMP}")):
        folder = stamp.parent.parent
        try:
            require(folder, "train", without=CHECKPOINTS)
            if require(stamp.parent, "score")["format"] != FORMAT:
                raise InputError(f"{folder}: was scored by another version of the program; run stage 5 (score) again.")
        except InputError as stale:
            left_out.append(str(stale))
            continue
        folders.append(folder)
    return folders, left_out


def sounds_in_words(sounds: Mapping[str, Mapping[str, Any]]) -> str:
    """What a training had beside its corpora, by kind (``run.json``)."""
    return ", ".join(
        f"{SOUNDS[kind]} ({of['files']} files, {of['hours']:.2g} h)" for kind, of in sorted(sounds.items())
    )


@dataclass(frozen=True)
class ScoredFold:
    """The score files of one fold and seed."""

    folder: Path
    metrics: Mapping[str, Any]
    sets: Mapping[str, Sequence[ClipPrediction]]

    @property
    def run(self) -> Mapping[str, Any]:
        return self.metrics["run"]


def read_fold(folder: Path) -> ScoredFold:
    """InputError where a file is damaged, lies in another fold's place, or does not fit the other one."""
    metrics, sets = read_metrics(folder), read_scores(folder / SCORES)
    found, place = f"fold{metrics['run']['fold']}/seed{metrics['run']['seed']}", f"{folder.parent.name}/{folder.name}"
    if found != place:
        raise InputError(f"{folder / METRICS}: holds the scores of {found}, but lies in {place}; {SCORE_AGAIN}")
    for name in metrics["run"]["label_sets"]:
        clips, expected = len(sets.get(name, ())), metrics.get(f"{name}.clips")
        if clips != expected:
            raise InputError(
                f"{folder / SCORES}: has {clips} clips of the set {name}, but {METRICS} beside it is of "
                f"{expected}; {SCORE_AGAIN}"
            )
    return ScoredFold(folder, metrics, sets)


def _settings(fold: ScoredFold) -> dict[str, Any]:
    """What folds of one experiment must have in common: all settings but the seed, and the data."""
    settings = flat(learned(load(fold.folder / "config.yaml")))
    del settings["run.seed"]
    return {**settings, **{key: fold.run[key] for key in (*EXPERIMENT, *ALIKE)}, "sounds": fold.run.get("sounds", {})}


def check_alike(folds: Sequence[ScoredFold]) -> None:
    """InputError where no mean can be taken: other settings or data, or a clip that two folds of a seed test."""
    first = _settings(folds[0])
    tested: dict[tuple[int, str], Path] = {}
    for fold in folds:
        other = _settings(fold)
        differ = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if differ:
            raise InputError(
                f"{folds[0].folder} and {fold.folder} differ in {', '.join(differ)}, so no mean can be taken over "
                "them; train both alike, or keep one elsewhere with --exp."
            )
        for prediction in fold.sets[TEST]:
            before = tested.setdefault((fold.run["seed"], prediction.id), fold.folder)
            if before != fold.folder:
                raise InputError(
                    f"{fold.folder / SCORES}: its test clip {prediction.id} is also one of {before}, so the score "
                    "files of different folds are mixed; remove both and run stage 5 (score) again."
                )


@dataclass(frozen=True)
class Experiment:
    """A system on a target under a protocol, as far as it is scored.

    ``summary`` is its ``metrics.json``, ``scored`` are its folds and seeds; ``answers`` are the test clips of all;
    ``rows`` are its scores under other conditions.
    """

    summary: dict[str, Any]
    scored: Sequence[ScoredFold]
    answers: significance.PooledPredictions
    rows: Sequence[ConditionResult] = ()

    @property
    def run(self) -> Mapping[str, Any]:
        return self.summary["run"]

    @property
    def folds(self) -> list[Mapping[str, Any]]:
        """The ``metrics.json`` of its folds and seeds."""
        return [fold.metrics for fold in self.scored]

    @property
    def classes(self) -> ClassTable:
        return ClassTable(tuple(self.run["classes"]), tuple(self.run["class_esc"]))

    @property
    def tests(self) -> list[str]:
        """The names of its test sets."""
        return sorted(self.run["label_sets"])


def called(experiment: Experiment) -> str:
    """Its configuration and system."""
    return f"{config_of(experiment.run)}-{experiment.run['system']}"


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _known_deviation(values: Sequence[float | None]) -> float | None:
    return significance.standard_deviation([value for value in values if value is not None])


def _spreads(name: str, folds: Sequence[ScoredFold]) -> dict[str, float | None]:
    """Deviation over all folds and seeds, over folds (of their mean over seeds), over seeds (of their mean over folds).

    The last two are over the folds that every seed has.
    """
    value = {(fold.run["fold"], fold.run["seed"]): fold.metrics.get(name) for fold in folds}
    seeds = sorted({seed for _, seed in value})
    shared = [fold for fold in sorted({fold for fold, _ in value}) if all((fold, seed) in value for seed in seeds)]
    return {
        f"std.{name}": _known_deviation(list(value.values())),
        f"std_of_folds.{name}": _known_deviation([_average([value[fold, seed] for seed in seeds]) for fold in shared]),
        f"std_of_seeds.{name}": _known_deviation([_average([value[fold, seed] for fold in shared]) for seed in seeds]),
    }


def _pooled(folds: Sequence[ScoredFold], classes: ClassTable) -> dict[str, float | None]:
    """Scores over the clips of all folds of a seed together, averaged over seeds."""
    by_seed: dict[int, list[ClipPrediction]] = defaultdict(list)
    for fold in folds:
        by_seed[fold.run["seed"]].extend(fold.sets[TEST])
    genders = any(fold.metrics.get("test.gender") is not None for fold in folds)
    intensities = any(fold.metrics.get("test.eis_mse") is not None for fold in folds)
    own_classes = [classes.names.index(label) for label in folds[0].run["label_sets"][TEST]]
    each = [
        detailed_scores(predictions, genders, classes, own_classes, intensities) for predictions in by_seed.values()
    ]
    return {name: _average([scores[name] for scores in each]) for name in each[0]}


def _intervals(answers: significance.PooledPredictions) -> dict[str, float | None]:
    samples = significance.bootstrap_accuracies(answers)
    ends = {
        name: significance.bootstrap_interval(values, answers.units) if samples is not None else (None, None)
        for name, values in (samples or significance.accuracies(answers))._asdict().items()
    }
    return {f"{end}.pooled.test.{name}": value for name, of in ends.items() for end, value in zip(("low", "high"), of)}


def summarise(experiment: Path, folders: Sequence[Path]) -> Experiment:
    """Write metrics.json and scores.tsv of an experiment: averaged over its folds and seeds, and pooled.

    ``folders`` are those of ``scored_folders``, at least one.

    ``test.ua`` and the like are means over folds and seeds, ``std.test.ua`` their standard deviation,
    ``std_of_folds.`` and ``std_of_seeds.`` the two apart; ``pooled.test.ua`` is taken once over the clips of all folds
    together, a seed at a time, then averaged; ``low.`` and ``high.pooled.test.ua`` are the ends of its 95 % interval
    (``uncertainty.resampled``). InputError where score files are damaged or do not go together.
    """
    folds = sorted(map(read_fold, folders), key=lambda fold: (fold.run["fold"], fold.run["seed"]))
    check_alike(folds)
    runs = [fold.run for fold in folds]
    first = runs[0]
    answers = significance.PooledPredictions.from_rows(
        [
            (fold.run["seed"], fold.run["fold"], clip.id, clip.speaker, clip.gold_esc, clip.predicted_esc)
            for fold in folds
            for clip in fold.sets[TEST]
        ]
    )
    summary: dict[str, Any] = {}
    for name in sorted({name for fold in folds for name in fold.metrics if name != "run"}):
        summary[name] = _average([fold.metrics.get(name) for fold in folds])
        summary.update(_spreads(name, folds))
    classes = ClassTable(tuple(first["classes"]), tuple(first["class_esc"]))
    summary.update({f"pooled.test.{name}": value for name, value in _pooled(folds, classes).items()})
    summary["pooled.test.per"] = summary["test.per"]  # every fold is scored on the same utterances
    summary.update(_intervals(answers))
    summary["run"] = {
        **{key: first[key] for key in ("set", *EXPERIMENT, *ALIKE)},
        "sounds": first.get("sounds", {}),
        "folds": sorted({run["fold"] for run in runs}),
        "of_folds": first["folds"],
        "seeds": sorted({run["seed"] for run in runs}),
        "test_speakers": len(np.unique(answers.speakers)),
        "ctc_backend": sorted({run["ctc_backend"] for run in runs}),
        "device": sorted({run["device"] for run in runs}),
        "steps": sorted({run["steps"] for run in runs}),
        "train_seconds": round(sum(run["train_seconds"] for run in runs), 1),
        "test_speakers_in_training": sorted({run["test_speakers_in_training"] for run in runs}),
        "trained_at_git": sorted({run["trained_at_git"] for run in runs}),
        "scored_at_git": sorted({run["scored_at_git"] for run in runs}),
    }
    write_json(Path(experiment) / METRICS, summary)
    write_scores(
        Path(experiment) / SCORES,
        {
            f"{name}/fold{fold.run['fold']}/seed{fold.run['seed']}": predictions
            for fold in folds
            for name, predictions in fold.sets.items()
        },
        classes,
    )
    return Experiment(summary, folds, answers)

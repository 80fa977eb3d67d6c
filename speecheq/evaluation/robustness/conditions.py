"""The scores of a trained system under other conditions than in stage 5: in noise, under attack, on other corpora.

A setting (noise) has conditions (noise at 10 dB). The predictions of a fold's model under each condition are stored
beside its scores, in ``scored_<setting>``: scores.tsv, one set per condition, and conditions.json. Over folds and seeds
they make one ConditionResult per condition, from which the tables and figures are made. A new setting needs an entry in
SETTINGS and a call of ``write``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_json
from speecheq.common.provenance import git_revision
from speecheq.common.stages import STAMP, Stage, require
from speecheq.evaluation import significance
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.score import CHECKPOINTS
from speecheq.evaluation.score_files import SCORE_AGAIN, SCORES, read_scores, write_scores
from speecheq.seqm import ClassTable

CONDITIONS = "conditions.json"
SEED = 0  # of all that a setting draws at random


@dataclass(frozen=True)
class Setting:
    """A group of conditions that share a table and a figure.

    - ``axis``: the quantity of the levels of its conditions; ``unit``: the unit of its counts.
    - ``weaker``, ``stronger``: no curve of ``stronger`` should be above that of ``weaker`` anywhere.
    - ``logarithmic``: the levels are above 0 and drawn on a logarithmic axis.
    - ``notes_decide``: folds with other notes were made in another way; in other settings the notes follow from the
      other facts, and an earlier version may have worded them otherwise.
    - ``format``: the FORMAT of what the setting writes.
    """

    name: str
    title: str
    axis: str = ""
    unit: str = "dB"
    weaker: str = ""
    stronger: tuple[str, ...] = ()
    logarithmic: bool = False
    notes_decide: bool = False
    format: int = 1

    @property
    def folder(self) -> str:
        """The name of its folder, beside the scores of a training."""
        return f"scored_{self.name}"


FGSM, BIM, PGD, APGD, APGD_DLR = "FGSM", "BIM", "PGD", "AutoPGD", "AutoPGD+DLR"
NOISE = Setting("noise", "Noisy speech", "SNR, dB", format=2)
TELEPHONE = Setting("telephone", "Telephone speech")
ATTACK_ON_WAVEFORM = Setting(
    "attack_waveform",
    "Attacks on the waveform",
    "largest change of a sample, dB relative to the clip's RMS",
    weaker=FGSM,
    stronger=(APGD, APGD_DLR),
)
ATTACK_ON_FBANK = Setting(
    "attack_fbank",
    "Attacks on the filter banks",
    "largest change of a filter bank's energy, dB",
    weaker=FGSM,
    stronger=(APGD, APGD_DLR),
    logarithmic=True,
)
# Its notes name the classes that the corpora have in common.
OTHER_CORPORA = Setting(
    "other_corpora", "Other corpora", "labelled clips of each class", "clips", format=2, notes_decide=True
)
SETTINGS: dict[str, Setting] = {
    setting.name: setting for setting in (OTHER_CORPORA, NOISE, TELEPHONE, ATTACK_ON_WAVEFORM, ATTACK_ON_FBANK)
}
# The format of each setting's folder.
FORMATS = {setting.folder: setting.format for setting in SETTINGS.values()}


@dataclass(frozen=True)
class Condition:
    """A condition within a setting; its ``name`` is unique there.

    ``curve`` is the line of its point, ``level`` the point's place on the setting's axis; a condition without a level
    is drawn as a horizontal line.
    """

    name: str
    curve: str = ""
    level: float | None = None


# The unchanged test clips, with which the others are compared.
CLEAN = Condition("clean")


@dataclass(frozen=True)
class ConditionResult:
    """The scores of a system under one condition, over all its folds and seeds.

    - ``metrics``: ua and wa, pooled over the clips of all folds of a seed, then averaged over seeds; low_ua, high_ua,
      low_wa, high_wa, the ends of their 95 % intervals (None with one speaker); the numbers of clips and speakers; the
      lists of folds and seeds.
    - ``facts``: how the setting was made: "notes" (sentences for the report), its levels, seed and the like, and "git"
      (revisions). Attacks also have "gradients": the number of clips "attacked", which are those classified correctly,
      and how many of them are "without" a gradient of the cross-entropy.
    - ``predictions``: what the metrics are computed from; ``clips``: the same with all that was predicted.
    """

    setting: Setting
    condition: Condition
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]
    predictions: significance.PooledPredictions = field(compare=False, repr=False)
    clips: Sequence[ClipPrediction] = field(default=(), compare=False, repr=False)


def condition_metrics(predictions: significance.PooledPredictions) -> dict[str, Any]:
    """The ``metrics`` of a ConditionResult."""
    samples = significance.bootstrap_accuracies(predictions)
    metrics: dict[str, Any] = {}
    for name, value in significance.accuracies(predictions)._asdict().items():
        metrics[name] = float(value)
        low = high = None
        if samples is not None:
            low, high = significance.bootstrap_interval(getattr(samples, name), predictions.units)
        metrics[f"low_{name}"], metrics[f"high_{name}"] = low, high
    return {
        **metrics,
        "clips": predictions.clip_count,
        "speakers": len(np.unique(predictions.speakers)),
        "folds": sorted(set(predictions.folds.tolist())),
        "seeds": sorted(set(predictions.seeds.tolist())),
    }


def _pool(
    setting: Setting,
    condition: Condition,
    facts: Mapping[str, Any],
    trainings: Iterable[tuple[int, int, Sequence[ClipPrediction]]],
) -> ConditionResult:
    """The result over (fold, seed, predictions) of several trainings."""
    found = [(fold, seed, clip) for fold, seed, clips in trainings for clip in clips]
    rows = [(seed, fold, clip.id, clip.speaker, clip.gold_esc, clip.predicted_esc) for fold, seed, clip in found]
    pooled = significance.PooledPredictions.from_rows(rows)
    clips = [clip for _, _, clip in found]
    return ConditionResult(setting, condition, condition_metrics(pooled), facts, pooled, clips)


def _as_json(row: ConditionResult) -> dict[str, Any]:
    return {"condition": asdict(row.condition), "metrics": row.metrics}


def write(
    stage: Stage,
    setting: Setting,
    fold: int,
    seed: int,
    facts: Mapping[str, Any],
    predictions: Mapping[Condition, Sequence[ClipPrediction]],
    classes: ClassTable,
) -> list[ConditionResult]:
    """Write the predictions of one training under each condition to the folder of ``stage``; returns their results.

    ``facts`` must be the same in all folds and seeds, but for the counts "gradients", which are summed, and "notes"
    (see Setting). Raises InputError if the disk is full.
    """
    facts = {**facts, "git": git_revision()}
    rows = [_pool(setting, condition, facts, [(fold, seed, clips)]) for condition, clips in predictions.items()]
    with stage.locked(), stage.replace_folder() as folder:
        write_scores(folder / SCORES, {condition.name: clips for condition, clips in predictions.items()}, classes)
        content = {
            "setting": setting.name,
            "fold": fold,
            "seed": seed,
            "facts": facts,
            "rows": list(map(_as_json, rows)),
        }
        write_json(folder / CONDITIONS, content)
        clips = len(next(iter(predictions.values())))
        stage.finish(folder, clips, clips, unit="test clips")
    return rows


class _TrainingResult(NamedTuple):
    """What ``write`` wrote for one training; ``revision`` and ``gradients`` are taken out of the ``facts``."""

    fold: int
    seed: int
    revision: str
    gradients: dict[str, int]
    facts: dict[str, Any]
    predictions: dict[Condition, list[ClipPrediction]]

    def is_like(self, other: "_TrainingResult", setting: Setting) -> bool:
        """Whether both were made in the same way, so that they may be averaged."""
        ours, theirs = self.facts, other.facts
        if not setting.notes_decide:
            ours, theirs = {**ours, "notes": []}, {**theirs, "notes": []}
        return ours == theirs and list(self.predictions) == list(other.predictions)


def _read(folder: Path, setting: Setting) -> _TrainingResult:
    """Raises InputError if what ``write`` wrote to ``folder`` is damaged or out of date."""
    require(folder.parent, "train", without=CHECKPOINTS)
    if require(folder, "score")["format"] != setting.format:
        raise InputError(f"{folder}: was made by another version of the program; run stage 5 (score) again.")
    content, sets = read_json(folder / CONDITIONS), read_scores(folder / SCORES)
    try:
        conditions = [Condition(**row["condition"]) for row in content["rows"]]
        predictions = {condition: sets[condition.name] for condition in conditions}
        facts = content["facts"]
        revision, gradients = facts.pop("git"), facts.pop("gradients", {})
        found = _TrainingResult(content["fold"], content["seed"], revision, gradients, facts, predictions)
    except (KeyError, TypeError) as fault:
        raise InputError(f"{folder / CONDITIONS}: does not fit {SCORES} beside it ({fault}); {SCORE_AGAIN}") from fault
    place = f"fold{found.fold}/seed{found.seed}"
    if place != f"{folder.parent.parent.name}/{folder.parent.name}":
        raise InputError(f"{folder / CONDITIONS}: holds the scores of {place}; {SCORE_AGAIN}")
    return found


def _read_alike(experiment: Path, setting: Setting, left_out: list[str]) -> list[_TrainingResult]:
    """The results of all trainings that are like the first one; adds why others are left out to ``left_out``."""
    results: list[_TrainingResult] = []
    for stamp in sorted(experiment.glob(f"fold*/seed*/{setting.folder}/{STAMP}")):
        try:
            result = _read(stamp.parent, setting)
        except InputError as fault:
            left_out.append(str(fault))
            continue
        if results and not result.is_like(results[0], setting):
            left_out.append(
                f"{stamp.parent}: was made with other options than that of fold {results[0].fold}, "
                f"seed {results[0].seed}; run stage 5 (score) with the same options for both."
            )
        else:
            results.append(result)
    return results


def read(experiment: Path) -> tuple[list[ConditionResult], list[str]]:
    """Read the results of an experiment (``<config>-<system>/<target>.<protocol>``).

    Returns: the result under each condition of each setting, and why trainings are left out. Trainings whose setting
    was made in another way than that of the first one are left out, as they cannot be averaged.
    """
    rows: list[ConditionResult] = []
    left_out: list[str] = []
    for setting in SETTINGS.values():
        results = _read_alike(Path(experiment), setting, left_out)
        if not results:
            continue
        gradients: Counter[str] = Counter()
        for result in results:
            gradients.update(result.gradients)
        facts = {**results[0].facts, "git": sorted({result.revision for result in results})}
        if gradients:
            facts["gradients"] = dict(gradients)
        rows += [
            _pool(setting, condition, facts, [(one.fold, one.seed, one.predictions[condition]) for one in results])
            for condition in results[0].predictions
        ]
    return rows, left_out


def by_setting(rows: Iterable[ConditionResult]) -> dict[Setting, list[ConditionResult]]:
    """The rows of each setting that has any."""
    found: dict[Setting, list[ConditionResult]] = defaultdict(list)
    for row in rows:
        found[row.setting].append(row)
    return dict(found)


def by_curve(rows: Iterable[ConditionResult]) -> dict[str, list[ConditionResult]]:
    """The rows of each curve; a condition without a curve is one of its own."""
    found: dict[str, list[ConditionResult]] = defaultdict(list)
    for row in rows:
        found[row.condition.curve or row.condition.name].append(row)
    return dict(found)


def masked_gradient_warnings(rows: Sequence[ConditionResult]) -> list[str]:
    """A sentence for each sign of masked gradients, with which an attack does less than it could (Athalye et al.).

    Signs are clips without a gradient, and a level at which a stronger attack leaves a higher UA than the weaker one.
    """
    warnings = []
    for setting, own in by_setting(rows).items():
        gradients = own[0].facts.get("gradients", {})
        if gradients.get("without"):
            warnings.append(
                f"{setting.title}: of {gradients['attacked']} clips that are classified correctly, "
                f"{gradients['without']} have a gradient of the cross-entropy that is 0 or not finite, so {FGSM}, "
                f"{BIM}, {PGD} and {APGD} may fail for that alone; {APGD_DLR} also follows another loss"
            )
        scores = {(row.condition.curve, row.condition.level): row.metrics["ua"] for row in own}
        for (curve, level), ua in scores.items():
            weaker = scores.get((setting.weaker, level))
            if curve in setting.stronger and weaker is not None and ua > weaker:
                warnings.append(
                    f"{setting.title}, {level:g} dB: {curve} leaves a UA of {100 * ua:.2f} %, {setting.weaker}, the "
                    f"weaker one, {100 * weaker:.2f} %: the gradient may be masked, and then these figures say less "
                    "than they seem to"
                )
    return warnings


def write_summary(experiment: Path, rows: Sequence[ConditionResult]) -> None:
    """Write ``conditions.json`` of an experiment: its rows, as in the tables."""
    content = [{"setting": row.setting.name, **_as_json(row), "facts": row.facts} for row in rows]
    write_json(Path(experiment) / CONDITIONS, content)

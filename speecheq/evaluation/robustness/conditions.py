"""How a trained system fares under other conditions than those of stage 5: in noise, under attack, on another corpus.

A setting ("noise") has conditions ("noise at 10 dB"). What a fold's model says under each of them lies beside its
scores, in ``scored_<setting>``: scores.tsv, a set a condition, and conditions.json. Over folds and seeds that makes
rows of (setting, condition, metrics), from which the tables and the curves are made. A new setting is a line in
SETTINGS and a call of ``write``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Setting:
    """``axis`` is what the levels of its conditions are, ``unit`` what they are counted in.

    ``weaker`` names a curve above which none of ``stronger`` should lie anywhere. ``logarithmic``: the levels are above
    0 and drawn so. ``notes_decide``: folds of which other notes were taken were made in another way; elsewhere notes
    follow from the other facts, and may be worded otherwise by an earlier version. ``format`` is raised when what the
    setting writes changes its meaning.
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
        """Beside the scores of a fold."""
        return f"scored_{self.name}"


FGSM, BIM, PGD, APGD, APGD_DLR = "FGSM", "BIM", "PGD", "AutoPGD", "AutoPGD+DLR"
NOISE = Setting("noise", "Noisy speech", "SNR, dB", format=2)
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
# Its notes say which classes were in common.
OTHER_CORPORA = Setting(
    "other_corpora", "Other corpora", "labelled clips of each class", "clips", format=2, notes_decide=True
)
SETTINGS: dict[str, Setting] = {
    setting.name: setting for setting in (OTHER_CORPORA, NOISE, ATTACK_ON_WAVEFORM, ATTACK_ON_FBANK)
}
# The stages' folders, with their formats.
FORMATS = {setting.folder: setting.format for setting in SETTINGS.values()}


@dataclass(frozen=True)
class Condition:
    """``name`` is its own within the setting. ``curve`` is the line that it is a point of, ``level`` its place on the
    setting's axis; None: it has no place there, and is drawn as a level line."""

    name: str
    curve: str = ""
    level: float | None = None


# What the others are held against: the test clips as they are, on the same way.
CLEAN = Condition("clean")


@dataclass(frozen=True)
class ConditionResult:
    """A system under one condition, over all its folds and seeds.

    ``metrics``: ua and wa, pooled over the clips of all folds, a seed at a time, then averaged over seeds; the ends
    low_ua, high_ua, low_wa, high_wa of their 95 % intervals (None over one speaker), clips, speakers, folds and seeds
    (lists of numbers). ``facts`` are what the setting noted of how it was made: "notes" (sentences for the page), its
    levels, seed and the like, "git", the revisions, and of attacks "gradients": how many clips were "attacked", being
    right, and how many of them are "without" a gradient of the cross-entropy. ``predictions``: what the metrics are of.
    """

    setting: Setting
    condition: Condition
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any]
    predictions: significance.PooledPredictions = field(compare=False, repr=False)


def condition_metrics(answers: significance.PooledPredictions) -> dict[str, Any]:
    """The metrics of a row (see there)."""
    samples = significance.bootstrap_accuracies(answers)
    found: dict[str, Any] = {}
    for name, value in significance.accuracies(answers)._asdict().items():
        found[name] = float(value)
        ends = (
            (None, None) if samples is None else significance.bootstrap_interval(getattr(samples, name), answers.units)
        )
        found[f"low_{name}"], found[f"high_{name}"] = ends
    return {
        **found,
        "clips": answers.clip_count,
        "speakers": len(np.unique(answers.speakers)),
        "folds": sorted(set(answers.folds.tolist())),
        "seeds": sorted(set(answers.seeds.tolist())),
    }


def _row(
    setting: Setting,
    condition: Condition,
    facts: Mapping[str, Any],
    said: Iterable[tuple[int, int, Sequence[ClipPrediction]]],
) -> ConditionResult:
    """From (fold, seed, what was said of its clips)."""
    answers = significance.PooledPredictions.from_rows(
        [
            (seed, fold, clip.id, clip.speaker, clip.gold_esc, clip.predicted_esc)
            for fold, seed, clips in said
            for clip in clips
        ]
    )
    return ConditionResult(setting, condition, condition_metrics(answers), facts, answers)


def write(
    stage: Stage,
    setting: Setting,
    fold: int,
    seed: int,
    facts: Mapping[str, Any],
    said: Mapping[Condition, Sequence[ClipPrediction]],
    classes: ClassTable,
) -> list[ConditionResult]:
    """Write what a fold's model said under each condition to the folder of ``stage``, with its stamp; returns its rows.

    ``facts`` must be the same in all folds and seeds (levels, seed, steps), but for the counts "gradients", which are
    summed, and for "notes" where the setting says so. InputError where the disk is full.
    """
    facts = {**facts, "git": git_revision()}
    rows = [_row(setting, condition, facts, [(fold, seed, clips)]) for condition, clips in said.items()]
    with stage.locked(), stage.replace_folder() as folder:
        write_scores(folder / SCORES, {condition.name: clips for condition, clips in said.items()}, classes)
        write_json(
            folder / CONDITIONS,
            {
                "setting": setting.name,
                "fold": fold,
                "seed": seed,
                "facts": facts,
                "rows": [{"condition": asdict(row.condition), "metrics": row.metrics} for row in rows],
            },
        )
        clips = len(next(iter(said.values())))
        stage.finish(folder, clips, clips, unit="test clips")
    return rows


def _read(folder: Path, setting: Setting) -> dict[str, Any]:
    """What ``write`` wrote for one fold and seed, with the clips of each condition as "said"; InputError where it is
    damaged or out of date."""
    require(folder.parent, "train", without=CHECKPOINTS)
    if require(folder, "score")["format"] != setting.format:
        raise InputError(f"{folder}: was made by another version of the program; run stage 5 (score) again.")
    found = read_json(folder / CONDITIONS)
    sets = read_scores(folder / SCORES)
    try:
        conditions = [Condition(**row["condition"]) for row in found["rows"]]
        found["said"] = {condition: sets[condition.name] for condition in conditions}
        place = f"fold{found['fold']}/seed{found['seed']}"
    except (KeyError, TypeError) as fault:
        raise InputError(f"{folder / CONDITIONS}: does not fit {SCORES} beside it ({fault}); {SCORE_AGAIN}") from fault
    if place != f"{folder.parent.parent.name}/{folder.parent.name}":
        raise InputError(f"{folder / CONDITIONS}: holds the scores of {place}; {SCORE_AGAIN}")
    return found


def _made(setting: Setting, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[Condition]]:
    """What must be the same in all folds of what ``_read`` gave."""
    facts = {name: fact for name, fact in found["facts"].items() if name != "notes" or setting.notes_decide}
    return facts, list(found["said"])


def read(experiment: Path) -> tuple[list[ConditionResult], list[str]]:
    """The rows of an experiment (``<config>-<system>/<target>.<protocol>``), and why folds are left out of them.

    A fold whose setting was made in another way than that of the first one is left out: no mean can be taken.
    """
    rows: list[ConditionResult] = []
    left_out: list[str] = []
    for setting in SETTINGS.values():
        first: dict[str, Any] = {}
        revisions, gradients = set(), Counter()
        said: dict[Condition, list[tuple[int, int, Sequence[ClipPrediction]]]] = defaultdict(list)
        for stamp in sorted(Path(experiment).glob(f"fold*/seed*/{setting.folder}/{STAMP}")):
            try:
                found = _read(stamp.parent, setting)
                revision, counts = found["facts"].pop("git"), found["facts"].pop("gradients", {})
                first = first or found
                if _made(setting, found) != _made(setting, first):
                    raise InputError(
                        f"{stamp.parent}: was made with other options than that of fold {first['fold']}, "
                        f"seed {first['seed']}; run stage 5 (score) with the same options for both."
                    )
            except InputError as fault:
                left_out.append(str(fault))
                continue
            revisions.add(revision)
            gradients.update(counts)
            for condition, clips in found["said"].items():
                said[condition].append((found["fold"], found["seed"], clips))
        counted = {"gradients": dict(gradients)} if gradients else {}
        rows += [
            _row(setting, condition, {**first["facts"], "git": sorted(revisions), **counted}, of)
            for condition, of in said.items()
        ]
    return rows, left_out


def by_setting(rows: Iterable[ConditionResult]) -> dict[Setting, list[ConditionResult]]:
    """The rows of each setting that has any."""
    found: dict[Setting, list[ConditionResult]] = defaultdict(list)
    for row in rows:
        found[row.setting].append(row)
    return dict(found)


def by_curve(rows: Iterable[ConditionResult]) -> dict[str, list[ConditionResult]]:
    """The rows of each curve; a condition that is on none is one of its own."""
    found: dict[str, list[ConditionResult]] = defaultdict(list)
    for row in rows:
        found[row.condition.curve or row.condition.name].append(row)
    return dict(found)


def masked_gradient_warnings(rows: Sequence[ConditionResult]) -> list[str]:
    """A sentence for each sign of a masked gradient, with which an attack does less than it could (Athalye et al.).

    Signs are clips that have none, and a level at which one of a setting's stronger curves lies above its weaker one.
    """
    found = []
    for setting, own in by_setting(rows).items():
        gradients = own[0].facts.get("gradients", {})
        if gradients.get("without"):
            found.append(
                f"{setting.title}: of {gradients['attacked']} clips that are classified correctly, "
                f"{gradients['without']} have a gradient of the cross-entropy that is 0 or not finite, so {FGSM}, "
                f"{BIM}, {PGD} and {APGD} may fail for that alone; {APGD_DLR} also follows another loss"
            )
        of = {(row.condition.curve, row.condition.level): row.metrics["ua"] for row in own}
        for (curve, level), ua in of.items():
            weaker = of.get((setting.weaker, level))
            if curve in setting.stronger and weaker is not None and ua > weaker:
                found.append(
                    f"{setting.title}, {level:g} dB: {curve} leaves a UA of {100 * ua:.2f} %, {setting.weaker}, the "
                    f"weaker one, {100 * weaker:.2f} %: the gradient may be masked, and then these figures say less "
                    "than they seem to"
                )
    return found


def write_summary(experiment: Path, rows: Sequence[ConditionResult]) -> None:
    """``conditions.json`` of an experiment: its rows, as they stand in the tables."""
    write_json(
        Path(experiment) / CONDITIONS,
        [
            {
                "setting": row.setting.name,
                "condition": asdict(row.condition),
                "metrics": row.metrics,
                "facts": row.facts,
            }
            for row in rows
        ],
    )

"""Ensembles: the trainings of a system that differ in their seed alone, with their predictions averaged.

Every experiment with several seeds has one, in a row of its own: its scores are of one answer a clip, where those of
the experiment are means of the scores of single models.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from speecheq.evaluation.predictions import ClipPrediction
from speecheq.reporting.experiment import Experiment, ScoredFold, pooled, scores_of

SUFFIX = "_ensemble"  # after the name of the system


def is_ensemble(experiment: Experiment) -> bool:
    return bool(experiment.run["ensemble"])


def ensembles(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The ensembles of those experiments that have several seeds in a fold."""
    return [found for found in map(_ensemble, experiments) if found is not None]


def _ensemble(experiment: Experiment) -> Experiment | None:
    """The ensemble over the folds that every seed has; None for a single seed, or where there is no such fold."""
    seeds = experiment.run["seeds"]
    by_fold: dict[int, list[ScoredFold]] = defaultdict(list)
    for fold in experiment.scored:
        by_fold[fold.run["fold"]].append(fold)
    complete = [members for members in by_fold.values() if len(members) == len(seeds)]
    if len(seeds) == 1 or not complete:
        return None
    found = pooled([_average(members) for members in complete])
    revisions = {key: experiment.run[key] for key in ("trained_at_git", "scored_at_git")}
    found.summary["run"].update(revisions, seeds=seeds, ensemble=seeds, system=experiment.run["system"] + SUFFIX)
    return found


def _average(members: Sequence[ScoredFold]) -> ScoredFold:
    """One scored fold for those of several seeds; no phones, as best paths have no mean."""
    sets: dict[str, list[ClipPrediction]] = {}
    metrics: dict[str, float | None] = {"test.per": None}
    for name, clips in members[0].sets.items():
        others = [{clip.id: clip for clip in fold.sets[name]} for fold in members]
        sets[name] = [_average_clip([fold[clip.id] for fold in others]) for clip in clips]
        metrics.update({f"{name}.{key}": value for key, value in scores_of(sets[name], members, name).items()})
    run = dict(members[0].run)
    run["train_seconds"] = sum(fold.run["train_seconds"] for fold in members)
    sizes = [fold.run.get("parameters") for fold in members]  # earlier scores have none
    run["parameters"] = sum(sizes) if all(sizes) else None
    return ScoredFold(members[0].folder, {**metrics, "run": run}, sets)


def _average_clip(predictions: Sequence[ClipPrediction]) -> ClipPrediction:
    """The mean of the posteriors and of the EIS; the gender of most, of the first in a tie."""
    genders = Counter(prediction.predicted_gender for prediction in predictions)
    return replace(
        predictions[0],
        posterior=np.mean([prediction.posterior for prediction in predictions], axis=0).tolist(),
        predicted_eis=float(np.mean([prediction.predicted_eis for prediction in predictions])),
        predicted_gender=genders.most_common(1)[0][0],
    )

"""The predicted EIS by corpus and declared intensity: what a level of one corpus is worth beside one of another.

The levels of a corpus become EIS by their number alone (section 2.1), whatever its actors and annotators meant by
them. A model that predicts the clips of several corpora puts them on one scale.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from speecheq import seqm
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.conditions import OTHER_CORPORA
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import Column, Section, Table

CAPTION = "predicted EIS by corpus and declared EIS"
HEADINGS = ("clips of", "emotion", "declared EIS", "predictions", "mean predicted EIS", "middle 90 %")
NOT_DECLARED = "none"
MOST_LEVELS = 6  # declared EIS of a corpus with more values are rounded to halves
EMOTIONAL = "emotional"


def intensity_section(experiment: Experiment) -> list[Section]:
    """The predicted EIS of all test clips, and of the clips of other corpora that the models were tested on.

    For each corpus with several declared intensities also the line from predicted to declared EIS. Nothing without
    any.
    """
    clips = clips_by_corpus(experiment)
    lines = {name: line_of(each) for name, each in clips.items()}
    if not any(lines.values()):
        return []
    table = Table("eis_by_corpus", CAPTION, list(map(Column, HEADINGS)), _rows(clips, experiment.classes.categories))
    sentences = [
        f"{name}: declared EIS = {line[0]:.2f} + {line[1]:.2f} x predicted EIS, by least squares over emotional clips; "
        f"a predicted EIS of 2.5 is {line[0] + 2.5 * line[1]:.2f} there."
        for name, line in lines.items()
        if line is not None
    ]
    return [Section("Intensity by corpus", [table], sentences)]


def clips_by_corpus(experiment: Experiment) -> dict[str, list[ClipPrediction]]:
    """The predictions of all folds and seeds by corpus; of other corpora by the name of the condition."""
    found: dict[str, list[ClipPrediction]] = defaultdict(list)
    for name in experiment.test_sets:
        for fold in experiment.scored:
            for clip in fold.sets[name]:
                found[clip.corpus].append(clip)
    for result in experiment.conditions:
        if result.setting == OTHER_CORPORA:
            found[result.condition.name].extend(result.clips)
    return found


def line_of(clips: Sequence[ClipPrediction]) -> tuple[float, float] | None:
    """Intercept and slope of declared on predicted EIS, by least squares over the clips with an EIS above neutral's.

    None where these clips have one declared EIS, or one predicted.
    """
    declared = np.array([clip.gold_eis for clip in clips if clip.gold_eis > seqm.NEUTRAL_MAX])
    predicted = np.array([clip.predicted_eis for clip in clips if clip.gold_eis > seqm.NEUTRAL_MAX])
    if len(set(declared.tolist())) < 2 or len(set(predicted.tolist())) < 2:
        return None
    slope, intercept = np.polyfit(predicted, declared, 1)
    return float(intercept), float(slope)


def _rows(clips: Mapping[str, Sequence[ClipPrediction]], categories: Sequence[str]) -> list[list[str]]:
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for name, each in clips.items():
        levels = {clip.gold_eis for clip in each}
        for clip in each:
            eis = clip.gold_eis if len(levels) <= MOST_LEVELS else round(2 * clip.gold_eis) / 2
            declared = f"{eis:.1f}" if seqm.is_specified(clip.gold_eis) else NOT_DECLARED
            emotion = seqm.NEUTRAL if categories[clip.gold_esc] == seqm.NEUTRAL else EMOTIONAL
            groups[name, emotion, declared].append(clip.predicted_eis)
    order = {seqm.NEUTRAL: 0, EMOTIONAL: 1}
    keys = sorted(groups, key=lambda key: (list(clips).index(key[0]), order[key[1]], key[2]))
    return [[*key, *_cells(groups[key])] for key in keys]


def _cells(predicted: Sequence[float]) -> list[str]:
    low, high = np.percentile(predicted, [5, 95])
    return [str(len(predicted)), f"{np.mean(predicted):.2f}", f"{low:.2f} to {high:.2f}"]

"""The data behind the figures, computed from the files of the scored folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation import significance
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.conditions import ConditionResult
from speecheq.evaluation.score_files import EMBEDDINGS, TRAINING_CLIPS, TRAINING_SCORES, read_embeddings, read_scores
from speecheq.reporting.experiment import ScoredFold

NEUTRAL, UNSPECIFIED = seqm.NEUTRAL, "unspecified"
INTENSITIES = (NEUTRAL, *seqm.LEVELS, UNSPECIFIED)
EIS_BINS = np.linspace(seqm.EIS_MIN, seqm.EIS_MAX, 17)
# The most points of a curve of losses, each a mean over a window of steps.
LOSS_POINTS = 60
FEWEST_POINTS, MOST_POINTS = 8, 1000  # of the embedding map; t-SNE takes some seconds for the most
PERPLEXITY = 30

Curve = list[tuple[float, float]]  # (step, value)


# ---- distributions of EIS


def intensity(clip: ClipPrediction, classes: seqm.ClassTable) -> str:
    """The gold level of a clip: neutral, low, medium, high, or unspecified if it has no EIS."""
    if not seqm.is_specified(clip.gold_eis):
        return UNSPECIFIED
    if classes.categories[clip.gold_esc] == NEUTRAL:
        return NEUTRAL
    return seqm.level_from_eis(clip.gold_eis)


def group_by_intensity(clips: Sequence[ClipPrediction], classes: seqm.ClassTable) -> dict[str, list[ClipPrediction]]:
    """The clips of each gold level that occurs, in the order of INTENSITIES."""
    groups: dict[str, list[ClipPrediction]] = {name: [] for name in INTENSITIES}
    for clip in clips:
        groups[intensity(clip, classes)].append(clip)
    return {name: group for name, group in groups.items() if group}


def eis_shares(clips: Sequence[ClipPrediction]) -> np.ndarray:
    """The share of clips with a predicted EIS in each of EIS_BINS, (bins,); an edge belongs to the higher bin."""
    counts, _ = np.histogram([clip.predicted_eis for clip in clips], EIS_BINS)
    return counts / len(clips)


def read_training_clips(folds: Sequence[ScoredFold]) -> list[tuple[ScoredFold, list[ClipPrediction]]]:
    """The scored training clips of each fold that has any; damaged files are logged and left out."""
    found = []
    for fold in folds:
        path = fold.folder / TRAINING_SCORES
        if not path.is_file():
            continue  # stage 5 was not asked to score them
        try:
            clips = read_scores(path).get(TRAINING_CLIPS, [])
        except InputError as damaged:
            log.warning("the training clips of a fold are left out of the distributions of EIS: %s", damaged)
            continue
        if clips:
            found.append((fold, clips))
    return found


# ---- learning curves


def read_curves(folder: Path) -> dict[str, Curve]:
    """The curves in the TensorBoard events of a trained folder by name, such as "dev/ua"; {} if there are no events.

    Steps that an interrupted training repeated after it was resumed are there once.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = []
    for path in (folder / "tensorboard").glob("*tfevents*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1})
        events.Reload()
        curves = {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        }
        last = max((curve[-1][0] for curve in curves.values()), default=0)
        files.append((_first_step(path), last, path.name, curves))
    # Each start continues at the step of the one before or a later one. File names hold times, but clocks are set back.
    joined: dict[str, Curve] = {}
    for first, _, _, curves in sorted(files, key=lambda file: file[:3]):
        joined = {name: [point for point in curve if point[0] < first] for name, curve in joined.items()}
        for name, curve in curves.items():
            joined.setdefault(name, []).extend(curve)
    return {name: curve for name, curve in joined.items() if curve}


def _first_step(path: Path) -> int:
    """The step at which the training that wrote these events was started or resumed."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return next((event.step for event in EventFileLoader(str(path)).Load() if event.HasField("session_log")), 0)


def window_means(curve: Curve, most: int = LOSS_POINTS) -> Curve:
    """At most ``most`` points: means over windows of equally many steps, without values that are not finite."""
    finite = [(step, value) for step, value in curve if np.isfinite(value)]
    if not finite:
        return []
    windows = np.array_split(np.array(finite), min(most, len(finite)))
    return [(float(step), float(value)) for step, value in (window.mean(axis=0) for window in windows)]


def checkpoint_steps(folds: Sequence[ScoredFold], curves: Mapping[str, Mapping[str, Curve]]) -> dict[str, int | None]:
    """The step of the best epoch of each fold by its name; None if its curve of dev UA has no such epoch."""
    steps: dict[str, int | None] = {}
    for fold in folds:
        epochs, best = curves[fold.name].get("dev/ua", []), fold.run["best_epoch"]
        steps[fold.name] = epochs[best - 1][0] if best <= len(epochs) else None
    return steps


# ---- embeddings


class EmbeddingSample(NamedTuple):
    """Embeddings (clips, D) of test clips, and their gold classes; ``total``: how many clips they were drawn from."""

    embeddings: np.ndarray
    gold: list[int]
    total: int


def sample_embeddings(fold: ScoredFold) -> EmbeddingSample:
    """At most MOST_POINTS embeddings of a fold's test clips. Raises InputError if they cannot be shown as a map."""
    path, clips = fold.folder / EMBEDDINGS, fold.sets[TEST]
    if not path.is_file():
        raise InputError(f"{path} is not there; stage 5 makes it where best.pt is.")
    embeddings = read_embeddings(path, [clip.id for clip in clips]).astype(np.float32)
    if len(clips) < FEWEST_POINTS:
        raise InputError(f"{path}: holds {len(clips)} clips, too few for a map.")
    if not np.isfinite(embeddings).all() or np.ptp(embeddings, axis=0).max() == 0:
        raise InputError(f"{path}: its embeddings are all alike or not finite.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(clips))[:MOST_POINTS])
    return EmbeddingSample(embeddings[chosen], [clips[place].gold_esc for place in chosen], len(clips))


def embed_in_plane(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (clips, D) in a plane (clips, 2) by t-SNE; the same on each run on one machine."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
    with threadpool_limits(1):  # several threads add up in another order
        return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(embeddings)


# ---- speakers


class SpeakerScore(NamedTuple):
    speaker: str
    ua: float
    clips: int


def speaker_scores(predictions: significance.PooledPredictions) -> list[SpeakerScore]:
    """UA of each test speaker over the classes that the speaker has (for each seed, averaged), the lowest first."""
    found = []
    for speaker in np.unique(predictions.speakers):
        own = significance.PooledPredictions(*(values[predictions.speakers == speaker] for values in predictions))
        clips = len(set(zip(own.folds.tolist(), own.clips.tolist())))
        found.append(SpeakerScore(str(speaker), float(significance.accuracies(own).ua), clips))
    return sorted(found, key=lambda score: (score.ua, score.speaker))


# ---- test conditions


def split_by_level(
    results: Sequence[ConditionResult],
) -> tuple[list[ConditionResult], list[tuple[float, ConditionResult]]]:
    """Split the results of a setting.

    Returns:
        The results whose condition has no level on the axis of the setting; and (level, result) of the others, in the
        order of levels.
    """
    points = [(result.condition.level, result) for result in results if result.condition.level is not None]
    without = [result for result in results if result.condition.level is None]
    return without, sorted(points, key=lambda point: point[0])

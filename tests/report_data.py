"""Score files, conditions and figures for tests: made here, without any training."""

import csv
import itertools
import json

import numpy as np
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from speecheq.common.files import write_json
from speecheq.common.stages import STAMP, Stage
from speecheq.config import layers
from speecheq.config.schema import Config
from speecheq.evaluation import score, score_files
from speecheq.evaluation.predictions import ClipPrediction, detailed_scores
from speecheq.evaluation.robustness import conditions
from speecheq.evaluation.robustness.conditions import CLEAN, NOISE, Condition
from speecheq.reporting.experiment import scored_folders, summarise
from speecheq.seqm import SEQM_CLASSES

LABELS = ["neutral", "joy", "anger"]
RUN = {
    "set": [],
    "name": "toy.random10",
    "target": "toy",
    "protocol": "random10",
    "partition": "p",
    "dev": "clips",
    "classes": list(SEQM_CLASSES.names),
    "class_esc": list(SEQM_CLASSES.categories),
    "classes_of": "seqm",
    "neutral_eis": "declared",
    "use": {},
    "folds_file": None,
    "left_out": [],
    "folds": 2,
    "corpora": ["toy"],
    "phonemes": None,
    "per_set": None,
    "units": None,
    "ctc_backend": "none",
    "device": "cpu",
    "threads": 1,
    "steps": 5,
    "train_seconds": 1.0,
    "best_epoch": 1,
    "test_speakers_in_training": 4,
    "trained_at_git": "abc",
    "scored_at_git": "abc",
    "label_sets": {"test": LABELS},
}
ROOM = Condition("reverberation")
FACTS = {"notes": ["made by the tests"], "seed": 0}
SPEAKERS = 8


def predictions(fold, seed, right, speakers, clips=24):
    """``clips`` of a fold, a share ``right`` of them right; the wrong answers are trust, which the corpus lacks."""
    random = np.random.default_rng([fold, seed, round(1000 * right)])
    made = []
    for number in range(clips):
        gold = SEQM_CLASSES.names.index(LABELS[number % 3])
        posterior = [0.01] * 9
        posterior[1] = 0.3  # trust
        posterior[gold] = 0.62 if random.random() < right else 0.1
        made.append(
            ClipPrediction(
                f"toy-{fold}-{number:02d}",
                "toy",
                f"s{number // 3 % speakers:02d}",
                gold,
                [value / sum(posterior) for value in posterior],
                [0.0, 1.5, 2.5][number % 3],
                1.0 + number % 2,
                "F",
                "F",
            )
        )
    return made


def write_stamp(folder, stage, outputs, **changes):
    """The stamp of a stage that has read nothing; ``outputs``: file name -> size."""
    stamp = {"stage": stage, "title": str(folder), "key": stage, "inputs": {}, "format": 1, "outputs": outputs}
    folder.mkdir(exist_ok=True)
    write_json(folder / STAMP, {**stamp, "in": 24, "out": 24, "dropped": {}, **changes})


def rewrite(folder, made=None, scores=None, **changes):
    """Write the score files of ``folder`` and the stamps of stages 4 and 5."""
    metrics = json.loads((folder / "metrics.json").read_text()) if made is None else None
    if made is not None:
        own = [SEQM_CLASSES.names.index(label) for label in LABELS]
        found = detailed_scores(made, False, SEQM_CLASSES, own)
        metrics = {
            **{f"test.{name}": value for name, value in found.items()},
            "test.clips": len(made),
            "test.per": None,
            **(scores or {}),
            "run": changes,
        }
        score_files.write_scores(folder / "scores.tsv", {"test": made}, SEQM_CLASSES)
    metrics["run"].update(changes)
    write_json(folder / "metrics.json", metrics)
    sizes = {f"../{name}": (folder / name).stat().st_size for name in ("metrics.json", "scores.tsv")}
    write_stamp(folder / score.STAMP_FOLDER, "score", sizes, format=score.FORMAT)
    return folder


def make(exp, system="speecheq", right=0.8, folds=(1, 2), seeds=(1,), speakers=8, scores=None, **changes):
    """An experiment of one system, trained and scored as far as its files tell; returns its folder.

    ``scores``: more of them in metrics.json. ``changes``: to what metrics.json says of the run.
    """
    run = {**RUN, **changes}
    experiment = exp / f"small-{system}" / run["name"]
    for fold in folds:
        for seed in seeds:
            folder = experiment / f"fold{fold}" / f"seed{seed}"
            folder.mkdir(parents=True)
            settings = Config()
            settings.run.seed = seed
            layers.save(settings, folder / "config.yaml")
            size = (folder / "config.yaml").stat().st_size
            outputs = {"config.yaml": size, "best.pt": 10, "last.pt": 10}  # the checkpoints are gone
            write_stamp(folder, "train", outputs)
            own = {"system": system, "config": "small", "fold": fold, "seed": seed}
            rewrite(folder, predictions(fold, seed, right, speakers), scores, **run, **own)
    return experiment


def summarised(experiment):
    return summarise(experiment, scored_folders(experiment)[0])


def table(exp, name):
    with open(exp / "tables" / f"{name}.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# ---- scores under other conditions


def in_noise(snr):
    return Condition(f"noise at {snr} dB", "noise", float(snr))


def shares(system_right=0.8):
    """How much of the clips is right under each condition."""
    return {CLEAN: system_right, in_noise(20): 0.7, in_noise(0): 0.3, ROOM: 0.5}


def add(folder, setting=NOISE, correct=None, facts=FACTS, speakers=SPEAKERS):
    """A setting beside the scores of one fold and seed."""
    fold, seed = int(folder.parent.name[4:]), int(folder.name[4:])
    made = {condition: predictions(fold, seed, right, speakers) for condition, right in (correct or shares()).items()}
    stage = Stage("score", f"{setting.name} of {folder}", folder / setting.folder, {}, [folder], setting.format)
    return conditions.write(stage, setting, fold, seed, facts, made, SEQM_CLASSES)


# ---- figures


def eis_clip(number, gold=0, eis=-1.0, predicted_eis=1.0, posterior=None, speaker="s"):
    return ClipPrediction(
        f"clip-{number}", "toy", speaker, gold, posterior or [1.0] + [0.0] * 8, eis, predicted_eis, "F", "F"
    )


eis_values = st.floats(0, 4, allow_nan=False)
some_clips = st.lists(
    st.builds(eis_clip, st.integers(), st.integers(0, 8), st.one_of(st.just(-1.0), eis_values), eis_values),
    min_size=1,
    max_size=40,
)


def assert_no_labels_overlap(figure, monkeypatch):
    drawn, draw = [], Text.draw
    FigureCanvasAgg(figure).draw()  # lays it out
    with monkeypatch.context() as patched:
        patched.setattr(Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer)))
        FigureCanvasAgg(figure).draw()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in drawn
        if text.get_text() and not text.get_rotation() and text.get_visible()
    ]
    assert len(boxes) >= 10
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or along <= 1, f"{one!r} lies on {other!r}"
    width, height = figure.get_size_inches() * figure.dpi
    for name, box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, f"{name!r} is cut off"

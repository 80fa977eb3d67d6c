"""Run the probe on the folds of stage 3 and write what stages 4 and 5 write of a trained system, for the tables.

    EXP/<features>-probe/<target>.<protocol>/fold<k>/seed1    config.yaml, run.json, scores.tsv, metrics.json

An SVM has no seed: the only run is called seed1. Beside the scores of every system, metrics.json has dev.layer, the
layer that was chosen, and dev.ua_of_layer_<k> and test.ua_of_layer_<k> of each.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.provenance import git_revision, run_information
from speecheq.common.stages import STAMP, Stage, require
from speecheq.config import layers as configuration
from speecheq.config.feature_sets import require_prepared
from speecheq.config.schema import FBANK, GENDERS, Config, EncoderConfig
from speecheq.dataset.classes import class_table
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.msud import load_fold
from speecheq.dataset.msud_recipe import DEV, TEST, TRAINING
from speecheq.dataset.protocols import CROSS
from speecheq.evaluation import score
from speecheq.evaluation.metrics import confusion
from speecheq.evaluation.predictions import ClipPrediction, detailed_scores
from speecheq.evaluation.probe import MAJORITY, ProbeClips, ProbeResult, ProbeSettings, probe
from speecheq.evaluation.score_files import METRICS, SCORES, write_scores
from speecheq.features.encoder_states import StoredStates
from speecheq.features.pooled_features import pooled_features
from speecheq.features.speech_activity import method_of
from speecheq.features.storage import load_cuts, load_features

FORMAT = 1
STAGE = "probe"
SEED = 1


@dataclass(frozen=True)
class StoredFeatures:
    """The stored features of corpora: ``name`` of the set, ``layers`` in a frame, ``data`` of stage 2.

    ``load`` gives those of a cut, (T, layers * D). ``encoder``: whose states they are, None for fbank.
    """

    name: str
    layers: Sequence[str]
    data: Path
    load: Callable[[Cut], torch.Tensor]
    encoder: EncoderConfig | None = None

    @classmethod
    def open(cls, name: str, data: Path) -> "StoredFeatures":
        """The set ``name`` of the features below ``data``; raises InputError if stage 2 has not prepared it."""
        encoder = require_prepared(data, name)
        if encoder is None:
            return cls(name, [name], data, load_features)
        return cls(name, list(map(str, encoder.layer_numbers())), data, StoredStates(data / name).load, encoder)

    @property
    def signal(self) -> str:
        """What librosa or openSMILE computes; "" for an encoder's states and fbank."""
        return self.encoder.model if self.encoder is not None and self.encoder.is_signal else ""

    def folder(self, corpus: str) -> Path:
        """The folder of stage 2 of a corpus."""
        return self.data / self.name / corpus

    def pooled(self, corpus: str) -> dict[str, np.ndarray]:
        """Clip -> its pooled features (layers, 2 * D)."""
        cuts = load_cuts(self.data / FBANK / corpus)
        return dict(zip(*pooled_features(self.folder(corpus), cuts, self.load, len(self.layers))))


def system_name(settings: ProbeSettings) -> str:
    """``probe``, with a mark for each setting that is not at its default."""
    if settings.kernel == MAJORITY:
        return MAJORITY
    kernel = "" if settings.kernel == ProbeSettings.kernel else f"_{settings.kernel}"
    return f"probe{kernel}{'_by_speaker' if settings.by_speaker else ''}"


def is_probe_folder(experiment: Path) -> bool:
    """Whether an experiment's folder, ``<config>-<system>/<target>.<protocol>``, holds the probe."""
    for path in sorted(Path(experiment).glob(f"fold*/seed*/{STAMP}")):
        with suppress(InputError):  # a damaged stamp does not tell
            return read_json(path)["stage"] == STAGE
    return False


@dataclass(frozen=True)
class ProbeRun:
    """The probe on one fold."""

    features: StoredFeatures
    settings: ProbeSettings
    exp: Path
    msud: Path
    fold: int

    @property
    def system(self) -> str:
        return system_name(self.settings)

    @property
    def config_name(self) -> str:
        """In the names of folders and in tables: the features, which the majority class does not need."""
        return "none" if self.settings.kernel == MAJORITY else self.features.name

    @property
    def folder(self) -> Path:
        return self.exp / f"{self.config_name}-{self.system}" / self.msud.name / f"fold{self.fold}" / f"seed{SEED}"

    @property
    def fold_folder(self) -> Path:
        return self.msud / f"fold{self.fold}"

    @cached_property
    def note(self) -> Mapping[str, Any]:
        """msud.json of the fold."""
        return load_fold(self.msud, self.fold)

    @property
    def title(self) -> str:
        return f"{self.config_name}-{self.system}, {self.note['name']}, fold {self.fold}"

    @property
    def corpora(self) -> list[str]:
        """The corpora that are trained on: the target; those that MsUD has where all of the target is the test."""
        return self.note["corpora"] if self.note["protocol"] == CROSS else [self.note["target"]]

    def config(self) -> Config:
        """The settings as those of a training that learns categories only."""
        config = Config()
        config.data.corpora = "all" if self.note["protocol"] == CROSS else "target"
        config.loss.alpha = config.loss.beta = config.loss.eta = 0.0
        config.data.features, config.data.cmvn = self.features.name, "speaker" if self.settings.by_speaker else "global"
        if self.features.encoder is not None:
            config.encoder = self.features.encoder
        config.model.num_esc = len(self.note["classes"])
        return config

    def stage(self) -> Stage:
        """The stage of the SVMs; raises InputError if an earlier stage has not run."""
        used = [self.features.folder(name) for name in sorted({*self.corpora, self.note["target"]})]
        for folder in used:
            require(folder, "features")
        options = {**asdict(self.settings), "features": self.features.name, "layers": list(self.features.layers)}
        return Stage(STAGE, self.title, self.folder, options, [self.fold_folder, *used], FORMAT)

    def scores_stage(self) -> Stage:
        """The stage of the scores, whose input is a finished ``stage``."""
        inputs = [self.folder, self.fold_folder]
        return Stage("score", self.title, self.folder / score.STAMP_FOLDER, {}, inputs, score.FORMAT)

    def cuts(self, name: str) -> list[Cut]:
        """The cuts of a set of the fold that are of corpora in use; none where the dev part is the test clips."""
        if name == DEV and self.note["dev"] == TEST:
            return []
        used = [self.note["target"]] if name == TEST else self.corpora
        return [cut for cut in open_cuts(self.fold_folder / f"{name}.jsonl.gz") if _corpus(cut) in used]


def _corpus(cut: Cut) -> str:
    return cut.supervisions[0].custom["corpus"]


def _clips(cuts: Sequence[Cut], pooled: Mapping[str, Mapping[str, np.ndarray]]) -> ProbeClips:
    """``pooled``: corpus -> clip -> its pooled features."""
    speakers = [f"{_corpus(cut)} {cut.supervisions[0].speaker}" for cut in cuts]
    classes = np.array([cut.supervisions[0].custom["class"] for cut in cuts], dtype=np.int64)
    some = next(iter(next(iter(pooled.values())).values()))
    vectors = [pooled[_corpus(cut)][cut.id] for cut in cuts]
    return ProbeClips(np.array(vectors).reshape(-1, *some.shape), classes, np.array(speakers, dtype=str))


def _predictions(cuts: Sequence[Cut], result: ProbeResult) -> list[ClipPrediction]:
    """The predictions of the test clips; the probe predicts neither intensity nor gender, so these are the same."""
    return [
        ClipPrediction(
            id=cut.id,
            corpus=_corpus(cut),
            speaker=cut.supervisions[0].speaker,
            gold_esc=cut.supervisions[0].custom["class"],
            posterior=posterior.tolist(),
            gold_eis=float(cut.supervisions[0].custom["eis"]),
            predicted_eis=seqm.NEUTRAL_EIS,
            gold_gender=cut.supervisions[0].gender,
            predicted_gender=GENDERS[0],
        )
        for cut, posterior in zip(cuts, result.posteriors[result.layer])
    ]


def run_probe(run: ProbeRun) -> bool:
    """The probe on one fold: leaves config.yaml, run.json, scores.tsv and metrics.json. Returns False if only planned.

    Raises InputError if an earlier stage has not run, or the fold does not suit it.
    """
    stage = run.stage()
    if not stage.needs_run() and not run.scores_stage().needs_run():
        return True
    if stage.added_to_plan():
        return False
    with stage.locked():
        stage.invalidate()
        _run(run, stage)
    return True


def _run(run: ProbeRun, stage: Stage) -> None:
    started = time.monotonic()
    names = sorted({*run.corpora, run.note["target"]})
    pooled = {name: run.features.pooled(name) for name in names}
    cuts = {name: run.cuts(name) for name in (TRAINING, DEV, TEST)}
    sets = {name: _clips(found, pooled) for name, found in cuts.items()}
    unseen = run.note["test_speakers_in_training"] == 0
    classes = class_table(run.note)
    try:
        result = probe(sets[TRAINING], sets[DEV], sets[TEST], len(classes.names), unseen, run.settings)
    except InputError as fault:
        raise InputError(f"{run.title}: {fault}") from fault
    with write_fault_is_an_input_error(run.folder):
        (run.folder / score.STAMP_FOLDER).mkdir(parents=True, exist_ok=True)
    configuration.save(run.config(), run.folder / "config.yaml")
    information = run_information(system=run.system, fold=run.fold, seed=SEED, msud=run.note, **asdict(run.settings))
    write_json(run.folder / "run.json", information)
    clips = len(cuts[TRAINING]) + len(cuts[DEV])
    stage.finish(run.folder, clips, clips, outputs=["config.yaml", "run.json"], unit="clips")
    facts = {"speech_activity": method_of(cuts[TEST]), "train_seconds": time.monotonic() - started}
    _write_scores(run, _predictions(cuts[TEST], result), result, facts)
    log.info(
        "%s: UA %.1f %% with layer %s; UA by layer on test clips: %s",
        run.title,
        100 * result.test_ua[result.layer],
        run.features.layers[result.layer],
        ", ".join(f"{name} {100 * ua:.1f}" for name, ua in zip(run.features.layers, result.test_ua)),
    )


def _write_scores(
    run: ProbeRun, predictions: Sequence[ClipPrediction], result: ProbeResult, facts: Mapping[str, Any]
) -> None:
    stage = run.scores_stage()
    classes, labels = class_table(run.note), score.label_set(run.note, TEST)
    own_classes = [classes.names.index(label) for label in labels]
    found = detailed_scores(predictions, False, classes, own_classes, intensities=False)
    metrics: dict[str, Any] = {f"{TEST}.{name}": value for name, value in found.items()}
    metrics.update({f"{TEST}.clips": len(predictions), f"{TEST}.per": None, "dev.ua": result.dev_ua[result.layer]})
    for part, values in ((DEV, result.dev_ua), (TEST, result.test_ua)):
        metrics.update({f"{part}.ua_of_layer_{name}": ua for name, ua in zip(run.features.layers, values)})
    git, gold = git_revision(), [prediction.gold_esc for prediction in predictions]
    metrics["run"] = {
        **{key: run.note[key] for key in (*score.EXPERIMENT, "fold", "folds", "test_speakers_in_training")},
        "system": run.system,
        "config": run.config_name,
        "seed": SEED,
        "set": [],
        "label_sets": {TEST: labels},
        "corpora": run.corpora,
        "probe": {**asdict(run.settings), "layers": list(run.features.layers)},
        "features": run.features.name,
        "by_speaker": run.settings.by_speaker,
        "as_published": run.note.get("as_published", []),
        "signal": run.features.signal,
        "layer": run.features.layers[result.layer],
        "confusion_of_layers": {
            name: confusion(gold, posteriors.argmax(1).tolist(), len(classes.names)).tolist()
            for name, posteriors in zip(run.features.layers, result.posteriors)
        },
        **dict.fromkeys(("phonemes", "per_set", "units")),
        "ctc_backend": "none",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "steps": 0,
        **facts,
        "best_epoch": "none",
        "trained_at_git": git,
        "scored_at_git": git,
    }
    write_scores(run.folder / SCORES, {TEST: predictions}, classes)
    write_json(run.folder / METRICS, metrics)
    outputs = [f"../{METRICS}", f"../{SCORES}"]
    stage.finish(stage.folder, len(predictions), len(predictions), outputs=outputs, unit="test clips")

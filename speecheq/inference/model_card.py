"""The model card of a trained model: its use, training data, scores and limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.markdown import markdown_table, without_html
from speecheq.common.stages import require
from speecheq.config.schema import FBANK, Config
from speecheq.corpora.data_card import CARDS, Card, read_cards
from speecheq.dataset.msud_recipe import TEST
from speecheq.dataset.protocols import ALL
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.metrics import calibration_error
from speecheq.evaluation.score_files import METRICS, read_scores
from speecheq.evaluation.score_files import SCORES as SCORE_FILE
from speecheq.inference.fold_calibration import fold_calibration
from speecheq.models.folder import CARD
from speecheq.reporting.calibration_tables import (
    DEV_OF_KNOWN_SPEAKERS,
    CalibratedClips,
    is_dev_of_known_speakers,
    rejection_table,
    reliability_table,
)
from speecheq.reporting.experiment import describe_audio_folders
from speecheq.reporting.tables import table_markdown

TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.j2"
# The scores that a card shows, in this order, with their names there.
SCORES = {
    "ua": "UA (mean recall of the classes)",
    "wa": "WA (accuracy)",
    "uai": "UAI (UA of neutral, joy, anger, sadness)",
    "eis_mse": "EIS, mean squared error",
    "eis_ccc": "EIS, CCC",
    "gender": "gender, accuracy",
    "per": "PER",
    "per_of_constant": "PER of one constant output",
}
OTHER_LICENCE = "other"
PROTOCOLS = {
    "random": "random folds: the test clips' speakers and texts are in training too",
    "speaker": "the test clips' speaker is in no training clip",
    "session": "the test clips' session is in no training clip",
    "text": "the test clips' texts are in no training clip",
    "official": "the corpus' own test part",
    "cross": "trained on other corpora, tested on the whole target",
}
SYSTEMS = {
    "speecheq": "An ECAPA-TDNN with Res-BiGRUs",
    "baseline": "A CNN with BiLSTM and self-attention",
    "cnn_blstm": "A CNN with BiLSTM and attention",
    "light": "A small network on the pooled states of a pretrained encoder",
    "fusion": "An ECAPA-TDNN with Res-BiGRUs on filter banks beside a pretrained encoder",
    "attention_ctc": "A BiLSTM with component attention, trained with CTC of emotions (after Zhao et al., 2019),",
    "hgfm": "HGFM, BiGRUs with self-attention (Xu et al., 2020, re-implemented),",
    "multihead_gender": "A CNN with multi-head attention (after Nediyanchath et al., 2020)",
    "head_fusion": "Head Fusion, a CNN with attention (Xu et al., 2021, re-implemented),",
}


def model_card(
    experiment: Path,
    name: str,
    licence: str,
    config: Config,
    parameters: tuple[int, int],
    scores_of: Path | None = None,
    trained_range: str = "",
    measured: str = "",
) -> str:
    """The card in Markdown with the header that the hub reads.

    ``parameters`` are the numbers of the network's and of the encoder's layers in use. A model that was trained on all
    clips (protocol ``all``) has the scores of ``scores_of``, the folder of the same system's folds. ``trained_range``
    is the range of the training clips in words; ``measured``, sections in Markdown, goes into the card as it is. Raises
    InputError if ``experiment`` was not trained and scored, or ``scores_of`` is of another system.
    """
    require(experiment, "train")
    run = read_json(experiment / "run.json")
    scored = _scored_folder(experiment, run, scores_of)
    metrics = read_json(scored / METRICS)
    # a package that was installed alone has no data cards
    protocol, known = metrics["run"], read_cards() if CARDS.is_dir() else {}
    # esd_zh is a part of esd; None for a corpus without a card
    cards = {
        corpus: known.get(corpus) or known.get(corpus.rpartition("_")[0])
        for corpus in (*protocol["corpora"], protocol["phonemes"])
        if corpus
    }
    kind = protocol["protocol"]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **_calibration(experiment, scored, metrics),
        cross_validated=scored != experiment,
        audio_folders=describe_audio_folders(run["sounds"]) if run.get("sounds") else "",
        cards=cards,
        config=config,
        encoder=_encoder_name(config),
        encoder_parameters=parameters[1],
        features=_features(config),
        data=_data_table(run["msud"], cards, config),
        header=_header(licence, cards),
        licence=licence,
        measured=measured.strip(),
        metrics=metrics,
        name=name,
        parameters=parameters[0],
        predicted=_predicted(config),
        protocol=protocol,
        protocol_in_words=next((text for name, text in PROTOCOLS.items() if kind.startswith(name)), "published folds"),
        scores=_score_table(metrics),
        started_from=_started_from(run.get("init_from")),
        seed=run["seed"],
        steps=run["steps"],
        system=SYSTEMS[config.model.kind],
        tasks=config.tasks(),
        trained_range=trained_range,
        training=run["msud"]["sets"]["emotion"],
        unseen=_unseen_classes(run["msud"], config),
    )


def _scored_folder(experiment: Path, run: Mapping[str, Any], scores_of: Path | None) -> Path:
    """Where the scores of a model stand: in its own folder, or in that of its folds if all clips were trained on."""
    if run["msud"]["protocol"] != ALL:
        require(experiment / "scored", "score")
        return experiment
    if scores_of is None:
        raise InputError(
            f"{experiment}: was trained on all clips, so none tests it; say which folds scored the same system: "
            "--scores-of exp/SYSTEM/TARGET.PROTOCOL."
        )
    if not (scores_of / METRICS).is_file():
        raise InputError(f"{scores_of}: holds no {METRICS}; run stage 5 (score and report) for its folds first.")
    of_folds = read_json(scores_of / METRICS)["run"]
    ours = (run["config_name"], run["system"], run["msud"]["target"], run["msud"]["classes"])
    if (of_folds["config"], of_folds["system"], of_folds["target"], of_folds["classes"]) != ours:
        raise InputError(f"{scores_of}: are folds of another system, target or classes than {experiment}; see both.")
    return scores_of


def _started_from(path: str | None) -> str:
    """The model whose weights a training started from, with the licence that its card states; empty without one."""
    if path is None:
        return ""
    start, licence = Path(path), ""
    if (start / CARD).is_file():
        parts = (start / CARD).read_text(encoding="utf-8").split("---\n", 2)
        header = yaml.safe_load(parts[1]) if len(parts) == 3 else None
        licence = str(header.get("license", "")) if isinstance(header, dict) else ""
    named = "of a model" if start.suffix == ".pt" else f"of {start.name}"
    return f"{named}, whose licence is {licence}" if licence not in ("", OTHER_LICENCE) else f"{named}: see its licence"


def _header(licence: str, cards: Mapping[str, Card | None]) -> str:
    header = {
        "license": licence or OTHER_LICENCE,
        "library_name": "speecheq",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "speecheq"],
        "datasets": [card.title if card else corpus for corpus, card in cards.items()],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _predicted(config: Config) -> str:
    """What the model predicts, as a list in words."""
    tasks = ["the emotion category (ESC)"]
    if config.loss.alpha > 0:
        tasks.append("its intensity (EIS, 0 to 4)")
    if "gender" in config.tasks():
        tasks.append("the speaker's gender")
    if "phoneme" in config.tasks():
        tasks.append("phonemes")
    *others, last = tasks
    return f"{', '.join(others)} and {last}" if others else last


def _encoder_name(config: Config) -> str:
    return config.encoder.source or Path(config.encoder.model).name


def _features(config: Config) -> str:
    """What the model takes, in words."""
    found = config.data.speech_activity
    return _frames(config) + ("" if found == "none" else f", from the first to the last speech that `{found}` finds")


def _frames(config: Config) -> str:
    """What a frame of it is, in words."""
    fbank = (
        "80 log mel filter banks of 16 kHz speech, 25 ms every 10 ms (Hamming window, no dither, `snip_edges=False`)"
    )
    if config.data.features == FBANK:
        return fbank
    encoder = config.encoder
    if encoder.is_signal:
        package, _, name = encoder.model.partition(":")
        return f"{encoder.dim} values of {package} ({name}), one frame every {1000 * encoder.frame_shift:.0f} ms"
    padded = ", clips padded to 30 s" if encoder.padding == "30s" else ""
    several = "s" if len(encoder.layer_numbers()) > 1 else ""
    states = f"the states of layer{several} {encoder.layers} of {_encoder_name(config)}, 50 a second{padded}"
    return f"{fbank} beside {states}" if config.model.kind == "fusion" else f"{states}, of 16 kHz speech"


def _data_table(msud: Mapping[str, Any], cards: Mapping[str, Card | None], config: Config) -> str:
    clips = msud["sets"]["emotion"]["corpus"]
    if config.data.corpora == "target":
        clips = {msud["target"]: clips[msud["target"]]}
    rows = []
    for corpus, card in cards.items():
        title, language = (f"[{card.title}]({card.source})", card.language) if card else (corpus, "?")
        task = "emotion" if corpus in clips else "phonemes"
        rows.append((title, language, task, str(clips.get(corpus, "-"))))
    return markdown_table(("corpus", "language", "used for", "clips of emotion in training"), rows)


def _score_table(metrics: Mapping[str, Any]) -> str:
    if "of_folds" in metrics["run"]:
        return _table_of_folds(metrics)
    sets = [name.rpartition(".")[0] for name in metrics if name.startswith("test") and name.endswith(".wa")]
    rows = []
    for key, title in SCORES.items():
        values = [metrics.get(f"{name}.{key}") for name in sets]
        if any(value is not None for value in values):
            rows.append([title, *("n/a" if value is None else f"{value:.3f}" for value in values)])
    return markdown_table(["score", *sets], rows)


def _table_of_folds(metrics: Mapping[str, Any]) -> str:
    """The scores of all folds: means and standard deviations, and of all their clips together with 95 % intervals."""
    rows = []
    for key, title in SCORES.items():
        mean, deviation, pooled = (metrics.get(f"{kind}test.{key}") for kind in ("", "std.", "pooled."))
        if mean is None:
            continue
        ends = [metrics.get(f"{end}.pooled.test.{key}") for end in ("low", "high")]
        interval = "" if None in ends else f" ({ends[0]:.3f} to {ends[1]:.3f})"
        spread = "" if deviation is None else f" ± {deviation:.3f}"
        rows.append([title, f"{mean:.3f}{spread}", "n/a" if pooled is None else f"{pooled:.3f}{interval}"])
    return markdown_table(["score", "mean of the folds", "all test clips together (95 % interval)"], rows)


def _calibration(experiment: Path, scored: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the posteriors: the calibration, and the tables of reliability and rejection."""
    if scored == experiment:
        own = DevCalibration.from_dict(metrics["run"].get("calibration"))
        sets = read_scores(scored / SCORE_FILE)
        clips = [clip for name, found in sets.items() if name.partition("/")[0] == TEST for clip in found]
    else:
        own, clips = fold_calibration(scored)
    return {
        "tested": len(clips),
        "ece": calibration_error([clip.gold_esc for clip in clips], [clip.posterior for clip in clips]),
        "calibration": own,
        "caution": DEV_OF_KNOWN_SPEAKERS if own.risks and is_dev_of_known_speakers(metrics["run"]) else "",
        "reliability": table_markdown(reliability_table(clips)),
        "rejection": table_markdown(rejection_table([CalibratedClips(own, clips)])) if own.risks else "",
    }


def _unseen_classes(msud: Mapping[str, Any], config: Config) -> list[str]:
    """The classes of which no training clip is."""
    if config.data.corpora == "target":
        classes = zip(msud["classes"], msud["class_esc"])
        return [without_html(name) for name, esc in classes if esc not in msud["target_esc"]]
    return [without_html(name) for name in msud["classes"] if not msud["sets"]["emotion"]["class"].get(name)]

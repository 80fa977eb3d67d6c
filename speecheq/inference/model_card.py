"""The model card of a trained model: its use, training data, scores and limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from speecheq.common.files import read_json
from speecheq.common.markdown import markdown_table, without_html
from speecheq.common.stages import require
from speecheq.config.schema import FBANK, Config
from speecheq.corpora.data_card import Card, read_cards
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.score_files import SCORES as SCORE_FILE
from speecheq.evaluation.score_files import read_scores
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
    experiment: Path, name: str, licence: str, config: Config, parameters: int, encoder_parameters: int = 0
) -> str:
    """The card in Markdown with the header that the hub reads.

    ``parameters`` is their number, without those of the encoder's layers in use. Raises InputError if ``experiment``
    was not trained and scored.
    """
    require(experiment, "train")
    require(experiment / "scored", "score")
    run, metrics = read_json(experiment / "run.json"), read_json(experiment / "metrics.json")
    protocol, known = metrics["run"], read_cards()
    # esd_zh is a part of esd; None for a corpus without a card
    cards = {
        corpus: known.get(corpus) or known.get(corpus.rpartition("_")[0])
        for corpus in (*protocol["corpora"], protocol["phonemes"])
        if corpus
    }
    kind = protocol["protocol"]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **_calibration(experiment, metrics),
        audio_folders=describe_audio_folders(run["sounds"]) if run.get("sounds") else "",
        cards=cards,
        config=config,
        encoder=_encoder_name(config),
        encoder_parameters=encoder_parameters,
        features=_features(config),
        data=_data_table(run["msud"], cards, config),
        header=_header(licence, cards),
        licence=licence,
        metrics=metrics,
        name=name,
        parameters=parameters,
        predicted=_predicted(config),
        protocol=protocol,
        protocol_in_words=next((text for name, text in PROTOCOLS.items() if kind.startswith(name)), "published folds"),
        scores=_score_table(metrics),
        system=SYSTEMS[config.model.kind],
        tasks=config.tasks(),
        training=run["msud"]["sets"]["emotion"],
        unseen=_unseen_classes(run["msud"], config),
    )


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
    sets = [name.rpartition(".")[0] for name in metrics if name.startswith("test") and name.endswith(".wa")]
    rows = []
    for key, title in SCORES.items():
        values = [metrics.get(f"{name}.{key}") for name in sets]
        if any(value is not None for value in values):
            rows.append([title, *("n/a" if value is None else f"{value:.3f}" for value in values)])
    return markdown_table(["score", *sets], rows)


def _calibration(experiment: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the posteriors: the calibration, and the tables of reliability and rejection."""
    own = DevCalibration.from_dict(metrics["run"].get("calibration"))
    clips = read_scores(experiment / SCORE_FILE)[TEST]
    return {
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

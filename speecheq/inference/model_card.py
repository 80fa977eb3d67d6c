"""The model card of a trained model: its use, training data, scores and limits."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from speecheq.common.files import read_json
from speecheq.common.markdown import markdown_table
from speecheq.common.stages import require
from speecheq.config.schema import Config
from speecheq.corpora.data_card import Card, read_cards
from speecheq.reporting.experiment import describe_audio_folders

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


def model_card(experiment: Path, name: str, licence: str, config: Config, parameters: int) -> str:
    """The card in Markdown with the header that the hub reads.

    ``parameters`` is their number. Raises InputError where ``experiment`` was not trained and scored.
    """
    require(experiment, "train")
    require(experiment / "scored", "score")
    run, metrics = read_json(experiment / "run.json"), read_json(experiment / "metrics.json")
    protocol, cards = metrics["run"], read_cards()
    used = {corpus: _data_card(corpus, cards) for corpus in [*protocol["corpora"], protocol["phonemes"]] if corpus}
    parts = [
        _header(licence, used),
        f"# {name}",
        f"{_description(config, parameters)} It was trained with SpeechEQ "
        f"(`{' '.join([protocol['config'], *protocol['set']])}`, system `{protocol['system']}`, "
        f"seed {protocol['seed']}).",
        "## Use",
        _use(config),
        "## Data",
        *_data(run, used, config),
        "## Protocol",
        _protocol(protocol, metrics),
        "## Scores",
        *_scores(metrics),
        "## Licences",
        *_licences(licence, used),
        "## Limits",
        *_limits(run, metrics, config),
    ]
    return "\n\n".join(parts) + "\n"


def _data_card(corpus: str, cards: Mapping[str, Card]) -> Card | None:
    """The data card of a corpus, also of one of its parts (esd_zh); None for a corpus without one."""
    return cards.get(corpus) or cards.get(corpus.rpartition("_")[0])


def _header(licence: str, used: Mapping[str, Card | None]) -> str:
    header: dict[str, Any] = {
        "license": licence or OTHER_LICENCE,
        "library_name": "speecheq",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "speecheq"],
        "datasets": [card.title if card else corpus for corpus, card in used.items()],
    }
    return "---\n" + yaml.safe_dump(header, sort_keys=False, allow_unicode=True) + "---"


def _description(config: Config, parameters: int) -> str:
    tasks = ["the emotion category (ESC)"]
    if config.loss.alpha > 0:
        tasks.append("its intensity (EIS, 0 to 4)")
    if "gender" in config.tasks():
        tasks.append("the speaker's gender")
    if "phoneme" in config.tasks():
        tasks.append("phonemes")
    *others, last = tasks
    predicted = f"{', '.join(others)} and {last}" if others else last
    kind = {
        "speecheq": "An ECAPA-TDNN with Res-BiGRUs",
        "baseline": "A CNN with BiLSTM and self-attention",
        "cnn_blstm": "A CNN with BiLSTM and attention",
    }
    return f"{kind[config.model.kind]}, {parameters / 1e6:.2f} M parameters, that predicts {predicted} from speech."


def _use(config: Config) -> str:
    options = [option for task, option in (("gender", "--gender "), ("phoneme", "--phones ")) if task in config.tasks()]
    return (
        f"```\nspeecheq predict --model FOLDER_OR_ID {''.join(options)}some.wav\n```\n\n"
        "Features: 80 log mel filter banks of 16 kHz speech, 25 ms every 10 ms (Hamming window, no dither, "
        f"`snip_edges=False`); normalisation: `{config.data.cmvn}`."
    )


def _data(run: dict[str, Any], used: Mapping[str, Card | None], config: Config) -> Iterator[str]:
    sets = run["msud"]["sets"]
    clips = sets["emotion"]["corpus"]
    if config.data.corpora == "target":
        clips = {run["msud"]["target"]: clips[run["msud"]["target"]]}
    rows = []
    for corpus, card in used.items():
        title, language = (f"[{card.title}]({card.source})", card.language) if card else (corpus, "?")
        task = "emotion" if corpus in clips else "phonemes"
        rows.append((title, language, task, str(clips.get(corpus, "-"))))
    yield markdown_table(("corpus", "language", "used for", "clips of emotion in training"), rows).rstrip()
    if run.get("sounds"):
        yield (
            f"Also trained with {describe_audio_folders(run['sounds'])}, of folders that only its maker knows, with "
            "their licences."
        )
    if config.data.corpora == "all":
        yield "Training clips by class: " + _counts(sets["emotion"]["class"]) + "."
        yield "Training clips by EIS: " + _counts(sets["emotion"]["eis"]) + "."


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _protocol(protocol: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    words = next((text for name, text in PROTOCOLS.items() if protocol["protocol"].startswith(name)), "published folds")
    return (
        f"`{protocol['name']}`, fold {protocol['fold']} of {protocol['folds']}: {words}. {metrics['test.clips']} "
        f"test clips; {protocol['test_speakers_in_training']} of their speakers were trained on. The epoch "
        f"({protocol['best_epoch']}) was chosen on a dev part of the training folds; the test clips were scored "
        "once."
    )


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    sets = [name.rpartition(".")[0] for name in metrics if name.startswith("test") and name.endswith(".wa")]
    rows = []
    for key, title in SCORES.items():
        values = [metrics.get(f"{name}.{key}") for name in sets]
        if any(value is not None for value in values):
            rows.append([title, *("n/a" if value is None else f"{value:.3f}" for value in values)])
    yield markdown_table(["score", *sets], rows).rstrip()
    yield (
        "These are the scores of one fold and one seed; they do not show how much other folds and seeds differ. Code "
        f"at {metrics['run']['trained_at_git']}."
    )


def _licences(licence: str, used: Mapping[str, Card | None]) -> Iterator[str]:
    unnamed = (
        "no licence was named when this folder was made. Whether they may be passed on depends on the terms of the "
        "corpora below"
    )
    yield f"The weights: {licence or unnamed}."
    yield "\n".join(
        f"- {card.title}: {card.licence}" if card else f"- {corpus}: has no data card, its terms are not known here"
        for corpus, card in used.items()
    )


def _limits(run: Mapping[str, Any], metrics: Mapping[str, Any], config: Config) -> Iterator[str]:
    note = run["msud"]
    if config.data.corpora == "target":
        unseen = [name for name, esc in zip(note["classes"], note["class_esc"]) if esc not in note["target_esc"]]
    else:
        unseen = [name for name in note["classes"] if not note["sets"]["emotion"]["class"].get(name)]
    limits = [
        "Most emotion corpora are acted: how people act an emotion is not how they speak when they have it.",
        "It judges voices, not people: do not base a decision about a person on its predictions.",
        "Other languages, microphones, rooms and ages than those of the corpora above were not tested.",
    ]
    if unseen:
        limits.append(f"No training clip is of {', '.join(unseen)}: a prediction of one of these is a guess.")
    labels = note["sets"]["emotion"]["eis"]
    if config.loss.alpha == 0:
        limits.append("It was not trained on intensity (EIS): it names the category alone.")
    elif not labels.get("specified"):
        limits.append("No training clip has an EIS label: its EIS and its SEQM names mean nothing.")
    elif labels["specified"] < labels.get("unspecified", 0):
        limits.append(
            f"Only {labels['specified']} of {sum(labels.values())} training clips have an EIS label: its EIS and its "
            "SEQM names mean little for classes without one."
        )
    if config.loss.alpha > 0 and labels.get("specified") and metrics.get("test.eis_mse") is None:
        limits.append("No test clip has an EIS label: the error of its EIS was not measured.")
    if "gender" in config.tasks():
        limits.append("Gender is the F or M of the corpora, predicted from the voice.")
    yield "\n".join(f"- {limit}" for limit in limits)

"""A trained model as a folder for others: weights, settings, labels and a model card.

model.safetensors   the weights, in a format that cannot hold code
config.yaml         all settings of the training
labels.json         the classes, genders and phones of the outputs, the temperature and the thresholds of posteriors,
                    the range of the training clips
README.md           the model card: data, protocol, scores, licences, limits
encoder/            of a model that stands on a pretrained encoder: its files, cut to the layers that are used
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import read_json, whole_folder
from speecheq.common.hub import fetch_model
from speecheq.common.log import log
from speecheq.config import layers as configuration
from speecheq.config.schema import Config
from speecheq.corpora.layout import decode_lines
from speecheq.dataset.model_inputs import encoder_of, waveform_extractor
from speecheq.dataset.protocols import ALL
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.trained_range import TrainedRange
from speecheq.features.encoder_states import encoder_settings
from speecheq.features.encoders import encoder_digest, save_encoder
from speecheq.models import checkpoint
from speecheq.models.folder import (
    CARD,
    ENCODER,
    FILES,
    FORMAT,
    LABEL_TABLES,
    LABELS,
    RANGE,
    SETTINGS,
    WEIGHTS,
    labels_text,
    read_folder,
)

CALIBRATION = "calibration"  # beside LABEL_TABLES; older folders have none


def write(
    experiment: Path,
    folder: Path,
    name: str = "",
    licence: str = "",
    scores_of: Path | None = None,
    measured: Path | None = None,
) -> None:
    """Write the best model of a trained and scored ``experiment`` (exp/.../fold<k>/seed<s>) as a model folder.

    ``name`` is the title of the card (default: the folder's name), ``licence`` that of the weights. ``scores_of`` is
    the experiment whose folds have scored a model that was trained on all clips (see ``model_card``), ``measured`` a
    Markdown file for the card. Raises InputError where stage 4 or 5 has not run, or the pretrained encoder that the
    model stands on is gone.
    """
    from safetensors.torch import save

    from speecheq.inference.fold_calibration import fold_calibration  # which take long to import
    from speecheq.inference.model_card import model_card

    experiment, folder = Path(experiment), Path(folder)
    content = checkpoint.read(experiment / "best.pt")
    model, config = checkpoint.restore(content, str(experiment / "best.pt"))
    encoder = encoder_of(waveform_extractor(config, model.trained_encoder))
    size, encoder_size = (0 if part is None else sum(p.numel() for p in part.parameters()) for part in (model, encoder))
    further = "" if measured is None else "\n".join(line.rstrip("\r") for _, line in decode_lines(measured))
    title = name or folder.resolve().name
    trained_range = TrainedRange.from_dict(content.get(RANGE)).in_words
    card = model_card(experiment, title, licence, config, (size, encoder_size), scores_of, trained_range, further)
    tables = {"format": FORMAT, **{table: content[table] for table in LABEL_TABLES}}
    own = DevCalibration.from_dict(content.get(CALIBRATION))
    if scores_of is not None and read_json(experiment / "run.json")["msud"]["protocol"] == ALL:
        own, _ = fold_calibration(scores_of)
    tables[CALIBRATION] = own.to_dict()
    if RANGE in content:
        tables[RANGE] = content[RANGE]
    with whole_folder(folder) as temporary:
        weights = {key: value.contiguous() for key, value in content["model"].items()}
        (temporary / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        if encoder is not None:
            (temporary / ENCODER).mkdir()
            save_encoder(encoder, temporary / ENCODER)
            _refer_to_saved_encoder(config, temporary)
        configuration.save(config, temporary / SETTINGS)
        (temporary / LABELS).write_text(labels_text(tables), encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")
    log.info("%s: %.1f MB", folder, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def _refer_to_saved_encoder(config: Config, folder: Path) -> None:
    """Make ``config`` name the encoder inside the model folder, by its digest there.

    There it has what was trained of it in its weights: it is used as one that is not trained.
    """
    saved = replace(encoder_settings(config.encoder), model=str(folder / ENCODER))
    config.encoder.model, config.encoder.digest = ENCODER, encoder_digest(saved)
    config.encoder.train = "none"


def read(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint of the same model (see ``checkpoint.save``), without the state of training.

    Raises InputError for a folder that lacks a file, or whose files are not whole.
    """
    content = read_folder(folder)
    for name, part in ((CALIBRATION, DevCalibration), (RANGE, TrainedRange)):
        try:
            part.from_dict(content.get(name))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{Path(folder) / LABELS}: its {name} is damaged ({error}); copy the file again, or make the folder "
                "again."
            ) from error
    return content


def download(model_id: str) -> Path:
    """The folder of a model of the Hugging Face hub, from its cache if it is there. Raises InputError without one."""
    return fetch_model(model_id, [*FILES, f"{ENCODER}/*"], f"{model_id}: there is no such file or folder here")

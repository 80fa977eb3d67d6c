"""Where a trained model may come from, and what is refused."""

import json
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
import torch

from speecheq.common import files
from speecheq.common.errors import InputError
from speecheq.config.model import MODEL_KINDS
from speecheq.inference import model_folder, trained_model
from speecheq.inference.model_card import model_card
from speecheq.inference.trained_model import Inference, Labels, load_trained_model
from speecheq.models import checkpoint


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    model_folder.write(experiment, path, licence="apache-2.0")
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def batch():
    return torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([90, 57])


def test_a_model_folder_is_the_checkpoint(experiment, folder):
    of_folder, of_checkpoint = load_trained_model(folder), load_trained_model(experiment / "best.pt")
    assert of_folder.labels == of_checkpoint.labels
    there, here = of_folder(*batch(), phones=True), of_checkpoint(*batch(), phones=True)
    assert all(np.array_equal(a, b) for a, b in zip(there[:3], here[:3])) and there.phones == here.phones
    assert sorted(path.name for path in folder.iterdir()) == sorted(model_folder.FILES)


def test_the_card_says_what_went_in_and_what_came_out(experiment, folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((experiment / "metrics.json").read_text())
    assert card.startswith("---\nlicense: apache-2.0\n") and "# tiny" in card
    assert f"| UA (mean recall of the classes) | {metrics['test.ua']:.3f} |" in card
    assert "CASIA: none is named with the public part" in card and "AISHELL-1: Apache-2.0" in card
    assert "the test clips' speaker is in no training clip" in card and "No training clip has an EIS label" in card
    assert "No training clip is of trust, anticipation, disgust" in card


def test_the_card_has_what_its_maker_measured(experiment, tmp_path):
    measured = tmp_path / "measured.md"
    measured.write_bytes("\ufeff## In a café\r\n\r\n| UA |\r\n| --- |\r\n| 0.5 |\r\n".encode())
    model_folder.write(experiment, tmp_path / "out", measured=measured)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "\n\n## In a café\n\n| UA |\n| --- |\n| 0.5 |\n\n## Licences\n" in card
    measured.write_bytes("fine\nIn a café\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"measured.md, line 2: is not UTF-8"):
        model_folder.write(experiment, tmp_path / "out", measured=measured)
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == card


@pytest.mark.parametrize("kind", MODEL_KINDS)
def test_the_card_of_every_kind_and_of_one_task(experiment, monkeypatch, kind):
    sounds = {"unlabelled": {"files": 12, "hours": 1.5}}
    read_json = files.read_json
    monkeypatch.setattr("speecheq.inference.model_card.read_json", lambda path: {**read_json(path), "sounds": sounds})
    _, config = checkpoint.restore(checkpoint.read(experiment / "best.pt"), "it")
    config.model.kind, config.loss.alpha, config.loss.beta, config.loss.eta = kind, 0.0, 0.0, 0.0
    card = model_card(experiment, "tiny", "", config, (1_230_000, 0), trained_range="speech of 1.0 to 5.0 s")
    assert "Range of its training clips (99 % of them): speech of 1.0 to 5.0 s." in card
    assert "1.23 M parameters, that predicts the emotion category (ESC) from speech." in card
    assert "It was not trained on intensity (EIS)" in card and "EIS label" not in card
    assert "Also trained with unlabelled speech (12 files, 1.5 h), of folders that only its maker knows" in card


def test_a_fold_that_was_not_scored_makes_no_folder(experiment, tmp_path):
    shutil.copytree(experiment, tmp_path / "seed1")
    shutil.rmtree(tmp_path / "seed1" / "scored")
    with pytest.raises(InputError, match="stage 5"):
        model_folder.write(tmp_path / "seed1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_do_not_depend_on_the_mini_batch_or_its_padding(experiment):
    model = load_trained_model(experiment / "best.pt")
    features, lengths = batch()
    features[1, 57:] = float("nan")
    together, alone = model(features, lengths), model(features[1:, :57], lengths[1:])
    np.testing.assert_allclose(together.posterior[1], alone.posterior[0], atol=1e-6)
    assert np.isfinite(together.posterior).all() and np.isfinite(together.eis).all()


def test_only_what_was_trained_is_answered(experiment):
    content = checkpoint.read(experiment / "best.pt")
    model, config = checkpoint.restore(content, "it")
    config.loss.eta = config.loss.beta = 0.0
    labels = Labels.from_checkpoint(content, config)
    assert labels.outputs() == ("esc_posterior", "eis", "embedding")
    assert [tuple(value.shape) for value in Inference(model, config, labels.outputs())(*batch())] == [
        (2, 9),
        (2,),
        (2, 16),
    ]


def test_an_id_is_fetched_from_the_hub(folder, monkeypatch):
    """A stand-in for the hub's client: no network is needed to see what is asked of it."""
    asked = []
    client = types.ModuleType("huggingface_hub")
    client.snapshot_download = lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    assert load_trained_model("someone/tiny").labels == load_trained_model(folder).labels
    assert asked == [("someone/tiny", [*model_folder.FILES, "encoder/*"])]

    def offline(name, allow_patterns):
        raise OSError("no route to the hub.\nmore words")

    client.snapshot_download = offline
    with pytest.raises(InputError, match=r"someone/tiny: .* downloaded from the hub \(no route to the hub\)\.$"):
        load_trained_model("someone/tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        load_trained_model("someone/tiny")


def test_the_model_of_the_package_is_taken_where_none_is_named(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(trained_model, "DEFAULT_MODEL", folder)
    assert load_trained_model().labels == load_trained_model(folder).labels
    monkeypatch.setattr(trained_model, "DEFAULT_MODEL", tmp_path / "none")
    with pytest.raises(InputError, match="no model is given, and none comes with this version"):
        load_trained_model()


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_pickle_is_not_run(tmp_path, write):
    write({"format": checkpoint.FORMAT, "model": Harmful()}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="best.pt: is not a complete checkpoint"):
        load_trained_model(tmp_path / "best.pt")


@pytest.mark.parametrize(
    "name, sentence",
    [("best.pt", "there is no such model"), ("a/b/c", "there is no such model"), ("x.onnx", "there is no such model")],
)
def test_a_model_that_is_not_there(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{name}: {sentence}"):
        load_trained_model(name)


def test_weights_of_another_architecture(experiment, tmp_path):
    content = checkpoint.read(experiment / "best.pt")
    content["config"]["model"]["channels"] = 32
    checkpoint.write(tmp_path / "wide.pt", content)
    with pytest.raises(InputError, match="wide.pt: its weights do not fit its settings"):
        load_trained_model(tmp_path / "wide.pt")
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="other.pt: is not a checkpoint of this version of SpeechEQ"):
        load_trained_model(tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "labels.json"])
def test_a_folder_without_a_file_is_no_model(copied, name):
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"is not a model folder, it lacks {name}"):
        load_trained_model(copied)


def test_a_folder_whose_files_are_not_whole(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="model.safetensors: is not a whole file of weights"):
        load_trained_model(copied)
    (copied / "labels.json").write_text('{"format": 1, "classes": []}')
    with pytest.raises(InputError, match="labels.json: is not the label table"):
        load_trained_model(copied)

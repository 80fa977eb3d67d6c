"""What is out of the range of the training clips, and where that range is kept."""

import json
import shutil

import lhotse
import numpy as np
import pytest
from speech_like import RATE, speech_like

from speecheq.common.errors import InputError
from speecheq.evaluation.trained_range import FEWEST_CLIPS, NOTE, TrainedRange, distances, fit_range
from speecheq.features.clip_statistics import clip_statistics, mean_spectrum
from speecheq.inference import model_folder
from speecheq.inference.predictor import Predictor
from speecheq.inference.trained_model import load_trained_model
from speecheq.models import checkpoint
from speecheq.models.folder import LABELS, RANGE, folder_fingerprint, labels_text


def clips_like_those_of_training(number, seed=0, dim=40, aside=0.0):
    """Statistics, and embeddings (N, D) in three directions and a little in all, moved ``aside`` in another one."""
    random = np.random.default_rng(seed)
    statistics = [
        {"seconds": seconds, "level": level, "bandwidth": bandwidth}
        for seconds, level, bandwidth in zip(
            random.uniform(1, 5, number), random.uniform(-40, -15, number), random.uniform(5000, 8000, number)
        )
    ]
    directions = np.linalg.qr(np.random.default_rng(9).standard_normal((dim, 4)))[0]
    embeddings = random.standard_normal((number, 3)) @ (5 * directions[:, :3].T)
    embeddings += 0.1 * random.standard_normal((number, dim)) + aside * directions[:, 3]
    return statistics, embeddings


def test_clips_like_those_of_training_are_in_range_and_others_are_not():
    trained = fit_range(*clips_like_those_of_training(500))
    statistics, embeddings = clips_like_those_of_training(400, seed=1)
    assert trained.in_words == "speech of 1.02 to 4.98 s, level -40 to -15 dBFS, bandwidth 5.0 to 8.0 kHz"
    notes = [trained.note(*clip) for clip in zip(statistics, embeddings)]
    assert sum(bool(note) for note in notes) < 0.06 * 400
    _, unlike = clips_like_those_of_training(400, seed=2, aside=4.0)
    inside = {"seconds": 2.0, "level": -20.0, "bandwidth": 7000.0}
    assert all("sounds unlike the training clips" in trained.note(inside, embedding) for embedding in unlike)
    note = trained.note({"seconds": 0.3, "level": -80.0, "bandwidth": 3400.0}, embeddings[0])
    assert note.startswith(NOTE + "speech of 0.30 s (trained on 1.0") and ";" not in note
    assert "level -80 dBFS (trained on -40 to -15)" in note and "bandwidth 3.4 kHz (trained on 5.0 to 8.0)" in note


def test_clips_that_were_not_trained_on_widen_the_range_of_embeddings():
    statistics, embeddings = clips_like_those_of_training(200)
    _, others = clips_like_those_of_training(50, seed=3, aside=1.0)
    alone, both = fit_range(statistics, embeddings), fit_range(statistics, embeddings, others)
    assert both.farthest > alone.farthest and both.bounds == alone.bounds
    assert np.mean(distances(others, both.subspace) <= both.farthest) > 0.97


def test_few_clips_have_no_range():
    trained = fit_range(*clips_like_those_of_training(FEWEST_CLIPS - 1))
    assert not trained.bounds and trained.subspace is None
    assert trained.note({"seconds": 0.1, "level": -90.0, "bandwidth": 100.0}, np.ones(40)) == ""
    assert TrainedRange.from_dict(None) == TrainedRange()


def test_a_model_that_has_diverged_has_no_range_of_embeddings():
    found = fit_range([], np.full((100, 8), np.nan), np.full((20, 8), np.inf))
    assert found.subspace is None and not found.bounds


def test_it_is_kept_as_text_and_what_is_damaged_is_refused():
    trained = fit_range(*clips_like_those_of_training(80))
    values = json.loads(json.dumps(trained.to_dict()))
    again = TrainedRange.from_dict(values)
    assert again == trained and np.array_equal(again.subspace, trained.subspace)
    for damage in (
        {"bounds": {"level": [3, 1]}},
        {"bounds": {"pitch": [1, 3]}},
        {"embedding": {"rows": 3}},
        {"clips": ""},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            TrainedRange.from_dict({**values, **damage})


@pytest.mark.parametrize("length", [16000, 512, 513, 300, 301])
def test_the_spectrum_is_welchs(length):
    from scipy.signal import welch

    samples = np.random.default_rng(length).normal(size=length).astype(np.float32)
    frequencies, powers = mean_spectrum(samples)
    expected_frequencies, expected = welch(samples, 16000, nperseg=min(512, length))
    assert np.array_equal(frequencies, expected_frequencies)
    assert powers / powers.sum() == pytest.approx(expected / expected.sum(), rel=1e-3, abs=1e-6)


def test_level_and_bandwidth():
    speech = speech_like(2, level=0.1)
    found = clip_statistics(speech, 2.0)
    quiet = clip_statistics(speech * np.float32(0.01), 2.0)
    assert quiet["level"] == pytest.approx(found["level"] - 40, abs=0.1) and -23 < found["level"] < -14
    assert quiet["bandwidth"] == found["bandwidth"]
    time = np.arange(RATE) / RATE
    tones = 0.1 * np.sin(2 * np.pi * 500 * time) + 0.05 * np.sin(2 * np.pi * 3000 * time)
    assert clip_statistics(tones.astype(np.float32), 1.0)["bandwidth"] == pytest.approx(3000, abs=70)
    assert np.isfinite(list(clip_statistics(np.zeros(400, np.float32), 0.0).values())).all()


# ---- in a model


@pytest.fixture(scope="module")
def with_range(experiment, tmp_path_factory):
    """The tiny trained experiment with a range that no clip of noise is in, and recordings of its test part."""
    folder = shutil.copytree(experiment, tmp_path_factory.mktemp("exp") / experiment.parent.name / experiment.name)
    content = checkpoint.read(folder / "best.pt")
    statistics, embeddings = clips_like_those_of_training(100, dim=16)
    trained = fit_range(statistics, embeddings + 100)
    content[RANGE] = trained.to_dict()
    checkpoint.write(folder / "best.pt", content)
    stamp = json.loads((folder / "stage.json").read_text())
    stamp["outputs"]["best.pt"] = (folder / "best.pt").stat().st_size
    (folder / "stage.json").write_text(json.dumps(stamp))
    cuts = lhotse.CutSet.from_file(experiment.parents[4] / "msud/casia.speaker/fold1/test.jsonl.gz")
    return folder, [cut.recording.sources[0].source for cut in cuts][:3]


def test_training_keeps_the_range_of_its_clips(experiment):
    trained = TrainedRange.from_dict(checkpoint.read(experiment / "best.pt")[RANGE])
    assert trained.clips == sum(1 for _ in lhotse.CutSet.from_file(emotion_of(experiment)))
    assert load_trained_model(experiment / "best.pt", "cpu").labels.trained_range == trained


def emotion_of(experiment):
    return experiment.parents[4] / "msud/casia.speaker/fold1/emotion.jsonl.gz"


def test_checkpoint_folder_and_onnx_file_note_the_same(with_range, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    from speecheq.inference.export import export_model

    folder, recordings = with_range
    model_folder.write(folder, tmp_path / "folder")
    export_model(folder / "best.pt", tmp_path / "model.onnx")
    expected = [clip.note for clip in Predictor(folder / "best.pt", "cpu").predict(recordings)]
    assert all("speech of 0.50 s (trained on 1.0" in note and "sounds unlike" in note for note in expected)
    for model in ("folder", "model.onnx"):
        notes = [clip.note for clip in Predictor(tmp_path / model, "cpu").predict(recordings)]
        assert notes == expected


def test_models_without_say_nothing_and_a_folder_that_gets_one_is_the_same_start(with_range, tmp_path):
    folder, recordings = with_range
    model_folder.write(folder, tmp_path / "folder")
    tables = json.loads((tmp_path / "folder" / LABELS).read_text())
    before = folder_fingerprint(tmp_path / "folder")
    del tables[RANGE]
    (tmp_path / "folder" / LABELS).write_text(labels_text(tables))
    assert folder_fingerprint(tmp_path / "folder") == before
    assert [clip.note for clip in Predictor(tmp_path / "folder", "cpu").predict(recordings)] == [""] * 3
    (tmp_path / "folder" / LABELS).write_text(labels_text({**tables, RANGE: {"bounds": []}}))
    with pytest.raises(InputError, match="its range is damaged"):
        Predictor(tmp_path / "folder", "cpu")

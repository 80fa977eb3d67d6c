"""What follows the training of a system on encoder states: predict, package, export; the encoder goes along."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from training_runs import ROOT, make_encoder_recipe

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.evaluation.score_files import read_scores
from speecheq.features.fbank_and_states import FbankAndStates
from speecheq.inference import model_folder
from speecheq.inference.compare_exports import compare_models
from speecheq.inference.export import export_model
from speecheq.inference.front_end import LogMelExtractor, LogMelInput
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import Segment
from speecheq.inference.speakers import ALONE, ALONE_AS_TRAINED
from speecheq.inference.trained_model import load_trained_model
from speecheq.models import checkpoint

# The encoder is trained too, so far that it gives other answers than before.
TRAINED = ["data.input=waveform", "encoder.learning_rate=0.05", "encoder.lora_rank=2"]
TRAINED += [f"augment.{change}_probability=0" for change in ("pitch", "tempo", "reverb", "noise")]
# system: settings beside LIGHT
KINDS = {
    "light": [],
    "by_speaker": ["data.cmvn=speaker", "model.pooling=mean"],
    "fusion": ["model.kind=fusion", "model.mfa_channels=32", "model.scale=4"],
    "lora": [*TRAINED, "encoder.train=lora", "model.pooling=statistics"],
    "fusion_top": [*TRAINED, "model.kind=fusion", "model.mfa_channels=32", "model.scale=4", "encoder.train=top:1"],
}


@pytest.fixture(scope="module")
def trained(toys, tmp_path_factory):
    """``trained(kind)``: a system of KINDS on a tiny Whisper, trained and scored once; ``trained.data`` its data."""
    folder = make_encoder_recipe(toys, tmp_path_factory.mktemp("encoder"))
    made = {}

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert main.main(list(map(str, arguments))) == 0

    def of_kind(kind):
        if not made:
            encoder = f"tiny={folder / 'whisper'}"
            run("features", "--data", "data", "--features", encoder, "--corpora", "seqd", "aishell", "--nj", "1")
        if kind not in made:
            common = ["--data", "data", "--exp", f"exp.{kind}", "--config", "conf/light.yaml", "--systems", "speecheq"]
            common += ["--features", "tiny", "--target", "seqd", "--protocol", "official", "--folds", "1"]
            changed = [word for setting in KINDS[kind] for word in ("--set", setting)]
            run("train", *common, "--phonemes", "aishell", "--set", "loss.ctc_backend=torch", *changed)
            run("score", *common)
            made[kind] = folder / f"exp.{kind}/light-tiny-speecheq/seqd.official/fold1/seed1"
        return made[kind]

    of_kind.data = folder
    return of_kind


def test_cuts(trained):
    return list(open_cuts(trained.data / "data/msud/seqd.official/fold1/test.jsonl.gz"))


test_cuts.__test__ = False


def segments(trained):
    return [Segment(cut.id, cut.recording.sources[0].source) for cut in test_cuts(trained)]


def predicted(model, trained, **more):
    predictor = Predictor(model, "cpu", gender=True, phones=True)
    return list(predictor.predict_segments(segments(trained), pytest.fail, **more))


def assert_equal(found, expected, tolerance=1e-3):
    assert [p.source for p in found] == [p.source for p in expected]
    for one, other in zip(found, expected):
        assert list(one.posterior.values()) == pytest.approx(list(other.posterior.values()), abs=tolerance)
        assert one.eis == pytest.approx(other.eis, abs=5 * tolerance)


@pytest.mark.parametrize("kind", ["light", "fusion", "lora", "fusion_top"])
def test_predictions_are_those_that_stage_5_scored(trained, kind):
    scored = {p.id: p for p in read_scores(trained(kind) / "scores.tsv")["test"]}
    found = predicted(trained(kind) / "best.pt", trained)
    assert len(found) == len(scored) > 4
    for p in found:
        # stored filter banks are rounded
        assert list(p.posterior.values()) == pytest.approx(scored[p.source].posterior, abs=2e-3)
        assert p.eis == pytest.approx(scored[p.source].predicted_eis, abs=5e-3)


@pytest.mark.parametrize("kind", ["light", "fusion", "by_speaker", "lora", "fusion_top"])
def test_a_model_folder_needs_no_other_file(trained, kind, tmp_path, monkeypatch):
    model_folder.write(trained(kind), tmp_path / "model", licence="apache-2.0")
    expected = predicted(trained(kind) / "best.pt", trained)
    assert sorted(path.name for path in (tmp_path / "model/encoder").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    (tmp_path / "model").rename(tmp_path / "moved")
    (trained.data / "whisper").rename(trained.data / "hidden")
    try:
        with pytest.raises(InputError, match="there is no such folder"):
            load_trained_model(trained(kind) / "best.pt", "cpu")
        assert_equal(predicted(tmp_path / "moved", trained), expected)
    finally:
        (trained.data / "hidden").rename(trained.data / "whisper")
    card = (tmp_path / "moved/README.md").read_text(encoding="utf-8")
    assert "the states of layers 1 2 of some/id, 50 a second" in card and "- The encoder, some/id: MIT" in card
    assert "M of the encoder" in card
    was_trained = {"lora": "encoder.train: lora", "fusion_top": "encoder.train: top:1"}
    assert f"`{was_trained[kind]}`" in card if kind in was_trained else "The encoder's weights were not trained" in card
    assert ("--one-speaker" in card) == (kind == "by_speaker")
    assert str(trained.data) not in card + (tmp_path / "moved/config.yaml").read_text()


def test_another_encoder_in_its_place_is_an_error(trained, tmp_path):
    model_folder.write(trained("light"), tmp_path / "model")
    settings = tmp_path / "model/encoder/preprocessor_config.json"
    settings.write_text(json.dumps({**read_json(settings), "do_normalize": True}))
    with pytest.raises(InputError, match="is not the encoder that the model was trained with"):
        load_trained_model(tmp_path / "model", "cpu")


@pytest.mark.parametrize("kind", ["light", "fusion", "lora"])
def test_an_onnx_file_answers_as_the_checkpoint_at_any_length(trained, kind, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    export_model(trained(kind) / "best.pt", tmp_path / "model.onnx")
    export_model(trained(kind) / "best.pt", tmp_path / "int8.onnx", int8=True)
    ours, theirs, int8 = (
        load_trained_model(path, "cpu")
        for path in (trained(kind) / "best.pt", tmp_path / "model.onnx", tmp_path / "int8.onnx")
    )
    assert isinstance(ours.extractor, FbankAndStates) == (kind == "fusion")
    noise = np.random.default_rng(0)
    for count, longest in ((1, 400), (1, 561), (3, 8000), (4, 31234), (2, 480000)):
        lengths = torch.from_numpy(noise.integers(400, longest + 1, count))
        lengths[-1] = longest
        samples = torch.from_numpy(0.1 * noise.standard_normal((count, longest)).astype(np.float32))
        with torch.inference_mode():
            expected = ours(*ours.extractor(samples, lengths), phones=True)
            found = theirs(*theirs.extractor(samples, lengths), phones=True)
            rough = int8(*int8.extractor(samples, lengths))
        assert found.posterior == pytest.approx(expected.posterior, abs=1e-3)
        assert found.eis == pytest.approx(expected.eis, abs=1e-3)
        assert found.gender == pytest.approx(expected.gender, abs=1e-3)
        assert [len(row) for row in found.phones] == [len(row) for row in expected.phones]
        assert rough.posterior == pytest.approx(expected.posterior, abs=0.1)
    assert_equal(predicted(tmp_path / "model.onnx", trained), predicted(trained(kind) / "best.pt", trained))
    with pytest.raises(InputError, match="takes 30 s at most"):
        theirs.extractor(torch.zeros(1, 480001), torch.tensor([480001]))


@pytest.mark.skipif(torch.__version__.startswith("1."), reason="torch 1 has no torch.export")
def test_a_torch_export_answers_as_the_checkpoint(trained, tmp_path):
    export_model(trained("light") / "best.pt", tmp_path / "model.pt2")
    extra = {"speecheq": "", "outputs": ""}
    program = torch.export.load(str(tmp_path / "model.pt2"), extra_files=extra).module()
    extractor = LogMelExtractor(LogMelInput.from_dict(json.loads(extra["speecheq"])["features"]))
    ours = load_trained_model(trained("light") / "best.pt", "cpu")
    for count, samples in ((1, 6500), (3, 48100)):
        waveforms, lengths = 0.1 * torch.randn(count, samples), torch.full((count,), samples)
        with torch.inference_mode():
            expected = ours(*ours.extractor(waveforms, lengths))
            found = dict(zip(json.loads(extra["outputs"]), program(*extractor(waveforms, lengths))))
        assert found["esc_posterior"].numpy() == pytest.approx(expected.posterior, abs=1e-3)


def test_what_cannot_be_exported_is_one_sentence(trained, tmp_path):
    with pytest.raises(InputError, match="normalised by speaker cannot be exported with its encoder"):
        export_model(trained("by_speaker") / "best.pt", tmp_path / "model.onnx")
    with pytest.raises(InputError, match="cannot keep the number of clips of model.kind fusion open"):
        export_model(trained("fusion") / "best.pt", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_a_trained_encoder_gives_other_answers(trained, monkeypatch):
    """Else the tests of this file would pass with the encoder as it was."""
    expected = predicted(trained("lora") / "best.pt", trained)
    restore = checkpoint.restore

    def without(content, source):
        model, config = restore(content, source)
        model.trained_encoder = None
        return model, config

    monkeypatch.setattr(checkpoint, "restore", without)
    found = predicted(trained("lora") / "best.pt", trained)
    assert max(abs(one.eis - other.eis) for one, other in zip(found, expected)) > 0.02


@pytest.mark.parametrize("kind", ["light", "by_speaker"])
def test_forms_of_the_model_are_compared_on_waveforms(trained, kind, tmp_path):
    model_folder.write(trained(kind), tmp_path / "model")
    rows = compare_models(trained(kind), trained.data / "data/msud/seqd.official", [str(tmp_path / "model")])
    scores = read_json(trained(kind) / "metrics.json")
    assert [row.clips for row in rows] == [scores["test.clips"]] * 2
    assert rows[0].scores["ua"] == pytest.approx(scores["test.ua"], abs=1e-6)
    assert rows[1].changed == 0 and rows[1].difference < 1e-3


# ---- by speaker


def speakers(trained):
    return [cut.supervisions[0].speaker for cut in test_cuts(trained)]


def test_with_the_speakers_predictions_are_those_that_stage_5_scored(trained, tmp_path, capsys):
    scored = {p.id: p for p in read_scores(trained("by_speaker") / "scores.tsv")["test"]}
    names = dict(zip(segments(trained), speakers(trained)))
    assert len(set(names.values())) == 2
    found = predicted(trained("by_speaker") / "best.pt", trained, speaker_of=names.__getitem__)
    for p in found:
        assert list(p.posterior.values()) == pytest.approx(scored[p.source].posterior, abs=1e-3)
        assert not p.note
    # the same by the command, from a table
    table = tmp_path / "speakers.tsv"
    files = [str(segment.path) for segment in names]
    rows = "".join(f"{file}\t{speaker}\n" for file, speaker in zip(files, names.values()))
    table.write_text("file\tspeaker\n" + rows)
    command = ["predict", "--model", str(trained("by_speaker") / "best.pt"), "--format", "csv", "--device", "cpu"]
    assert main.main([*command, "--speaker-from", str(table), *files]) == 0
    answers = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    for row, p in zip(answers, found):
        assert float(row["eis"]) == pytest.approx(p.eis, abs=1e-3) and row["note"] == ""
    # all as one person
    assert main.main([*command, "--one-speaker", *files]) == 0
    together = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert any(abs(float(one["eis"]) - float(two["eis"])) > 1e-3 for one, two in zip(answers, together))
    # the speakers of this corpus have a folder each
    assert main.main([*command, "--speaker-from", "folder", *files]) == 0
    assert list(csv.DictReader(capsys.readouterr().out.splitlines())) == answers


def test_without_speakers_each_recording_is_normalised_by_itself(trained, capsys):
    files = [str(segment.path) for segment in segments(trained)][:3]
    predictor = Predictor(trained("by_speaker") / "best.pt", "cpu")
    found = predictor.predict(files)
    assert [p.note for p in found] == [ALONE] * 3
    for file, p in zip(files, found):
        assert predictor(file)[0].eis == pytest.approx(p.eis, abs=1e-4)
        assert predictor.predict([file], ["her"])[0].eis == pytest.approx(p.eis, abs=1e-4)
    assert predictor(0.1 * np.random.default_rng(0).standard_normal(8000), 16000)[0].note == ALONE
    together = predictor.predict(files, ["one", "one", "two"])
    assert [p.note for p in together] == ["", "", ALONE]
    assert together[0].eis != pytest.approx(found[0].eis, abs=1e-4)
    with pytest.raises(InputError, match="3 recordings have 2 speakers"):
        predictor.predict(files, ["one", "two"])
    command = ["predict", "--device", "cpu", "--model"]
    assert main.main([*command, str(trained("by_speaker") / "best.pt"), *files]) == 0
    assert "say whose they are by --one-speaker or --speaker-from" in capsys.readouterr().err


def test_a_model_normalised_by_its_training_data_takes_the_speakers_instead(trained):
    files = [str(segment.path) for segment in segments(trained)][:4]
    predictor = Predictor(trained("light") / "best.pt", "cpu")
    assert predictor.model.cmvn == "global"
    plain, spoken = predictor.predict(files), predictor.predict(files, ["one", "one", "one", "two"])
    assert [p.note for p in spoken] == ["", "", "", ALONE_AS_TRAINED]
    assert spoken[3].posterior == pytest.approx(plain[3].posterior, abs=1e-4)
    assert all(abs(one.eis - other.eis) > 1e-3 for one, other in zip(plain[:3], spoken[:3]))
    # the model behind its normalisation gets what one that is normalised by speaker gets
    predictor.model.inference[False].model.cmvn.mode, predictor.by_speaker = "speaker", True
    for p, other in zip(spoken[:3], predictor.predict(files, ["one", "one", "one", "two"])):
        assert p.eis == pytest.approx(other.eis, abs=1e-3)
        assert p.posterior == pytest.approx(other.posterior, abs=1e-3)


def test_a_model_that_cannot_be_normalised_by_speaker_says_so(trained, tmp_path, capsys):
    export_model(trained("light") / "best.pt", tmp_path / "model.onnx")
    command = ["predict", "--device", "cpu", "--model", str(tmp_path / "model.onnx"), "--one-speaker"]
    assert main.main([*command, str(segments(trained)[0].path)]) == 1
    assert "cannot normalise them by speaker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("name,speaker\na.wav,one\n", "lacks the column file"),
        ("file,speaker\na.wav,\n", "line 2: lacks the file or its speaker"),
        ("file,speaker\na.wav,one\na.wav,two\n", "line 3: a.wav has two speakers"),
        ("file,speaker\na.wav,one\n", "names no speaker of"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(trained, tmp_path, capsys, rows, reason):
    (tmp_path / "speakers.csv").write_text(rows)
    command = ["predict", "--device", "cpu", "--model", str(trained("by_speaker") / "best.pt")]
    file = str(segments(trained)[0].path)
    assert main.main([*command, "--speaker-from", str(tmp_path / "speakers.csv"), file]) == 1
    assert reason in capsys.readouterr().err


# ---- the first answer


def test_prediction_imports_neither_sympy_nor_scipy(trained):
    """They take seconds; torch's device meta and the model card would import them."""
    code = (
        "import sys; from speecheq.inference.predictor import Predictor; import speecheq.inference.predict_command;"
        f"Predictor({str(trained('light') / 'best.pt')!r}, 'cpu');"
        "print([name for name in ('sympy', 'scipy', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"

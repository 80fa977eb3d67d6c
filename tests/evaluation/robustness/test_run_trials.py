"""Stage 5 in noise and under attack, on a trained fold."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.common.stages import STAMP
from speecheq.corpora import audio_folder
from speecheq.corpora.prepare import PrepareRequest
from speecheq.dataset.batch import load_samples, scoring_batches
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.evaluation.robustness import attack_trial, attacks, conditions, noise_trial
from speecheq.evaluation.robustness.attack_trial import ATTACKS, METHOD_NAMES, AttackTrial, attack_clips, random_offsets
from speecheq.evaluation.robustness.conditions import ATTACK_ON_FBANK, ATTACK_ON_WAVEFORM, CLEAN, NOISE, TELEPHONE
from speecheq.evaluation.robustness.noise_trial import NoiseTrial
from speecheq.evaluation.robustness.run_trials import run_trial
from speecheq.evaluation.robustness.telephone_trial import TelephoneTrial
from speecheq.evaluation.robustness.white_box import WhiteBox, fbank_ball, waveform_ball
from speecheq.evaluation.score import BestModel
from speecheq.evaluation.score_files import read_metrics, read_scores
from speecheq.features.fbank import BatchedFbank
from speecheq.models.checkpoint import fingerprint
from speecheq.seqm import SEQM_CLASSES

CLIPS = 12  # of a speaker
RUN = ["--config", "nano.yaml", "--systems", "speecheq", "--target", "casia", "--protocol", "speaker", "--folds", "1"]


def tone(path, seconds, rate=16000, frequency=440, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 10000 * np.sin(2 * np.pi * frequency / rate * np.arange(round(seconds * rate)))
    soundfile.write(path, np.stack([samples] * channels, 1).astype(np.int16), rate, subtype="PCM_16")


def prepared(folder, name="noise"):
    """The manifests of a folder of sounds, beside it."""
    manifests = folder.parent / f"{folder.name}.manifests"
    audio_folder.prepare(name, "noises", PrepareRequest(folder), manifests)
    return manifests


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """One shorter than the clips, one at another rate, one of two channels."""
    folder = tmp_path_factory.mktemp("noise") / "test"
    tone(folder / "short.wav", 0.11)
    tone(folder / "other-rate.wav", 2, 44100, 700)
    tone(folder / "stereo.wav", 2, 16000, 900, 2)
    return prepared(folder)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rir") / "rooms"
    tone(folder / "hall.wav", 0.3)
    return prepared(folder, "rir")


@pytest.fixture
def fold(own_experiment):
    """A trained and scored fold."""
    return own_experiment


@pytest.fixture
def msud(experiment):
    return experiment.parents[4] / "msud" / "casia.speaker"


def rows_of(folder, setting):
    rows, left_out = conditions.read(folder.parents[1])
    assert not left_out
    return {row.condition.name: row for row in rows if row.setting == setting}


def test_noise_at_each_snr_and_reverberation(fold, msud, noises, rooms):
    run_trial(fold, msud, 1, NoiseTrial(noises, rooms, (20.0, 0.0)))
    rows = rows_of(fold, NOISE)
    assert list(rows) == ["clean", "noise at 20 dB", "noise at 0 dB", "reverberation"]
    assert all(row.metrics["clips"] == CLIPS for row in rows.values())
    notes = " ".join(rows["clean"].facts["notes"])
    assert "one of 3 recordings of noise (other-rate.wav, short.wav, stereo.wav) is added" in notes
    assert "by one of 1 impulse responses of --test-rir (hall.wav)" in notes and "measured" not in notes
    predictions = read_scores(fold / NOISE.folder / "scores.tsv")
    assert any(a.posterior != b.posterior for a, b in zip(predictions["clean"], predictions["noise at 0 dB"]))


def test_by_telephone(fold, msud):
    run_trial(fold, msud, 1, TelephoneTrial())
    rows = rows_of(fold, TELEPHONE)
    assert list(rows) == ["clean", "mu-law", "A-law", "GSM"]
    assert all(row.metrics["clips"] == CLIPS for row in rows.values())
    assert rows["GSM"].facts["notes"] == ["each clip is filtered to 300 to 3400 Hz, at 8000 Hz, and coded and decoded"]
    predictions = read_scores(fold / TELEPHONE.folder / "scores.tsv")
    before = read_scores(fold / "scores.tsv")["test"]
    assert [clip.id for clip in predictions["clean"]] == [clip.id for clip in before]
    posteriors = [tuple(tuple(clip.posterior) for clip in predictions[name]) for name in rows]
    assert len(set(posteriors)) == 4, "each condition is another"


def test_many_noises_are_counted_and_only_those_that_are_held(fold, tmp_path, monkeypatch):
    for number in range(14):
        tone(tmp_path / "many" / "deep" / f"{number}.wav", 0.5, frequency=200 + 20 * number)
    trial = NoiseTrial(prepared(tmp_path / "many"), None, (10.0,))
    _, facts = trial.extractors(fold, BestModel.load(fold))
    assert "one of 14 recordings of noise is added" in facts["notes"][0]
    monkeypatch.setattr(noise_trial, "HOURS", 1.2 / 3600)
    _, facts = trial.extractors(fold, BestModel.load(fold))
    note = facts["notes"][0]
    assert "one of 2 of 14 recordings of noise (drawn with seed 0, they fill" in note and note.count("deep/") == 2


def test_without_rooms_reverberation_is_simulated(fold, msud, noises):
    run_trial(fold, msud, 1, NoiseTrial(noises, None, (10.0,)))
    rows = rows_of(fold, NOISE)
    assert "simulated reverberation" in rows
    predictions = read_scores(fold / NOISE.folder / "scores.tsv")
    assert any(a.posterior != b.posterior for a, b in zip(predictions["clean"], predictions["simulated reverberation"]))


@pytest.mark.parametrize(
    "trial", [AttackTrial("waveform", ("fgsm",), (-40.0,)), AttackTrial("fbank", (), (1.0,)), None]
)
def test_unchanged_clips_get_the_scores_of_stage_5(fold, msud, noises, trial):
    trial = trial or NoiseTrial(noises, None, (10.0,))
    run_trial(fold, msud, 1, trial)
    before, clean = (
        read_scores(fold / "scores.tsv")["test"],
        read_scores(fold / trial.setting.folder / "scores.tsv")["clean"],
    )
    assert [clip.id for clip in clean] == [clip.id for clip in before]
    assert [clip.predicted_esc for clip in clean] == [clip.predicted_esc for clip in before]
    # stored features are rounded
    assert np.array([clip.posterior for clip in clean]) == pytest.approx(
        np.array([clip.posterior for clip in before]), abs=2e-3
    )
    row, scores = rows_of(fold, trial.setting)["clean"], read_metrics(fold)
    assert row.metrics["ua"] == pytest.approx(scores["test.ua"]) and row.metrics["wa"] == scores["test.wa"]


@pytest.fixture
def stream(msud):
    """A mini-batch of waveforms of test clips, of different lengths."""
    cuts = list(open_cuts(msud / "fold1" / "test.jsonl.gz"))[:4]
    cuts = [cut.truncate(duration=seconds, preserve_id=True) for cut, seconds in zip(cuts, (0.5, 0.31, 0.44, 0.2))]
    return next(scoring_batches("emotion", cuts, 4, load_samples))


class PassThrough(torch.nn.Module):
    """In place of the filter banks: the waveforms themselves."""

    def forward(self, waveforms, lengths):
        return waveforms, lengths


def test_the_snr_is_as_stated_and_the_noise_the_same_at_each(fold, noises, stream, monkeypatch):
    monkeypatch.setattr(noise_trial, "waveform_extractor", lambda *_: PassThrough())
    trial = NoiseTrial(noises, None, (20.0, 5.0, 0.0))
    changes = {
        condition.level: change
        for condition, change in trial.extractors(fold, BestModel.load(fold))[0].items()
        if condition == CLEAN or condition.curve
    }
    assert changes[None](stream).inputs.equal(stream.inputs)
    added = {level: change(stream).inputs - stream.inputs for level, change in changes.items() if level is not None}
    for level, sound in added.items():
        for row, length in enumerate(stream.lengths.tolist()):
            power, noise_power = (x[row, :length].double().square().mean().item() for x in (stream.inputs, sound))
            assert 10 * np.log10(power / noise_power) == pytest.approx(level, abs=0.01)
            assert not sound[row, length:].any()
    assert added[0.0] == pytest.approx(added[20.0] * 10, abs=1e-4)
    fewer = replace(stream, inputs=stream.inputs[:1], lengths=stream.lengths[:1], ids=stream.ids[:1])
    assert changes[5.0](fewer).inputs[0, : stream.lengths[0]].equal(changes[5.0](stream).inputs[0, : stream.lengths[0]])


def trained_on(folder, *manifests):
    """Let a training say that it used these sounds."""
    stamp = json.loads((folder / STAMP).read_text())
    for path in manifests:
        key = json.loads((path / STAMP).read_text())["key"] if (path / STAMP).is_file() else "k"
        stamp["inputs"][str(path)] = key
    (folder / STAMP).write_text(json.dumps(stamp))


def started_from(folder, weights):
    """Let a training say that it started from these weights."""
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "init_from": str(weights)}))
    stamp = json.loads((folder / STAMP).read_text())
    stamp["options"]["init_from"] = fingerprint(weights)
    stamp["outputs"]["run.json"] = (folder / "run.json").stat().st_size
    (folder / STAMP).write_text(json.dumps(stamp))


@pytest.mark.parametrize(
    "name, rate, channels",
    [("other-name.wav", 16000, 1), ("other-format.flac", 16000, 1), ("two-channels.wav", 16000, 2)],
)
def test_a_noise_of_the_training_is_refused_by_name(fold, msud, noises, tmp_path, name, rate, channels):
    tone(tmp_path / "trained" / "a.wav", 1, frequency=300)
    tone(tmp_path / "tested" / "b.wav", 1, frequency=500)
    tone(tmp_path / "tested" / name, 1, rate, 300, channels)
    trained_on(fold, prepared(tmp_path / "trained"))
    with pytest.raises(InputError) as refused:
        run_trial(fold, msud, 1, NoiseTrial(prepared(tmp_path / "tested"), None))
    assert f"tested/{name}: was trained on" in str(refused.value) and "trained/a.wav" in str(refused.value)
    assert not (fold / NOISE.folder).exists()
    run_trial(fold, msud, 1, NoiseTrial(noises, None, (10.0,)))  # others are not


def test_an_impulse_response_of_the_training_is_refused_too(fold, msud, noises, rooms):
    trained_on(fold, rooms)
    with pytest.raises(InputError, match="hall.wav: was trained on"):
        run_trial(fold, msud, 1, NoiseTrial(noises, rooms))


def test_noises_of_the_training_that_are_gone_cannot_be_checked(fold, msud, noises, tmp_path):
    trained_on(fold, tmp_path / "gone")
    with pytest.raises(InputError, match="gone: does not exist any more, but .* was trained with it"):
        run_trial(fold, msud, 1, NoiseTrial(noises, None))


def test_a_noise_of_the_training_before_is_refused_too(fold, msud, noises, rooms, tmp_path):
    before = tmp_path / "before"
    shutil.copytree(fold, before)
    trained_on(before, rooms)
    started_from(fold, before / "best.pt")
    with pytest.raises(InputError, match="hall.wav: was trained on"):
        run_trial(fold, msud, 1, NoiseTrial(noises, rooms))


def test_a_silent_noise_is_refused_by_name(tmp_path):
    tone(tmp_path / "silent" / "a.wav", 1)
    soundfile.write(tmp_path / "silent" / "b.wav", np.zeros(16000), 16000)
    with pytest.raises(InputError, match="b.wav: is silent"):
        prepared(tmp_path / "silent")


def test_noise_that_stage_1_has_not_seen_is_said(fold, msud, tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        run_trial(fold, msud, 1, NoiseTrial(tmp_path / "no", None))


@pytest.mark.parametrize(
    "on, setting, level", [("waveform", ATTACK_ON_WAVEFORM, -20.0), ("fbank", ATTACK_ON_FBANK, 3.0)]
)
def test_attacks_leave_no_more_right_than_there_were(fold, msud, on, setting, level):
    run_trial(fold, msud, 1, AttackTrial(on, tuple(ATTACKS), (level,)))
    rows = rows_of(fold, setting)
    assert list(rows) == ["clean", *(f"{name} at {level:g} dB" for name in METHOD_NAMES.values())]
    predictions = read_scores(fold / setting.folder / "scores.tsv")
    clean = {clip.id: clip for clip in predictions.pop("clean")}
    right = [name for name, clip in clean.items() if clip.predicted_esc == clip.gold_esc]
    assert 0 < len(right) < CLIPS, "the trial needs some of each"
    for name, clips in predictions.items():
        for clip in clips:
            before, number = clean[clip.id], clip.gold_esc
            if clip.id in right:
                assert clip.posterior[number] < before.posterior[number]
            else:
                assert clip.posterior == pytest.approx(before.posterior, abs=1e-4)
        assert rows[name].metrics["wa"] <= rows["clean"].metrics["wa"]
    facts = rows["clean"].facts
    assert facts["levels"] == [level] and "know the model" in facts["notes"][0]
    assert facts["gradients"] == {"attacked": len(right), "without": 0}


@pytest.mark.parametrize("method", list(ATTACKS))
def test_padding_and_misclassified_clips_stay_as_they_are(fold, stream, method):
    trained = BestModel.load(fold)
    box = WhiteBox(trained.model, BatchedFbank(), trained.device, "fold")
    with torch.no_grad():
        answers = box.waveform_logits(stream.lengths)(stream.inputs).argmax(1)
    gold = answers.clone()
    gold[1] = (gold[1] + 1) % len(SEQM_CLASSES.names)
    stream = replace(stream, targets={**stream.targets, "esc": gold})
    made = attack_clips(box.waveform_logits, waveform_ball, stream, ATTACKS[method], -20.0)
    assert made[1].equal(stream.inputs[1]) and made.abs().max() <= 1
    for row, length in enumerate(stream.lengths.tolist()):
        assert not made[row, length:].any()
        assert row == 1 or not made[row].equal(stream.inputs[row])
    features, frames = box.extractor(stream.inputs, stream.lengths)
    of_fbank = replace(stream, inputs=features, lengths=frames)
    changed = attack_clips(box.fbank_logits, fbank_ball, of_fbank, ATTACKS[method], 1.0) - features
    assert not changed[1].any()
    for row, length in enumerate(frames.tolist()):
        assert not changed[row, length:].any()
        assert changed[row].abs().max() <= np.log(10) / 10 + 1e-5


def test_the_start_of_an_attack_follows_from_the_clip_alone():
    ids, lengths = ["a", "b", "c"], torch.tensor([5, 9, 7])
    both = random_offsets(ids, lengths, torch.zeros(3, 9, 4))
    assert both.abs().max() <= 1 and both[1].std() > 0.3 and not both[0, 5:].any()
    assert random_offsets(ids[:1], lengths[:1], torch.zeros(1, 12, 4))[0, :5].equal(both[0, :5])


def test_a_done_trial_is_skipped_and_another_is_made_anew(fold, msud, monkeypatch):
    trial = AttackTrial("fbank", ("fgsm",), (1.0,))
    run_trial(fold, msud, 1, trial)
    before = (fold / ATTACK_ON_FBANK.folder / STAMP).read_bytes()
    run_trial(fold, msud, 1, trial)
    assert (fold / ATTACK_ON_FBANK.folder / STAMP).read_bytes() == before
    run_trial(fold, msud, 1, replace(trial, levels=(2.0,)))
    assert list(rows_of(fold, ATTACK_ON_FBANK)) == ["clean", "FGSM at 2 dB"]


def test_the_same_trial_gives_the_same_answers(fold, msud, noises):
    written = []
    for _ in range(2):
        for trial in (AttackTrial("waveform", ("pgd", "apgd"), (-40.0,)), NoiseTrial(noises, None, (5.0,))):
            run_trial(fold, msud, 1, trial)
            written.append((fold / trial.setting.folder / "scores.tsv").read_bytes())
            shutil.rmtree(fold / trial.setting.folder)
    assert written[:2] == written[2:]


def test_a_masked_gradient_is_warned_of(fold, msud, monkeypatch, caplog):
    def blinded(logits, ball, gold, share):
        return ball.centre

    monkeypatch.setitem(attack_trial.ATTACKS, "apgd", blinded)
    monkeypatch.setitem(
        attack_trial.ATTACKS, "fgsm", lambda logits, ball, gold, share: attacks.apgd(logits, ball, gold, 100, share)
    )
    run_trial(fold, msud, 1, AttackTrial("fbank", ("fgsm", "apgd"), (30.0,)))
    assert "the gradient may be masked" in caplog.text


def test_a_masked_gradient_is_counted_and_does_not_hide_from_dlr(fold, msud, monkeypatch, caplog):
    box_of = attack_trial.WhiteBox

    class Scaled(torch.nn.Module):
        """The same answers, with logits so far apart that the gradient of the cross-entropy is rounded to 0."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, features, lengths, tasks):
            found = self.model(features, lengths, tasks=tasks)
            return replace(found, esc_logits=1e12 * found.esc_logits)

    monkeypatch.setattr(attack_trial, "WhiteBox", lambda model, *others: box_of(Scaled(model), *others))
    run_trial(fold, msud, 1, AttackTrial("fbank", ("fgsm", "apgd", "apgd_dlr"), (30.0,)))
    rows = rows_of(fold, ATTACK_ON_FBANK)
    counts = rows["clean"].facts["gradients"]
    assert counts["without"] == counts["attacked"] > 0
    assert f"{counts['without']} have a gradient of the cross-entropy that is 0 or not finite" in caplog.text
    accuracy = {name: row.metrics["wa"] for name, row in rows.items()}
    assert accuracy["AutoPGD+DLR at 30 dB"] < accuracy["FGSM at 30 dB"]
    assert rows["clean"].facts["notes"][1].startswith("AutoPGD+DLR is AutoPGD, then")


def test_without_its_checkpoint_a_training_cannot_be_tried(fold, msud):
    (fold / "best.pt").unlink()
    with pytest.raises(InputError, match=r"best.pt: does not exist any more; .* exported model \(ONNX\) cannot take"):
        run_trial(fold, msud, 1, AttackTrial("fbank", ("fgsm",), (1.0,)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["noise"], "robustness noise: no noise is given"),
        (["noise", "--noise", "n", "--snr", "loud"], "'loud' is not a list of numbers"),
        (["attack", "--fbank-levels", "0"], "cannot change by 0 dB at most: give levels above 0"),
        (["attack", "--attacks", "magic"], "invalid choice: 'magic'"),
        (["attack", "--on", "text"], "invalid choice: 'text'"),
        (["heat"], "invalid choice: 'heat'"),
    ],
)
def test_bad_options_are_one_sentence(experiment, arguments, words, capfd):
    options = ["--data", str(experiment.parents[4]), "--exp", "exp", *RUN]
    assert main.main(["robustness", *arguments, *options]) == 1
    shown = capfd.readouterr().err
    assert words in shown and "Traceback" not in shown and len(shown.strip().splitlines()) == 1


def test_the_command_tries_what_it_is_told(fold, msud, noises, tmp_path):
    options = ["--data", str(msud.parents[1]), "--exp", str(tmp_path / "exp"), *RUN]
    options += ["--noise", str(noises), "--snr", "10, 0"]
    options += ["--attacks", "fgsm", "--on", "fbank", "--fbank-levels", "0.5 1"]
    assert main.main(["robustness", "noise", "attack", *options]) == 0
    assert list(rows_of(fold, NOISE)) == ["clean", "noise at 10 dB", "noise at 0 dB", "simulated reverberation"]
    assert list(rows_of(fold, ATTACK_ON_FBANK)) == ["clean", "FGSM at 0.5 dB", "FGSM at 1 dB"]
    assert not rows_of(fold, ATTACK_ON_WAVEFORM)

"""MTL-AUG: one change a clip, what is left of its length, the losses without labels, unlabelled speech."""

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from speecheq.common.errors import InputError
from speecheq.config.schema import AUGMENTATIONS, AugmentConfig, Config, ModelConfig
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.audio_folder import prepare as prepare_audio
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.batch import MultitaskBatch, TaskBatch, join_shares
from speecheq.dataset.frontend import OF_WAVEFORMS, Frontend, interpolate_frames
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.loader import multitask_batches
from speecheq.dataset.unlabelled import unlabelled_cuts
from speecheq.features.augment_waveforms import Augmenter, draw
from speecheq.features.fbank import BatchedFbank
from speecheq.features.noise_and_rir import WaveformBank
from speecheq.features.storage import compute_features, load_cuts
from speecheq.losses import LossWeights, reconstruction_loss
from speecheq.models import build_model, checkpoint
from speecheq.seqm import SEQM_CLASSES
from speecheq.training.precision import Precision, copy_buffers
from speecheq.training.step import StepSetup, gradients, stream_loss, train_step

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)
ALL = " ".join(AUGMENTATIONS[1:])
KINDS = ("speecheq", "baseline", "cnn_blstm", "light")
# light takes 80 filter banks for the one layer of an encoder here
LAYERS_OF_FBANK = dict(encoder_layers=1, encoder_dim=80)


def noise_like(samples, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def config(one_of=ALL, kind="speecheq", **augment) -> Config:
    made = Config()
    made.data.input, made.data.batch_size, made.data.workers, made.data.max_seconds = "waveform", 3, 0, 0.6
    made.data.unlabelled, made.data.cmvn = True, "utterance"
    made.augment = dataclasses.replace(made.augment, one_of=one_of, **augment)
    made.specaugment.time_masks, made.mixup.alpha = 2, 0.5
    made.loss = dataclasses.replace(
        made.loss, gamma=0.0, alpha=0.0, beta=0.0, eta=0.0, augmentation=0.5, reconstruction=0.5
    )
    made.model = ModelConfig(
        kind=kind,
        channels=12,
        mfa_channels=16,
        scale=4,
        bottleneck=8,
        embedding_dim=10,
        num_augmentations=len(AUGMENTATIONS),
        decoder_channels=8,
        **(LAYERS_OF_FBANK if kind == "light" else {}),
    )
    made.validate()
    return made


@pytest.fixture(scope="module")
def folder(toys, tmp_path_factory):
    """Prepared: a corpus with features, and a folder of unlabelled speech."""
    folder = tmp_path_factory.mktemp("toy")
    found = [
        Utterance(f"u{n}", toys.write_wav(folder / "audio" / f"{n}.wav", 0.3 + 0.1 * n), "s", "F", label="mad")
        for n in range(8)
    ]
    prepare_corpus(
        Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"}),
        lambda *_: found,
        PrepareRequest(folder / "audio"),
        folder / "manifests",
    )
    compute_features("toy", folder / "manifests", folder / "fbank")
    for number, rate in enumerate((16000, 8000, 44100)):
        toys.write_wav(folder / "speech" / f"{number}.wav", 0.7 + number, rate, 1 + number % 2)
    prepare_audio("unlabelled", "speech", PrepareRequest(folder / "speech"), folder / "unlabelled", speech=True)
    return folder


@pytest.fixture
def sets(folder):
    cuts = list(load_cuts(folder / "fbank"))
    for cut in cuts:
        cut.supervisions[0].custom["class"] = 3
    return {"emotion": CutSet.from_cuts(cuts), "unlabelled": unlabelled_cuts(folder / "unlabelled", cuts)}


def batches(sets, made, count):
    frontend = Frontend(made, CPU, None, None)
    stream = multitask_batches(sets, made.data, seed=1)
    return [frontend(next(stream)) for _ in range(count)]


# ---- one change a clip


def test_every_type_has_the_same_odds_and_noise_needs_noises():
    ids = [f"u{n}" for n in range(7000)]
    drawn = draw(1, "emotion", 0, ids)
    with_noise = Augmenter(AugmentConfig(one_of=ALL), 1, WaveformBank([noise_like(900)])).types(drawn)
    counts = np.bincount(with_noise, minlength=len(AUGMENTATIONS))
    assert (abs(counts - 1000) < 120).all(), "four deviations of a binomial distribution"
    without = np.bincount(Augmenter(AugmentConfig(one_of=ALL), 1).types(drawn), minlength=len(AUGMENTATIONS))
    assert without[AUGMENTATIONS.index("noise")] == 0 and (without > 0).sum() == len(AUGMENTATIONS) - 1
    assert Augmenter(AugmentConfig(), 1).types(drawn) is None


def changed(one_of, **augment):
    """24 clips of 9,000 samples, what became of them and their lengths; and their types."""
    clips, lengths = torch.stack([noise_like(9000, n) for n in range(24)]), torch.full((24,), 9000)
    augmenter = Augmenter(AugmentConfig(one_of=one_of, **augment), 1, WaveformBank([noise_like(4000, 99)]))
    drawn = draw(1, "emotion", 0, [f"u{n}" for n in range(24)])
    return clips, *augmenter.apply(clips, lengths, drawn), augmenter.types(drawn)


def test_a_clip_has_its_own_change_and_no_other():
    clips, made, lengths, types = changed(ALL, speed_low=1.05)
    for clip, other, length, name in zip(clips, made, lengths.tolist(), (AUGMENTATIONS[n] for n in types)):
        assert (length != 9000) == (name == "speed")
        # what changes features, not waveforms, leaves the samples as they are
        same = length == 9000 and torch.equal(clip, other[:9000])
        assert same == (name in ("none", "specaugment", "mixup")), name


def test_another_speed_is_another_rate_of_the_same_waveform():
    """Kaldi's speed perturbation: at factor s a tone of f Hz has s f Hz, and the clip is 1 / s as long."""
    tone = torch.sin(2 * np.pi * 500 * torch.arange(16000) / 16000)[None]
    drawn = {name: torch.zeros(1, dtype=torch.float64) for name in draw(1, "emotion", 0, ["a"])}
    drawn["type"] += 0.99  # the last of two
    made, lengths = Augmenter(AugmentConfig(one_of="speed", speed_low=0.8), 1).apply(tone, torch.tensor([16000]), drawn)
    assert lengths.tolist() == [20000]
    spectrum = torch.fft.rfft(made[0, :20000] * torch.hann_window(20000)).abs()
    assert int(spectrum.argmax()) * 16000 / 20000 == 400


@pytest.mark.parametrize("name", ["specaugment", "mixup"])
def test_features_are_changed_only_where_that_is_the_type(sets, name):
    number, seen = AUGMENTATIONS.index(name), set()
    for batch in batches(sets, config(), 8):
        for stream in batch.streams().values():
            types, changes = stream.targets["augmentation"], stream.changes
            own = types == number
            seen.update(own.tolist())
            if name == "mixup":
                assert (changes.mixup.shares[~own] == 1).all() and (changes.mixup.shares[own] < 1).all()
            else:
                assert not changes.masks.frames[~own].any() and changes.masks.frames[own].any(1).all()
    assert seen == {True, False}


def test_of_kept_features_the_kind_of_change_is_drawn_anew_and_its_strength_comes_back(sets, tmp_path):
    made = config()
    made.data.versions, seen = 1, set()
    frontend = Frontend(made, CPU, None, None, cache=tmp_path)
    stream = multitask_batches(sets, made.data, seed=1)
    for _ in range(24):
        for batch in frontend(next(stream)).streams().values():
            names = [AUGMENTATIONS[number] for number in batch.targets["augmentation"]]
            seen.update((clip, name if name in OF_WAVEFORMS else "as it is") for clip, name in zip(batch.ids, names))
            for row, (name, frames) in enumerate(zip(names, batch.lengths.tolist())):
                as_it_was = torch.equal(batch.inputs[row, :frames], batch.clean[row, :frames])
                assert as_it_was == (name not in OF_WAVEFORMS)
    clips = {clip for clip, _ in seen}
    assert len(seen) > 3 * len(clips), "several kinds of each clip"
    seen |= {(clip, "as it is") for clip in clips}  # what the decoder is to say
    assert len(list(tmp_path.rglob("*.npy"))) == len(seen)


# ---- length and padding say nothing of the type


def lengths_and_types(sets, made, count=60):
    """Of every clip of many mini-batches: frames, padding after it, and the clip's own frames before; and its type."""
    fbank = BatchedFbank().config
    seconds = {cut.id: cut.duration for cuts in sets.values() for cut in cuts}
    rows, types = [], []
    for batch in batches(sets, made, count):
        for stream in batch.streams().values():
            assert not stream.inputs[torch.arange(stream.inputs.shape[1]) >= stream.lengths[:, None]].any()
            before = fbank.num_frames(torch.tensor([round(16000 * min(0.6, seconds[of])) for of in stream.ids]))
            rows += torch.stack([stream.lengths, stream.inputs.shape[1] - stream.lengths, before], 1).tolist()
            types += stream.targets["augmentation"].tolist()
    return np.array(rows), np.array(types)


def test_frames_that_are_kept_do_not_depend_on_the_type(sets):
    """A probe of lengths finds speed in waveforms as they were changed, and nothing in what the model is given."""
    rows, types = lengths_and_types(sets, config("speed", speed_low=0.7, speed_high=1.3))
    for before in np.unique(rows[:, 2]):
        kept = rows[rows[:, 2] == before, 0]
        assert len(np.unique(kept)) == 1, "of a clip's frames as many are kept, whatever happened to it"
    is_speed = types == AUGMENTATIONS.index("speed")
    by_chance = max(is_speed.mean(), 1 - is_speed.mean())

    def found(features):
        return cross_val_score(LogisticRegression(max_iter=1000), features, is_speed, cv=5).mean()

    ratio = rows[:, 0] / rows[:, 2]
    assert found(np.column_stack([rows[:, 0] - rows[:, 2], ratio, rows[:, 1]])) <= by_chance + 0.05
    _, _, uncropped, of_uncropped = changed("speed", speed_low=0.7, speed_high=1.3)
    assert set((uncropped != 9000).tolist()) == {True, False}, "without cropping the length gives it away"
    assert ((uncropped != 9000) == (of_uncropped == AUGMENTATIONS.index("speed"))).all()


def test_phoneme_clips_are_changed_too_but_never_cropped():
    """CTC needs the frames of all phones, and gender nothing but its clip: no head of theirs tells the types apart."""
    clips = torch.stack([noise_like(9000, n) for n in range(24)])
    streams = {
        name: TaskBatch(clips, torch.full((24,), 9000), [f"u{n}" for n in range(24)])
        for name in ("emotion", "gender", "phoneme")
    }
    made = Frontend(config("speed"), CPU, None, None)(MultitaskBatch(**streams)).streams()
    frames = {name: set(stream.lengths.tolist()) for name, stream in made.items()}
    assert frames["emotion"] == {int(56 / 1.15) - 1}
    for name in ("gender", "phoneme"):
        lengths, types = made[name].lengths, made[name].targets["augmentation"]
        assert ((lengths == 56) | (types == AUGMENTATIONS.index("speed"))).all() and len(frames[name]) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_heads_do_not_see_padding(kind):
    torch.manual_seed(0)
    model = build_model(config(kind=kind).model).eval()
    features, lengths = torch.randn(3, 50, 80), torch.tensor([40, 33, 7])
    for row, length in zip(features, lengths):
        row[length:] = float("nan")
    tasks = ("augmentation", "reconstruction")
    with torch.no_grad():
        batch = model(features, lengths, tasks=tasks)
        assert batch.esc_logits is None and batch.reconstruction.shape == (3, 50, 80)
        for row, length in enumerate(lengths.tolist()):
            alone = model(features[row : row + 1, :length], lengths[row : row + 1], tasks=tasks)
            torch.testing.assert_close(batch.augmentation_logits[row], alone.augmentation_logits[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(batch.reconstruction[row, :length], alone.reconstruction[0], atol=1e-4, rtol=0)


# ---- the clean features


def of_bursts(made, **counts):
    """A mini-batch of so many clips of 1 s with four bursts of noise each, from the front end."""
    time, streams = torch.arange(16000) / 16000, {}
    for name, count in counts.items():
        clips = torch.stack(
            [noise_like(16000, n) * (0.1 + torch.sin(2 * np.pi * 2 * time + n).square()) for n in range(count)]
        )
        labels = {"esc": torch.arange(count) % 9, "eis": torch.full((count,), -1.0)} if name == "emotion" else {}
        streams[name] = TaskBatch(clips, torch.full((count,), 16000), [f"u{n}" for n in range(count)], labels)
    return Frontend(made, CPU, None, None)(MultitaskBatch(**streams))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.7, 1.4)), min_size=1, max_size=4), st.data())
def test_frames_are_read_as_numpy_interpolates(clips, data):
    frames = torch.tensor([length for length, _ in clips])
    steps = torch.tensor([step for _, step in clips], dtype=torch.float64)
    made = (frames / steps).long().clamp(min=1)
    kept = torch.tensor([data.draw(st.integers(1, int(most))) for most in made])
    first = torch.tensor([data.draw(st.integers(0, int(most - few))) for most, few in zip(made, kept)])
    features = torch.randn(len(clips), int(frames.max()), 2, generator=torch.Generator().manual_seed(0))
    read = interpolate_frames(features, frames, first, steps, kept)
    for row, (length, step) in enumerate(clips):
        places = (int(first[row]) + np.arange(int(kept[row])) + 0.5) * step - 0.5
        for dim in range(2):
            expected = np.interp(places, np.arange(length), features[row, :length, dim].numpy())
            np.testing.assert_allclose(read[row, : kept[row], dim], expected, atol=1e-5)
        assert not read[row, kept[row] :].any()
    whole = interpolate_frames(features, frames, torch.zeros_like(frames), torch.ones(len(clips)), frames)
    for row, length in enumerate(frames):
        assert torch.equal(whole[row, :length], features[row, :length])


def test_clean_features_are_those_of_the_clip_in_step_with_the_changed_ones():
    """Without a change of waveforms they are the inputs; where speed is one, they move as the inputs do."""
    seen = set()
    stream = of_bursts(config(speed_low=0.7, speed_high=1.3), emotion=60).emotion
    for row, name in enumerate(AUGMENTATIONS[n] for n in stream.targets["augmentation"]):
        if name in ("none", "specaugment", "mixup"):
            torch.testing.assert_close(stream.inputs[row], stream.clean[row], atol=1e-4, rtol=0)
        elif name == "speed":
            energies = [part[row].mean(1).numpy() for part in (stream.inputs, stream.clean)]
            assert np.corrcoef(*energies)[0, 1] > 0.95, "four bursts, which would soon be out of step"
        seen.add(name)
    assert seen == set(AUGMENTATIONS) - {"noise"}


def test_reconstruction_is_the_mean_squared_error_of_speech():
    generator = torch.Generator().manual_seed(0)
    ours, clean = (torch.randn(2, 5, 3, generator=generator) for _ in range(2))
    lengths = torch.tensor([5, 2])
    expected = torch.nn.functional.mse_loss(torch.cat([ours[0], ours[1, :2]]), torch.cat([clean[0], clean[1, :2]]))
    ours[1, 2:] = float("nan")
    torch.testing.assert_close(reconstruction_loss(ours, clean, lengths), expected)
    assert reconstruction_loss(ours.half(), clean, lengths).dtype == torch.float32


# ---- the step


def setup(made):
    return StepSetup(made, "torch", FP32)


def new(made):
    torch.manual_seed(0)
    return checkpoint.new_model(made)


@pytest.mark.parametrize("kind", KINDS)
def test_labelled_clips_give_three_losses_and_unlabelled_ones_two(sets, kind):
    made = config(kind=kind)
    model, batch = new(made), batches(sets, made, 1)[0]
    weights = LossWeights(0.0, 0.0, 0.0, 0.5, 0.25)
    total, labelled, _ = stream_loss(model, "emotion", batch.emotion, setup(made), weights)
    assert set(labelled) == {"esc", "eis", "augmentation", "reconstruction"}
    parts = labelled["esc"] + 0.5 * labelled["augmentation"] + 0.25 * labelled["reconstruction"]
    torch.testing.assert_close(total.detach(), parts)
    _, unlabelled, _ = stream_loss(model, "unlabelled", batch.unlabelled, setup(made), weights)
    assert set(unlabelled) == {"unlabelled_augmentation", "unlabelled_reconstruction"}
    model.zero_grad()
    gradients(model, MultitaskBatch(batch.emotion), setup(made), LossWeights(0.0, 0.0, 0.0))
    assert not model.model.augmentation_head.weight.grad.any(), "its weight is 0"
    assert model.model.esc_head.weight.grad.any()


def test_the_augmentation_loss_is_cross_entropy(sets):
    made = config()
    model, stream = new(made).train(), batches(sets, made, 1)[0].unlabelled
    buffers = copy_buffers(model)
    _, found, _ = stream_loss(model, "unlabelled", stream, setup(made), LossWeights())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    predictions = model(stream.inputs, stream.lengths, stream.changes.apply, tasks=("augmentation",))
    expected = torch.nn.functional.cross_entropy(predictions.augmentation_logits, stream.targets["augmentation"])
    torch.testing.assert_close(found["unlabelled_augmentation"], expected.detach())


@pytest.mark.parametrize("statistics", ["shared", "per_stream"])
def test_unlabelled_speech_leaves_statistics_of_its_own_streams_alone(sets, statistics):
    made = config()
    made.model.batch_statistics = statistics
    batch, after = batches(sets, made, 1)[0], []
    for of_step in (batch, MultitaskBatch(batch.emotion)):
        model = new(made)
        gradients(model, of_step, setup(made), LossWeights())
        after.append(torch.cat([buffer.flatten().double() for buffer in model.buffers()]))
    assert torch.equal(*after) == (statistics == "per_stream")


@pytest.mark.parametrize("kind", KINDS)
def test_steps_learn_all_tasks(kind):
    made = config(kind=kind)
    model, batch = new(made), of_bursts(made, emotion=6, unlabelled=6)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    weights = LossWeights(0.0, 0.0, 0.0, 1.0, 1.0)
    rows = [train_step(model, optimizer, batch, setup(made), weights) for _ in range(40)]
    for name in ("augmentation", "reconstruction", "unlabelled_augmentation", "unlabelled_reconstruction"):
        assert rows[-1][name] < 0.7 * rows[0][name], name


def test_shares_of_a_mini_batch_are_put_together_again(sets):
    stream = batches(sets, config(), 1)[0].emotion
    shares = []
    for process in range(2):
        rows = list(range(process, 3, 2))
        shares.append(
            TaskBatch(
                stream.inputs[rows],
                stream.lengths[rows],
                [stream.ids[row] for row in rows],
                {
                    name: value[rows] if torch.is_tensor(value) else [value[row] for row in rows]
                    for name, value in stream.targets.items()
                },
                all_ids=stream.ids,
                clean=stream.clean[rows],
            )
        )
    whole = join_shares(shares)
    assert torch.equal(whole.clean, stream.clean) and torch.equal(whole.inputs, stream.inputs)


# ---- unlabelled speech


def test_unlabelled_speech_is_read_at_any_rate_and_of_any_number_of_channels(sets):
    ids, lengths = set(), []
    for batch in batches(sets, config("speed"), 4):
        ids.update(batch.unlabelled.ids)
        lengths += batch.unlabelled.lengths.tolist()
    assert ids == {"unlabelled-0.wav", "unlabelled-1.wav", "unlabelled-2.wav"}
    assert set(lengths) == {int(60 / 1.15) - 1}, "crops of 0.6 s"


def test_what_cannot_be_used_is_counted_and_left_out(toys, tmp_path, caplog):
    toys.write_wav(tmp_path / "speech/good.wav", 1.0)
    toys.write_wav(tmp_path / "speech/short.wav", 0.3)
    toys.write_wav(tmp_path / "speech/cut.wav", 1.0)
    whole = (tmp_path / "speech/cut.wav").read_bytes()
    (tmp_path / "speech/cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "speech/text.wav").write_text("no audio")
    soundfile.write(tmp_path / "speech/silent.wav", np.zeros(16000), 16000)
    prepare_audio("unlabelled", "speech", PrepareRequest(tmp_path / "speech"), tmp_path / "out", speech=True)
    assert [cut.id for cut in open_cuts(recordings_manifest(tmp_path / "out"))] == ["unlabelled-good.wav"]
    assert "2 dropped: unreadable or too short" in caplog.text
    assert "1 dropped: silent" in caplog.text and "1 dropped: shorter than 0.5 s (short.wav)" in caplog.text


def test_hours_take_a_subset_that_is_always_the_same(toys, tmp_path, caplog):
    for number in range(8):
        toys.write_wav(tmp_path / f"speech/{number}.wav", 1.0)
    kept = []
    for out in ("a", "b"):
        request = PrepareRequest(tmp_path / "speech", hours=2.5 / 3600)
        prepare_audio("unlabelled", "speech", request, tmp_path / out, speech=True)
        kept.append([cut.id for cut in open_cuts(recordings_manifest(tmp_path / out))])
    assert kept[0] == kept[1] and len(kept[0]) == 3 and "5 dropped: outside the" in caplog.text


def itself(folder, clip):
    return clip


def link(folder, clip):
    (folder / "link.wav").symlink_to(clip)
    return folder / "link.wav"


def copy(folder, clip):
    return shutil.copy(clip, folder / "copy.wav")


@pytest.mark.parametrize("taken", [itself, link, copy])
@pytest.mark.parametrize("held_out_by", [itself, link])
def test_clips_of_the_test_part_are_no_unlabelled_speech(toys, tmp_path, taken, held_out_by):
    toys.write_wav(tmp_path / "test" / "a.wav", 0.7)
    held_out = Recording.from_file(held_out_by(tmp_path, tmp_path / "test" / "a.wav")).to_cut()
    speech = tmp_path / "speech"
    for number in range(3):  # as long as the clip, of other samples
        speech.mkdir(exist_ok=True)
        soundfile.write(speech / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(11200), 16000)
    prepare_audio("unlabelled", "speech", PrepareRequest(speech), tmp_path / "others", speech=True)
    assert len(list(unlabelled_cuts(tmp_path / "others", [held_out]))) == 3
    folder = taken(speech, tmp_path / "test" / "a.wav").parent
    prepare_audio("unlabelled", "speech", PrepareRequest(folder), tmp_path / "out", speech=True)
    with pytest.raises(InputError) as refused:
        unlabelled_cuts(tmp_path / "out", [held_out])
    assert "is unlabelled speech, but also" in str(refused.value)
    assert f"{held_out.id} of the dev or test part" in str(refused.value)


def test_speech_that_is_gone_and_clips_that_are_gone(toys, tmp_path, caplog):
    toys.write_wav(tmp_path / "test.wav", 0.7)
    held_out = Recording.from_file(tmp_path / "test.wav").to_cut()
    toys.write_wav(tmp_path / "speech" / "a.wav", 0.7)
    prepare_audio("unlabelled", "speech", PrepareRequest(tmp_path / "speech"), tmp_path / "out", speech=True)
    (tmp_path / "test.wav").unlink()
    assert len(list(unlabelled_cuts(tmp_path / "out", [held_out]))) == 1
    assert "1 audio files of the dev and test part are gone" in caplog.text
    (tmp_path / "speech" / "a.wav").unlink()
    with pytest.raises(InputError, match="speech/a.wav: does not exist any more; restore it or run stage 1 again"):
        unlabelled_cuts(tmp_path / "out", [])


# ---- settings and weights


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"augment.one_of": "speed echo"}, "names 'echo'"),
        ({"data.input": "stored"}, "data.input must be waveform"),
        ({"specaugment.time_masks": 0}, "specaugment has no masks"),
        ({"mixup.alpha": 0.0}, "mixup.alpha is 0"),
        ({"augment.one_of": ""}, "which is empty"),
        ({"augment.one_of": "", "loss.augmentation": 0.0}, "name some in augment.one_of"),
        ({"model.decoder_channels": 0}, "needs a decoder"),
        ({"loss.augmentation": 0.0, "loss.reconstruction": 0.0}, "no loss without labels"),
        ({"augment.speed_low": 1.2}, "speed_low is 1.2, above speed_high"),
    ],
)
def test_settings_that_do_not_fit(changes, words):
    made = config()
    for name, value in changes.items():
        part, key = name.split(".")
        setattr(getattr(made, part), key, value)
    with pytest.raises(ValueError, match=words):
        made.validate()


def test_a_training_starts_from_weights_with_and_without_the_heads():
    with_heads, without = config(), config()
    without.model = dataclasses.replace(without.model, num_augmentations=0, decoder_channels=0)
    torch.manual_seed(1)
    for source, target in ((with_heads, without), (without, with_heads), (with_heads, with_heads)):
        trained = checkpoint.new_model(source)
        content = {
            "model": trained.state_dict(),
            "classes": list(SEQM_CLASSES.names),
            "genders": ["F", "M"],
            "phones": [],
        }
        model = checkpoint.new_model(target)
        before = snapshot_of(model)
        checkpoint.start_from(model, content, SEQM_CLASSES, [])
        after, theirs = model.state_dict(), trained.state_dict()
        for name, value in after.items():
            assert torch.equal(value, theirs.get(name, before[name])), name


def snapshot_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}

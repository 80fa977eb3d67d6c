"""Mixup and SpecAugment: what is drawn, and what it does to features and labels."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speecheq.config.schema import Config, MixupConfig, SpecAugmentConfig
from speecheq.dataset.batch import MultitaskBatch, Position, TaskBatch
from speecheq.features.augment_features import Changes, Mixup, draw_changes, draw_masks, draw_mixup
from speecheq.losses import LossWeights, focal_loss
from speecheq.models import checkpoint
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, classification_loss, stream_loss, train_step

CPU = torch.device("cpu")
IDS = [f"u{number}" for number in range(8)]


def padded(lengths, dim=3, seed=0):
    """Features (N, T, D), zeros after ``lengths``."""
    features = torch.randn(len(lengths), max(lengths), dim, generator=torch.Generator().manual_seed(seed))
    for row, length in zip(features, lengths):
        row[length:] = 0.0
    return features, torch.tensor(lengths)


# ---- mixup


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.data())
def test_a_mixed_clip_is_the_sum_of_both_by_their_shares(lengths, data):
    features, lengths_ = padded(lengths)
    partners = [data.draw(st.integers(0, len(lengths) - 1)) for _ in lengths]
    shares = [data.draw(st.floats(0.5, 1.0, width=32)) for _ in lengths]
    mixed = Mixup(torch.tensor(partners), torch.tensor(shares)).mix_features(features, lengths_)
    assert mixed.shape == features.shape
    for row, (length, partner, share) in enumerate(zip(lengths, partners, shares)):
        repeats = -(-length // lengths[partner])
        other = features[partner, : lengths[partner]].repeat(repeats, 1)[:length]  # repeated, or cut off
        torch.testing.assert_close(mixed[row, :length], share * features[row, :length] + (1 - share) * other)
        assert not mixed[row, length:].any()


def test_padding_has_no_part_in_a_mix():
    features, lengths = padded([5, 3, 4])
    mixup = draw_mixup(MixupConfig(0.4), 1, "emotion", 0, IDS[:3])
    wider = torch.cat([features, torch.full((3, 4, 3), 7.0)], 1)
    torch.testing.assert_close(mixup.mix_features(wider, lengths)[:, :5], mixup.mix_features(features, lengths))


@pytest.mark.parametrize("clips", [2, 3, 8])
def test_partners_are_others_and_the_own_share_is_the_larger(clips):
    drawn = [draw_mixup(MixupConfig(0.2), 1, "emotion", epoch, IDS[:clips]) for epoch in range(60)]
    rows = torch.arange(clips)
    assert all((mixup.partners != rows).all() for mixup in drawn)
    assert {int(mixup.partners[0]) for mixup in drawn} == set(range(1, clips))
    shares = torch.cat([mixup.shares for mixup in drawn])
    assert shares.min() >= 0.5 and shares.max() <= 1 and shares.dtype == torch.float32


def test_shares_are_of_the_beta_distribution():
    """Of max(x, 1 - x): its mean by numbers drawn with torch's own."""
    shares = torch.cat([draw_mixup(MixupConfig(0.4), 1, "emotion", epoch, IDS).shares for epoch in range(400)])
    torch.manual_seed(0)
    theirs = torch.distributions.Beta(0.4, 0.4).sample((20000,))
    assert shares.mean() == pytest.approx(float(torch.maximum(theirs, 1 - theirs).mean()), abs=0.01)
    assert (shares > 0.9).float().mean() == pytest.approx(float(((theirs - 0.5).abs() > 0.4).float().mean()), abs=0.03)


def test_eis_is_mixed_where_both_have_one():
    mixup = Mixup(torch.tensor([1, 2, 0, 1]), torch.tensor([0.5, 0.75, 0.6, 0.9]))
    gold = torch.tensor([0.0, 2.0, -1.0, 4.0])
    torch.testing.assert_close(mixup.mix_eis(gold, -1.0), torch.tensor([1.0, -1.0, -1.0, 3.8]))


def test_the_loss_of_mixed_clips_is_that_of_both_labels_by_their_shares():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 3, 1, 3])
    mixup = Mixup(torch.tensor([1, 2, 3, 0]), torch.tensor([0.5, 0.6, 1.0, 0.9]))
    config = Config()
    config.loss.gamma = 2.0
    loss = classification_loss(logits, targets, mixup, config)
    single = torch.stack(
        [
            share * focal_loss(logits[[row]], targets[[row]], 2.0)
            + (1 - share) * focal_loss(logits[[row]], targets[mixup.partners][[row]], 2.0)
            for row, share in enumerate(mixup.shares)
        ]
    )
    torch.testing.assert_close(loss, single.mean())
    config.loss.gamma = 0.0
    soft = torch.zeros(4, 5)
    for row, (partner, share) in enumerate(zip(mixup.partners, mixup.shares)):
        soft[row, targets[row]] += share
        soft[row, targets[partner]] += 1 - share
    torch.testing.assert_close(
        classification_loss(logits, targets, mixup, config), torch.nn.functional.cross_entropy(logits, soft)
    )


# ---- masks


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.floats(0.0, 0.5),
    st.floats(0.0, 1.0),
    st.integers(0, 12),
    st.integers(0, 9),
)
def test_masks_lie_within_the_clip_and_are_no_wider_than_asked(
    lengths, time_masks, frequency_masks, seconds, share, banks, epoch
):
    config = SpecAugmentConfig(time_masks, seconds, share, frequency_masks, banks)
    masks = draw_masks(config, 1, "emotion", epoch, IDS[: len(lengths)], torch.tensor(lengths), 60, 10)
    for row, length in enumerate(lengths):
        assert not masks.frames[row, length:].any()
        assert masks.frames[row].sum() <= time_masks * int(min(100 * seconds, share * length))
        assert masks.filter_banks[row].sum() <= frequency_masks * min(banks, 10)


def test_masks_take_every_width_and_every_place():
    config = SpecAugmentConfig(1, 0.04, 1.0, 1, 3)
    lengths, widths, banks, places = torch.tensor([20] * 8), set(), set(), torch.zeros(30, dtype=torch.bool)
    for epoch in range(100):
        masks = draw_masks(config, 1, "emotion", epoch, IDS, lengths, 30, 10)
        widths |= set(masks.frames.sum(1).tolist())
        banks |= set(masks.filter_banks.sum(1).tolist())
        places |= masks.frames.any(0)
        # one interval: its frames follow each other
        edges = (masks.frames[:, 1:] & ~masks.frames[:, :-1]).sum(1) + masks.frames[:, 0]
        assert edges.max() <= 1
    assert widths == set(range(5)) and banks == set(range(4))
    assert places[:20].all() and not places[20:].any()


def test_what_is_masked_is_0_and_the_rest_is_as_before():
    features, lengths = padded([20, 12], dim=10)
    features = features + 5.0
    config = SpecAugmentConfig(2, 0.05, 1.0, 2, 4)
    masks = draw_masks(config, 1, "emotion", 3, IDS[:2], lengths, 20, 10)
    masked = masks.mask_features(features)
    gone = masks.frames[:, :, None] | masks.filter_banks[:, None, :]
    assert gone.any() and not masked[gone].any() and torch.equal(masked[~gone], features[~gone])


# ---- both, as the front end draws them and the model applies them


def with_both(**settings_):
    config = Config()
    config.mixup.alpha, config.specaugment = 0.3, SpecAugmentConfig(2, 0.05, 1.0, 1, 8)
    config.model = dataclasses.replace(
        config.model, channels=8, mfa_channels=16, scale=2, bottleneck=8, embedding_dim=8, num_phones=5
    )
    config.loss.ctc_backend, config.data.cmvn = "torch", "utterance"
    for name, value in settings_.items():
        part, key = name.split("__")
        setattr(getattr(config, part), key, value)
    return config


def drawn(config, stream, epoch, ids, lengths):
    return draw_changes(config, stream, epoch, ids, lengths, int(lengths.max()), 80)


def equal(one, other):
    return all(torch.equal(a, b) for part, of_other in zip(one, other) for a, b in zip(part, of_other))


def test_draws_follow_from_seed_stream_epoch_and_id():
    lengths = torch.tensor([30, 25, 28])
    first = drawn(with_both(), "emotion", 2, IDS[:3], lengths)
    assert equal(first, drawn(with_both(), "emotion", 2, IDS[:3], lengths))
    for config, stream, epoch, ids in (
        (with_both(run__seed=2), "emotion", 2, IDS[:3]),
        (with_both(), "gender", 2, IDS[:3]),
        (with_both(), "emotion", 3, IDS[:3]),
        (with_both(), "emotion", 2, IDS[3:6]),
    ):
        assert not equal(first, drawn(config, stream, epoch, ids, lengths))
    # a clip's masks are its own, wherever it lies in a mini-batch
    other = drawn(with_both(), "emotion", 2, IDS[2:0:-1], lengths[[2, 1]])
    assert torch.equal(other.masks.frames[0, :28], first.masks.frames[2, :28])
    assert torch.equal(other.mixup.shares, first.mixup.shares[[2, 1]])


def test_masks_are_as_long_in_seconds_on_the_states_of_an_encoder():
    """Their frames are 20 ms apart, those of filter banks 10 ms."""
    config = Config(specaugment=SpecAugmentConfig(time_masks=1, time_width=0.2, time_share=1.0))
    widest = {}
    for features, frames in (("fbank", 400), ("whisper", 200)):
        config.data.features = features
        ids = [str(number) for number in range(300)]
        changes = draw_changes(config, "emotion", 0, ids, torch.full((300,), frames), frames, 16)
        widest[features] = int(changes.masks.frames.sum(1).max())
    assert widest == {"fbank": 20, "whisper": 10}


def test_phoneme_clips_are_masked_and_never_mixed():
    lengths = torch.tensor([30, 25])
    changes = drawn(with_both(), "phoneme", 0, IDS[:2], lengths)
    assert changes.mixup is None and changes.masks.frames.any()
    assert drawn(Config(), "emotion", 0, IDS[:2], lengths) == Changes()


def streams(config, clips=6):
    """A mini-batch of each stream, with what the front end draws."""
    torch.manual_seed(3)
    lengths = torch.tensor([40, 33, 36, 25, 40, 31][:clips])
    targets = {
        "emotion": {"esc": torch.arange(clips) % 9, "eis": torch.tensor([0.0, 1.5, 2.5, -1.0, 3.5, 2.0][:clips])},
        "gender": {"gender": torch.arange(clips) % 2},
        "phoneme": {"phones": [torch.tensor([1, 2, 3])] * clips},
    }
    made = {}
    for name, labels in targets.items():
        inputs, _ = padded(lengths.tolist(), 80, seed=len(made))
        stream = TaskBatch(inputs, lengths, IDS[:clips], labels, Position())
        changes = draw_changes(config, name, 0, stream.ids, lengths, *inputs.shape[1:])
        made[name] = dataclasses.replace(stream, changes=changes)
    return MultitaskBatch(**made)


def test_the_model_gets_normalised_features_that_are_changed():
    config = with_both(data__cmvn="global")
    batch = streams(config)
    model = checkpoint.new_model(config, torch.full((80,), 0.5), torch.full((80,), 2.0)).eval()
    stream = batch.emotion
    seen = []
    model.model.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    model(stream.inputs, stream.lengths, stream.changes.apply, tasks=("esc",))
    normal = model.cmvn(stream.inputs, stream.lengths)
    expected = stream.changes.masks.mask_features(stream.changes.mixup.mix_features(normal, stream.lengths))
    assert torch.equal(seen[0], expected) and not torch.equal(expected, normal)
    model(stream.inputs, stream.lengths, Changes().apply, tasks=("esc",))
    assert torch.equal(seen[1], normal)


@pytest.mark.parametrize("kind", ["speecheq", "baseline"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_learns_its_mini_batch_with_all_of_it(kind, precision):
    config = with_both(model__kind=kind, loss__gamma=1.0, loss__label_smoothing=0.1)
    batch, class_weights = streams(config), torch.rand(9) + 0.5
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    setup = StepSetup(config, "torch", Precision(precision, CPU), class_weights)
    rows = [train_step(model, optimizer, batch, setup, LossWeights()) for _ in range(20)]
    assert rows[-1]["esc"] < 0.8 * rows[0]["esc"] and rows[-1]["gender"] < rows[0]["gender"]


def test_the_losses_of_a_stream_take_the_mixed_labels():
    config = with_both()
    batch, model = streams(config), checkpoint.new_model(with_both())
    weights = torch.rand(9) + 0.5

    def losses(stream, *class_weights):
        torch.manual_seed(0)
        setup = StepSetup(config, "torch", Precision("fp32", CPU), *class_weights)
        return stream_loss(model.eval(), "emotion", stream, setup, LossWeights()).by_task

    mixed = losses(batch.emotion)
    predictions = model(batch.emotion.inputs, batch.emotion.lengths, batch.emotion.changes.apply)
    mixup, esc = batch.emotion.changes.mixup, batch.emotion.targets["esc"]
    assert mixed["esc"] == classification_loss(predictions.esc_logits, esc, mixup, config)
    assert losses(batch.emotion, weights)["esc"] == classification_loss(
        predictions.esc_logits, esc, mixup, config, weights
    )
    unmixed = dataclasses.replace(batch.emotion, changes=batch.emotion.changes._replace(mixup=None))
    assert mixed["eis"] != losses(unmixed)["eis"]

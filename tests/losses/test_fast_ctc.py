"""The CTC loss of CPUs against torch's."""

import pytest
import torch
from torch.nn.functional import ctc_loss as torch_ctc_loss
from torch.nn.utils.rnn import pad_sequence

from speecheq.losses.fast_ctc import CtcLoss


def fast(log_probs, lengths, targets):
    counts = torch.tensor([len(target) for target in targets])
    return CtcLoss.apply(log_probs, lengths, pad_sequence(targets, batch_first=True), counts)


def by_torch(log_probs, lengths, targets):
    counts = torch.tensor([len(target) for target in targets])
    return torch_ctc_loss(log_probs.transpose(0, 1), torch.cat(targets), lengths, counts, reduction="none")


def both(logits, lengths, targets):
    """(losses, gradient of the logits) by torch and by ours, each utterance with another weight."""
    results = []
    for losses_of in (by_torch, fast):
        given = logits.clone().requires_grad_()
        losses = losses_of(given.log_softmax(2), lengths, targets)
        (losses * torch.linspace(0.5, 2, len(losses))).sum().backward()
        results.append((losses.detach(), given.grad))
    return results


def assert_same(expected, found, **tolerances):
    for each, other in zip(expected, found):
        torch.testing.assert_close(other, each, **tolerances)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0])
def test_losses_and_gradients_are_torchs(seed, spread):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(25, 41, (7,), generator=random)
    counts = [0, 1, 12, *torch.randint(0, 12, (4,), generator=random).tolist()]
    # few classes, so that labels repeat
    targets = [torch.randint(1, 4 if seed % 2 else 30, (count,), generator=random) for count in counts]
    logits = spread * torch.randn(7, 40, 30, generator=random, dtype=torch.float64)
    assert_same(*both(logits, lengths, targets), rtol=1e-9, atol=1e-9)
    (_, expected), (_, found) = both(logits.float(), lengths, targets)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert all((gradient[length:] == 0).all() for gradient, length in zip(found, lengths))


def test_an_utterance_with_as_many_frames_as_its_path_needs():
    targets = [torch.tensor([1, 1, 2]), torch.tensor([3]), torch.tensor([2, 1, 2, 1])]
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_same(*both(logits, torch.tensor([4, 1, 4]), targets), rtol=1e-9, atol=1e-9)


def test_long_utterances_that_the_outputs_hold_impossible():
    """10 s of blanks, all but certain: each of 120 labels has a probability of e^-40."""
    logits = torch.zeros(2, 500, 90, dtype=torch.float64)
    logits[:, :, 0] = 40.0
    targets = [torch.arange(1, 61).repeat(2), torch.arange(1, 40)]
    expected, found = both(logits, torch.tensor([500, 333]), targets)
    assert expected[0][0] > 4000
    assert_same(expected, found, rtol=1e-9, atol=1e-9)
    in_float32 = both(logits.float(), torch.tensor([500, 333]), targets)[1]
    assert_same([each.float() for each in expected], in_float32, rtol=1e-3, atol=1e-3)


def test_only_empty_targets():
    targets = [torch.tensor([], dtype=torch.int64)] * 2
    logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_same(*both(logits, torch.tensor([6, 3]), targets), rtol=1e-9, atol=1e-9)

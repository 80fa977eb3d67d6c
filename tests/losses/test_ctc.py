"""CTC: both backends against each other and against enumeration of all paths; decoding; refusals."""

import builtins
import itertools
import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.losses import ctc_loss, greedy_decode, resolve_ctc_backend

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def _k2_imports() -> bool:
    try:
        import k2

        return hasattr(k2, "ctc_loss")
    except Exception:
        return False


K2 = pytest.mark.skipif(not _k2_imports(), reason="k2 cannot be imported here")
EACH_BACKEND = pytest.mark.parametrize("backend", ["torch", pytest.param("k2", marks=K2)])


def _collapse(path):
    return [label for label, _ in itertools.groupby(path) if label != 0]


def _by_enumeration(logits, target):
    log_probs = torch.log_softmax(logits.double(), dim=1)
    total = sum(
        math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
        for path in itertools.product(range(logits.shape[1]), repeat=len(logits))
        if _collapse(path) == target
    )
    return -math.log(total)


def _run(logits, lengths, targets, backend):
    logits = logits.clone().requires_grad_()
    result = ctc_loss(logits, lengths, targets, backend)
    result.loss.backward()
    return result, logits.grad


@EACH_BACKEND
def test_classes_that_a_model_rules_out_get_no_denormal_gradients(backend):
    torch.manual_seed(0)
    logits = torch.randn(2, 12, 6)
    logits[:, :, 4:] -= 92.0  # exp of it is a denormal number
    lengths, targets = torch.tensor([12, 9]), [torch.tensor([1, 2]), torch.tensor([3])]
    grad = _run(logits, lengths, targets, backend)[1]
    tiny = (grad != 0) & (grad.abs() < 1e-20)
    assert not tiny.any() and (grad[:, :9, :4] != 0).all()
    exact = _run(logits.double(), lengths, targets, "torch")[1]
    torch.testing.assert_close(grad.double(), exact, atol=1e-6, rtol=1e-4)


@EACH_BACKEND
def test_against_the_sum_over_all_paths(backend):
    torch.manual_seed(0)
    targets = [[1, 2], [2, 2], [], [1]]
    lengths = torch.tensor([4, 3, 2, 5])  # not sorted: the function sorts for k2 and puts back
    logits = torch.randn(4, 5, 3)
    result, grad = _run(logits, lengths, [torch.tensor(t, dtype=torch.long) for t in targets], backend)
    expected = [_by_enumeration(logits[n, : lengths[n]], targets[n]) for n in range(4)]
    assert result.per_utterance.tolist() == pytest.approx(expected, rel=1e-4)
    assert result.loss.item() == pytest.approx(sum(e / max(1, len(t)) for e, t in zip(expected, targets)) / 4, rel=1e-4)
    assert all((grad[n, lengths[n] :] == 0).all() for n in range(4))


@K2
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])  # nearly flat outputs are where k2's beam would prune
def test_k2_agrees_with_torch(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    batch, num_frames, num_classes = 8, 60, 30
    logits = torch.randn(batch, num_frames, num_classes, generator=generator) * spread
    lengths = torch.randint(15, num_frames + 1, (batch,), generator=generator)
    targets = [
        torch.randint(1, num_classes, (int(torch.randint(0, 14, (), generator=generator)),), generator=generator)
        for _ in range(batch)
    ]
    targets[seed % batch] = torch.tensor([], dtype=torch.long)
    targets[(seed + 1) % batch] = torch.tensor([4, 4, 4, 7, 7])
    targets[(seed + 2) % batch] = torch.randint(1, num_classes, (num_frames + 5,), generator=generator)  # too long
    (ours, our_grad), (theirs, their_grad) = (_run(logits, lengths, targets, b) for b in ("k2", "torch"))
    assert ours.feasible.tolist() == theirs.feasible.tolist() and not ours.feasible[(seed + 2) % batch]
    torch.testing.assert_close(ours.per_utterance, theirs.per_utterance, rtol=1e-3, atol=1e-3)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-3)
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-3, atol=1e-5)


@EACH_BACKEND
def test_repeats_need_a_blank_between(backend):
    target = [torch.tensor([5, 5, 5])]
    short, _ = _run(torch.zeros(1, 4, 6), torch.tensor([4]), target, backend)
    assert short.feasible.tolist() == [False] and math.isinf(short.per_utterance[0])
    enough, _ = _run(torch.zeros(1, 5, 6), torch.tensor([5]), target, backend)
    assert enough.feasible.tolist() == [True]
    assert float(enough.per_utterance) == pytest.approx(5 * math.log(6), rel=1e-4)  # exactly one path


@EACH_BACKEND
def test_too_long_targets_are_left_out_with_gradient_zero(backend):
    torch.manual_seed(0)
    logits, long, good = torch.randn(2, 6, 4), torch.tensor([1, 2, 3, 1, 2, 3, 1]), torch.tensor([1, 2])
    both, grad = _run(logits, torch.tensor([6, 6]), [long, good], backend)
    alone, alone_grad = _run(logits[1:], torch.tensor([6]), [good], backend)
    torch.testing.assert_close(both.loss, alone.loss)
    assert (grad[0] == 0).all()
    torch.testing.assert_close(grad[1:], alone_grad)
    none, grad = _run(logits[:1], torch.tensor([6]), [long], backend)
    assert none.loss.item() == 0 and (grad == 0).all()


@EACH_BACKEND
def test_only_empty_targets(backend):
    logits = torch.randn(2, 4, 3)
    result, _ = _run(logits, torch.tensor([3, 4]), [torch.tensor([], dtype=torch.long)] * 2, backend)
    blanks = -torch.log_softmax(logits, 2)[:, :, 0]
    torch.testing.assert_close(result.per_utterance, torch.stack([blanks[0, :3].sum(), blanks[1].sum()]))


@EACH_BACKEND
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_give_a_float32_loss(backend, dtype):
    result, grad = _run(
        torch.randn(2, 9, 5, dtype=torch.float32).to(dtype),
        torch.tensor([9, 7]),
        [torch.tensor([1, 2]), torch.tensor([3])],
        backend,
    )
    assert result.loss.dtype == torch.float32 and grad.dtype == dtype and torch.isfinite(grad).all()


@EACH_BACKEND
@pytest.mark.parametrize(
    "lengths, target, named",
    [
        ([5], [4], r"labels in 1\.\.3"),
        ([5], [0], r"labels in 1\.\.3"),
        ([5], [-1], r"labels in 1\.\.3"),
        ([0], [1], r"be in 1\.\.5"),
        ([6], [1], r"be in 1\.\.5"),
        ([5, 5], [1], "2 lengths"),
    ],
)
def test_out_of_range(backend, lengths, target, named):
    with pytest.raises(ValueError, match=named):
        ctc_loss(torch.zeros(1, 5, 4), torch.tensor(lengths), [torch.tensor(target)], backend)


def test_unknown_backend():
    for call in (
        lambda: resolve_ctc_backend("warp", CPU),
        lambda: ctc_loss(torch.zeros(1, 5, 4), torch.tensor([5]), [torch.tensor([1])], "auto"),
    ):
        with pytest.raises(ValueError, match="k2, torch"):
            call()


@pytest.fixture
def without_k2(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "k2":
            raise ImportError("libk2context.so: cannot open shared object file\nand more lines")
        return real_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_k2_asked_for_and_absent(without_k2):
    with pytest.raises(InputError) as caught:
        resolve_ctc_backend("k2", CPU)
    message = str(caught.value)
    assert "libk2context.so" in message and "--ctc-backend torch" in message and "\n" not in message


def test_auto_falls_back_and_says_why(without_k2, monkeypatch):
    log = logging.getLogger("speecheq")
    lines = []
    monkeypatch.setattr(log, "info", lambda line, *values: lines.append(line % values))
    assert resolve_ctc_backend("auto", GPU) == "torch"
    assert resolve_ctc_backend("torch", GPU) == "torch"
    assert "libk2context.so" in lines[0] and "as set" in lines[1]


@K2
def test_k2_where_it_imports():
    assert resolve_ctc_backend("k2", CPU) == resolve_ctc_backend("k2", GPU) == resolve_ctc_backend("auto", GPU) == "k2"


def test_auto_takes_the_faster_one_on_a_cpu():
    assert resolve_ctc_backend("auto", CPU) == "torch"


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=20), min_size=1, max_size=5))
def test_greedy_decode(paths):
    logits = torch.full((len(paths), max(map(len, paths)), 5), -1.0)
    for n, path in enumerate(paths):
        logits[n, range(len(path)), path] = 1.0
        logits[n, len(path) :, 3] = 1.0  # padding must not be decoded
    assert greedy_decode(logits, torch.tensor([len(path) for path in paths])) == [_collapse(path) for path in paths]

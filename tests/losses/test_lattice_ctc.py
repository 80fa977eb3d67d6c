"""CTC over lattices: against the sum over all their label sequences by torch's CTC; what has no path; the beam."""

import math
import random
import re
from importlib.util import find_spec

import pytest
import soundfile
import torch
from pronunciations import all_sequences

from speecheq.common.errors import InputError
from speecheq.dataset.phones import mandarin
from speecheq.dataset.phones.lattice import as_words, ctc_graph, first_labels
from speecheq.inference.alignment import Aligner
from speecheq.inference.trained_model import load_trained_model
from speecheq.losses import ctc, ctc_loss, resolve_ctc_backend

CPU = torch.device("cpu")
CLASSES, PAUSE = 9, 8


# a k2 that is there must work: that the package refuses it would be a failure, not a reason to skip
K2 = pytest.mark.skipif(find_spec("k2") is None, reason="k2 is not installed")


@K2
def test_the_k2_that_is_installed_is_used():
    assert ctc._k2_fault() is None


def random_words(draw: random.Random, most: int = 4):
    """Words of up to three pronunciations, with repeated labels within and across them."""
    alternatives = lambda: [draw.randint(1, 3) for _ in range(draw.randint(1, 3))]  # noqa: E731
    return as_words([[alternatives() for _ in range(draw.randint(1, 3))] for _ in range(draw.randint(1, most))])


def sum_over_sequences(logits, sequences):
    """-log of the summed probabilities of label sequences, each by torch's CTC in float64; logits (T, C)."""
    log_probs = torch.log_softmax(logits, dim=1).unsqueeze(1)
    losses = [
        torch.nn.functional.ctc_loss(
            log_probs, torch.tensor([labels]), torch.tensor([len(logits)]), torch.tensor([len(labels)]), reduction="sum"
        )
        for labels in sequences
        if len(labels) + sum(a == b for a, b in zip(labels, labels[1:])) <= len(logits)
    ]
    return -torch.logsumexp(-torch.stack(losses), dim=0)


def batch(words, frames, seed, spread=2.0):
    """Logits (N, T, C) of so many frames each, and the other arguments of ``ctc_loss``."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(words), max(frames), CLASSES, generator=generator) * spread
    targets = [torch.tensor(first_labels(each)) for each in words]
    return logits.requires_grad_(), torch.tensor(frames), targets, "k2"


@K2
@pytest.mark.parametrize("pause", [None, PAUSE])
@pytest.mark.parametrize("seed", range(6))
def test_the_loss_is_the_sum_over_all_sequences(seed, pause):
    draw = random.Random(seed)
    words = [random_words(draw, 3 if pause else 4) for _ in range(4)]
    frames = [12, 20, 15, 30]
    logits, *arguments = batch(words, frames, seed)
    result = ctc_loss(logits, *arguments, [ctc_graph(each, pause) for each in words])
    result.loss.backward()
    exact = logits.detach().double().requires_grad_()
    expected = [sum_over_sequences(exact[n, : frames[n]], all_sequences(words[n], pause)) for n in range(4)]
    assert result.feasible.all() and not result.pathless.any()
    assert result.per_utterance.tolist() == pytest.approx([loss.item() for loss in expected], abs=1e-4)
    mean = sum(loss / len(target) for loss, target in zip(expected, arguments[1])) / 4
    assert result.loss.item() == pytest.approx(mean.item(), abs=1e-4)
    mean.backward()
    torch.testing.assert_close(logits.grad, exact.grad.float(), rtol=0, atol=1e-4)


@K2
def test_one_pronunciation_is_plain_ctc():
    words = [as_words([[[1, 1]], [[2]]]), as_words([[[3, 2, 1, 2]]])]
    logits, *arguments = batch(words, [9, 7], 0)
    plain, graphs = ctc_loss(logits, *arguments), ctc_loss(logits, *arguments, [ctc_graph(each) for each in words])
    torch.testing.assert_close(plain.per_utterance, graphs.per_utterance, rtol=0, atol=1e-4)


@K2
def test_sequences_that_need_too_many_frames_have_no_part_in_the_sum():
    words = as_words([[[1, 2, 3, 1, 2], [1, 1], [2]], [[2]]])  # they need 6, 4 and 3 frames
    for frames in (3, 4, 5, 6):
        logits, *arguments = batch([words], [frames], frames)
        result = ctc_loss(logits, *arguments, [ctc_graph(words)])
        expected = sum_over_sequences(logits.detach()[0].double(), all_sequences(words))
        assert result.per_utterance.item() == pytest.approx(expected.item(), abs=1e-4)
    logits, *arguments = batch([words], [2], 0)
    result = ctc_loss(logits, *arguments, [ctc_graph(words)])
    result.loss.backward()
    assert not result.feasible[0] and not result.pathless[0] and math.isinf(result.per_utterance[0])
    assert result.loss.item() == 0 and (logits.grad == 0).all()


@K2
@pytest.mark.parametrize("lost", [[1], [0, 1, 2]])
def test_a_lattice_without_a_path_is_left_out_and_named(lost, monkeypatch):
    words = [as_words([[[1], [2]], [[3]]])] * 3
    logits, *arguments = batch(words, [9, 9, 9], 0)
    graphs, losses = [ctc_graph(each) for each in words], ctc._k2_losses

    def prune_all(*given):
        found = losses(*given)
        return torch.where(torch.isin(torch.arange(3), torch.tensor(lost)), torch.inf, found)

    kept = [n for n in range(3) if n not in lost]
    alone = ctc_loss(logits, *arguments, graphs).per_utterance
    monkeypatch.setattr(ctc, "_k2_losses", prune_all)
    result = ctc_loss(logits, *arguments, graphs)
    result.loss.backward()
    assert result.pathless.tolist() == [n in lost for n in range(3)] and (result.feasible == ~result.pathless).all()
    assert result.loss.item() == pytest.approx(alone[kept].mean().item() / 2 if kept else 0)
    assert torch.isfinite(logits.grad).all() and all((logits.grad[n] == 0).all() for n in lost)
    assert all((logits.grad[n] != 0).any() for n in kept)


@K2
def test_labels_outside_of_the_logits_are_refused():
    words = as_words([[[1], [CLASSES]]])
    logits, *arguments = batch([words], [4], 0)
    with pytest.raises(ValueError, match="graph 0 of the batch has the label 9; the highest is 8"):
        ctc_loss(logits, *arguments, [ctc_graph(words)])


def test_torch_says_that_it_cannot():
    words = as_words([[[1], [2]]])
    logits, lengths, targets, _ = batch([words], [4], 0)
    with pytest.raises(ValueError, match="takes one label sequence an utterance"):
        ctc_loss(logits, lengths, targets, "torch", [ctc_graph(words)])
    with pytest.raises(InputError, match="one label sequence an utterance: --pronunciations all and .* need k2"):
        resolve_ctc_backend("torch", CPU, lattices=True)


@K2
def test_lattices_take_k2_on_a_cpu_too():
    assert resolve_ctc_backend("auto", CPU, lattices=True) == "k2"


def test_without_k2_lattices_are_refused(monkeypatch):
    monkeypatch.setattr(ctc, "_k2_fault", lambda: "no module named k2")
    for choice in ("auto", "k2"):
        with pytest.raises(InputError, match=r"need k2, which cannot be used \(no module named k2\)"):
            resolve_ctc_backend(choice, CPU, lattices=True)


def test_a_k2_that_computes_something_else_is_not_used(monkeypatch):
    """One that was built for another torch may import all the same."""
    monkeypatch.setattr(ctc, "_k2_losses", lambda *_: torch.tensor([0.25]))
    with pytest.raises(InputError, match="k2 is set .* loss of 0.2500 where torch's is .* built for another torch"):
        resolve_ctc_backend("k2", CPU)
    assert resolve_ctc_backend("auto", torch.device("cuda")) == "torch"


@K2
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])  # flat outputs, of which the beam would prune most, to peaked ones
def test_a_wider_beam_changes_nothing(spread, monkeypatch):
    """Utterances of 2 s of 9 phones a second, with as many alternatives as Mandarin and English have, and pauses."""
    draw = random.Random(3)

    def word():
        first = [draw.randint(1, CLASSES - 2) for _ in range(draw.randint(1, 4))]
        return [first, *([[draw.randint(1, CLASSES - 2) for _ in first]] * (draw.random() < 0.3))]

    words = [as_words([word() for _ in range(7)]) for _ in range(4)]
    logits, *arguments = batch(words, [200, 200, 150, 100], 5, spread)
    graphs = [ctc_graph(each, PAUSE) for each in words]
    given = ctc_loss(logits, *arguments, graphs).per_utterance
    monkeypatch.setattr(ctc, "OUTPUT_BEAM", 2 * ctc.OUTPUT_BEAM)
    wider = ctc_loss(logits, *arguments, graphs).per_utterance
    torch.testing.assert_close(given, wider, rtol=0, atol=1e-4 * float(wider.min()))


@K2
@pytest.mark.parametrize("sharpness", [1.0, 5.0])  # the model is hardly trained: its outputs are flat
def test_a_wider_beam_changes_nothing_on_real_utterances(sharpness, samples, experiment, monkeypatch):
    corpus = samples("AISHELL-1")
    (transcripts,) = corpus.rglob("aishell_transcript*.txt")
    lines = (line.split(maxsplit=1) for line in transcripts.read_text(encoding="utf-8").splitlines())
    texts = {name: text for name, text in lines if re.fullmatch(r"[\u4e00-\u9fff\s]+", text)}
    aligner = Aligner(load_trained_model(str(experiment / "best.pt"), "cpu"))
    outputs, graphs, targets, several = [], [], [], False
    for path in [path for path in sorted(corpus.rglob("*.wav")) if path.stem in texts][::23][:6]:
        outputs.append(torch.from_numpy(aligner._log_probs(soundfile.read(path, dtype="float32")[0])) * sharpness)
        spoken = mandarin.text_to_words(texts[path.stem])
        words = as_words([[aligner.table.encode(phones) for phones in word.pronunciations] for word in spoken])
        graphs.append(ctc_graph(words))
        targets.append(torch.tensor(first_labels(words)))
        several |= any(len(set(word)) > 1 for word in words)
    assert len(outputs) == 6 and several
    lengths = torch.tensor([len(each) for each in outputs])
    logits = torch.nn.utils.rnn.pad_sequence(outputs, batch_first=True)
    given = ctc_loss(logits, lengths, targets, "k2", graphs)
    assert given.feasible.all() and not given.pathless.any()
    monkeypatch.setattr(ctc, "OUTPUT_BEAM", 2 * ctc.OUTPUT_BEAM)
    wider = ctc_loss(logits, lengths, targets, "k2", graphs)
    torch.testing.assert_close(given.per_utterance, wider.per_utterance, rtol=1e-4, atol=0)
    torch.testing.assert_close(given.loss, wider.loss, rtol=0, atol=1e-4)

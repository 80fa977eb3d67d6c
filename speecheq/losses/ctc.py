"""CTC for phonemes (equation 1), computed by k2 or torch, and best-path decoding.

Where words have several pronunciations, or pauses between them, an utterance has many label sequences, the paths of a
lattice. The loss is then that of their sum: -log of the sum of the probabilities that CTC gives each of them. That
is computed by k2 alone, with a graph for each utterance in place of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as torch_ctc_loss
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.dataset.phones.lattice import BLANK, CtcGraph
from speecheq.losses.fast_ctc import CtcLoss

BACKENDS = ("k2", "torch")
# k2 prunes paths this much below the best: on flat outputs the error is up to 3.7 nats with 10, 2e-4 with 20.
OUTPUT_BEAM = 20.0
# On a CPU smaller gradients become 0. Those of classes that a model rules out are denormal numbers, with which matrix
# products took twelve times as long.
SMALLEST_GRADIENT = 1e-20


@dataclass
class CtcResult:
    """The loss of a batch of N utterances, and of each."""

    loss: Tensor  # () mean over feasible utterances of NLL / max(1, target length); 0, with gradients of 0, if none is
    per_utterance: Tensor  # (N,) negative log-likelihoods (NLL) in nats, without gradients; inf if infeasible
    feasible: Tensor  # (N,) bool, on the CPU: whether the utterance has a path, and so is in the loss
    pathless: Tensor  # (N,) bool, on the CPU: whether it has enough frames, but k2's pruning has left no path


def resolve_ctc_backend(choice: str, device: torch.device, lattices: bool = False) -> str:
    """Turn the setting ``choice``, k2, torch or auto, into ``k2`` or ``torch``, and log the choice.

    On a CPU auto is torch (fast_ctc.py), which is 1.9 to 3.8 times as fast as k2, with the same loss
    (benchmarks/ctc.py). On a GPU (not measured) auto is k2 if it works. For ``lattices`` it is k2 everywhere.

    Raises InputError if k2 is needed and does not work, or torch is chosen for lattices; ValueError for another choice.
    """
    if choice not in BACKENDS + ("auto",):
        raise ValueError(f"ctc_backend is {choice!r}; it must be one of k2, torch, auto")
    if choice == "torch" and lattices:
        raise InputError(
            "torch is set as CTC backend, and it takes one label sequence an utterance: --pronunciations all and "
            "--silence optional need k2; use '--ctc-backend k2', or leave these options out"
        )
    if choice == "torch":
        log.info("CTC backend: torch, as set")
        return "torch"
    if choice == "auto" and device.type == "cpu" and not lattices:
        log.info("CTC backend: torch, which is faster than k2 on a CPU")
        return "torch"
    reason = _k2_fault()
    if reason is not None and lattices:
        raise InputError(
            f"--pronunciations all and --silence optional need k2, which cannot be used ({reason}): install it with "
            "'utils/install.sh --stack k2', or leave these options out"
        )
    if reason is not None and choice == "k2":
        raise InputError(
            f"k2 is set as CTC backend but cannot be used ({reason}): install the k2 stack with "
            "'utils/install.sh --stack k2', or use '--ctc-backend torch'"
        )
    if reason is not None:
        log.info("CTC backend: torch, because k2 cannot be used (%s)", reason)
        return "torch"
    why = "as set" if choice == "k2" else "which lattices need" if lattices else "because it can be imported"
    log.info("CTC backend: k2 %s, %s", metadata.version("k2"), why)
    return "k2"


def _k2_fault() -> str | None:
    """Why k2 cannot be used here; None if it can. One built for another torch may import and then compute nonsense."""
    log_probs = torch.log_softmax(torch.arange(12.0).reshape(1, 4, 3).cos(), dim=2)
    lengths, targets = torch.tensor([4]), [torch.tensor([1, 2])]
    try:
        found = float(_k2_losses(log_probs, lengths, targets))
    except Exception as error:  # built for another torch or Python: ImportError, OSError, RuntimeError, ...
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    expected = float(_torch_losses(log_probs, lengths, targets))
    if abs(found - expected) > 1e-3:
        return f"it computes a CTC loss of {found:.4f} where torch's is {expected:.4f}; is it built for another torch?"
    return None


def ctc_loss(
    logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], backend: str, graphs: Sequence[CtcGraph] | None = None
) -> CtcResult:
    """Equation 1, in float32: the CTC loss of ``logits`` (N, T, C), before the softmax, of ``lengths`` (N,) frames.

    ``targets`` are N label sequences: 1-D integer tensors, possibly empty, of labels in 1..C-1 (0 is the blank). An
    utterance with fewer frames than labels plus repeated labels has no CTC path: it is not feasible and left out.
    ``backend`` is ``k2`` or ``torch``. Keep lengths and targets on the CPU, where they are read.

    With ``graphs`` (N, k2 only) the loss is that of all label sequences of each utterance's lattice, still divided by
    the length of its target. An utterance is left out if its frames are too few for each of them; those for which they
    are too few have no part in the sum.

    Raises ValueError for a label or a length out of range, or graphs with torch.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    if graphs is not None and backend != "k2":
        raise ValueError("torch's CTC takes one label sequence an utterance, and no graph: choose k2")
    lengths = lengths.detach().cpu().long()
    targets = [target.detach().cpu().long() for target in targets]
    _check_ranges(logits, lengths, targets, graphs)
    if graphs is None:
        frames = [len(target) + int((target[1:] == target[:-1]).sum()) for target in targets]
    else:
        frames = [graph.min_frames for graph in graphs]
    feasible = torch.tensor(frames) <= lengths

    logits, batch = logits.float(), len(lengths)
    if logits.requires_grad and logits.device.type == "cpu":
        logits.register_hook(lambda gradient: gradient.masked_fill(gradient.abs() < SMALLEST_GRADIENT, 0.0))
    per_utterance = torch.full((batch,), float("inf"), device=logits.device)
    pathless = torch.zeros(batch, dtype=torch.bool)
    kept = feasible.nonzero().squeeze(1)
    if len(kept) == 0:
        return CtcResult(logits.sum() * 0.0, per_utterance, feasible, pathless)
    kept = kept[lengths[kept].argsort(descending=True, stable=True)]  # k2 requires decreasing durations
    on_device = kept.to(logits.device, non_blocking=True)
    in_order = len(kept) == batch and bool((kept == torch.arange(batch)).all())
    log_probs = torch.log_softmax(logits if in_order else logits.index_select(0, on_device), dim=2)
    if logits.device.type == "mps":  # for which neither torch nor k2 has a CTC loss
        log_probs = log_probs.cpu()
    kept_targets = [targets[index] for index in kept.tolist()]
    if backend == "torch":
        losses = _torch_losses(log_probs, lengths[kept], kept_targets)
    else:
        kept_graphs = None if graphs is None else [graphs[index] for index in kept.tolist()]
        losses = _k2_losses(log_probs, lengths[kept], kept_targets, kept_graphs)
    losses = losses.to(logits.device)
    per_utterance[on_device] = losses.detach()
    target_lengths = torch.tensor([max(1, len(target)) for target in kept_targets])
    losses = losses / target_lengths.to(logits.device, non_blocking=True)
    # k2 has waited for the device already. A loss that is inf has lost all of its paths; nan is another fault.
    pathless[kept] = torch.isposinf(losses.detach()).cpu() if backend == "k2" else False
    if bool(pathless.any()):
        feasible = feasible & ~pathless
        losses = losses[~pathless[kept].to(logits.device)]
        if len(losses) == 0:
            return CtcResult(logits.sum() * 0.0, per_utterance, feasible, pathless)
    return CtcResult(losses.mean(), per_utterance, feasible, pathless)


def _check_ranges(
    logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], graphs: Sequence[CtcGraph] | None
) -> None:
    batch, num_frames, num_classes = logits.shape
    if not len(lengths) == len(targets) == batch == (batch if graphs is None else len(graphs)):
        raise ValueError(f"{batch} utterances have {len(lengths)} lengths and {len(targets)} targets")
    if bool(((lengths < 1) | (lengths > num_frames)).any()):
        raise ValueError(f"lengths are {lengths.tolist()}; each must be in 1..{num_frames}")
    for index, target in enumerate(targets):
        if target.dim() != 1 or bool(((target < 1) | (target >= num_classes)).any()):
            raise ValueError(
                f"target {index} of the batch must be a row of labels in 1..{num_classes - 1} "
                f"({BLANK} is the blank), but is {target.tolist()}"
            )
    for index, graph in enumerate(graphs or ()):
        if graph.highest >= num_classes:
            raise ValueError(
                f"graph {index} of the batch has the label {graph.highest}; the highest is {num_classes - 1}"
            )


def _torch_losses(log_probs: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    if log_probs.device.type == "cpu":
        label_lengths = torch.tensor([len(target) for target in targets])
        return CtcLoss.apply(log_probs, lengths, pad_sequence(targets, batch_first=True), label_lengths)
    # lengths on the CPU and concatenated labels select torch's own GPU kernel, which accepts empty targets
    target_lengths = torch.tensor([len(target) for target in targets])
    labels = torch.cat(targets).to(log_probs.device, non_blocking=True)
    return torch_ctc_loss(log_probs.transpose(0, 1), labels, lengths, target_lengths, blank=BLANK, reduction="none")


def _k2_losses(
    log_probs: Tensor, lengths: Tensor, targets: list[Tensor], graphs: Sequence[CtcGraph] | None = None
) -> Tensor:
    import k2

    if graphs is None:
        fsas = k2.ctc_graph([target.tolist() for target in targets], modified=False, device=log_probs.device)
    else:
        fsas = k2.create_fsa_vec([k2.Fsa(torch.from_numpy(graph.arcs)) for graph in graphs]).to(log_probs.device)
    rows = torch.arange(len(targets))
    segments = torch.stack([rows, torch.zeros_like(rows), lengths], dim=1).to(torch.int32)
    dense = k2.DenseFsaVec(log_probs.contiguous(), segments)
    return k2.ctc_loss(fsas, dense, output_beam=OUTPUT_BEAM, reduction="none", use_double_scores=True)


def greedy_decode(logits: Tensor, lengths: Tensor, pause: int | None = None) -> list[list[int]]:
    """Logits (N, T, C), lengths (N,) -> the labels on each best path: repeats are merged, then blanks dropped.

    ``pause`` is the label of silence between words, which is dropped too.
    """
    best = logits.detach().argmax(dim=2).cpu()
    decoded = []
    for path, length in zip(best, lengths.tolist()):
        labels = torch.unique_consecutive(path[:length])
        decoded.append([label for label in labels.tolist() if label not in (BLANK, pause)])
    return decoded

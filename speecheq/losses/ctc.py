"""CTC for phonemes (equation 1), computed by k2 or torch, and best-path decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as torch_ctc_loss

from speecheq.common.errors import InputError
from speecheq.common.log import log

BLANK = 0  # silence
BACKENDS = ("k2", "torch")
# k2 prunes paths this much below the best: on flat outputs the error is up to 3.7 nats with 10, 2e-4 with 20.
OUTPUT_BEAM = 20.0


@dataclass
class CtcResult:
    """The loss of a batch of N utterances, and of each."""

    loss: Tensor  # () mean over feasible utterances of NLL / max(1, target length); 0, with gradients of 0, if none is
    per_utterance: Tensor  # (N,) negative log-likelihoods (NLL) in nats, without gradients; inf if infeasible
    feasible: Tensor  # (N,) bool, on the CPU: whether the utterance has enough frames for its target


def resolve_ctc_backend(choice: str, device: torch.device) -> str:
    """Turn the setting ``choice``, k2, torch or auto, into ``k2`` or ``torch``, and log the choice.

    On a CPU auto is torch, which is 1.3 to 2.1 times as fast as k2 for phones, with half the memory and the same loss
    (benchmarks/ctc.py). On a GPU (not measured) auto is k2 if it can be imported.

    Raises InputError if k2 is chosen and cannot be imported, ValueError for another choice.
    """
    if choice not in BACKENDS + ("auto",):
        raise ValueError(f"ctc_backend is {choice!r}; it must be one of k2, torch, auto")
    if choice == "torch":
        log.info("CTC backend: torch, as set")
        return "torch"
    if choice == "auto" and device.type == "cpu":
        log.info("CTC backend: torch, which is faster than k2 on a CPU")
        return "torch"
    try:
        import k2

        _ = k2.ctc_loss  # missing in an unrelated or broken k2
    except Exception as error:  # a k2 built for another torch or Python: ImportError, OSError, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if choice == "k2":
            raise InputError(
                f"k2 is set as CTC backend but cannot be imported ({reason}): install the k2 stack with "
                "'utils/install.sh --stack k2', or use '--ctc-backend torch'"
            ) from error
        log.info("CTC backend: torch, because k2 cannot be imported (%s)", reason)
        return "torch"
    reason = "as set" if choice == "k2" else "because it can be imported"
    log.info("CTC backend: k2 %s, %s", metadata.version("k2"), reason)
    return "k2"


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], backend: str) -> CtcResult:
    """Equation 1, in float32: the CTC loss of ``logits`` (N, T, C), before the softmax, of ``lengths`` (N,) frames.

    ``targets`` are N label sequences: 1-D integer tensors, possibly empty, of labels in 1..C-1 (0 is the blank). An
    utterance with fewer frames than labels plus repeated labels has no CTC path: it is not feasible and left out.
    ``backend`` is ``k2`` or ``torch``. Keep lengths and targets on the CPU, where they are read. Raises
    ValueError for a label or a length out of range.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    batch, num_frames, num_classes = logits.shape
    lengths = lengths.detach().cpu().long()
    targets = [target.detach().cpu().long() for target in targets]
    if len(lengths) != batch or len(targets) != batch:
        raise ValueError(f"{batch} utterances have {len(lengths)} lengths and {len(targets)} targets")
    if bool(((lengths < 1) | (lengths > num_frames)).any()):
        raise ValueError(f"lengths are {lengths.tolist()}; each must be in 1..{num_frames}")
    for index, target in enumerate(targets):
        if target.dim() != 1 or bool(((target < 1) | (target >= num_classes)).any()):
            raise ValueError(
                f"target {index} of the batch must be a row of labels in 1..{num_classes - 1} "
                f"({BLANK} is the blank), but is {target.tolist()}"
            )
    needed = torch.tensor([len(target) + int((target[1:] == target[:-1]).sum()) for target in targets])
    feasible = needed <= lengths

    logits = logits.float()
    per_utterance = torch.full((batch,), float("inf"), device=logits.device)
    kept = feasible.nonzero().squeeze(1)
    if len(kept) == 0:
        return CtcResult(logits.sum() * 0.0, per_utterance, feasible)
    kept = kept[lengths[kept].argsort(descending=True, stable=True)]  # k2 requires decreasing durations
    on_device = kept.to(logits.device, non_blocking=True)
    in_order = len(kept) == batch and bool((kept == torch.arange(batch)).all())
    log_probs = torch.log_softmax(logits if in_order else logits.index_select(0, on_device), dim=2)
    kept_targets = [targets[index] for index in kept.tolist()]
    losses = (_k2_losses if backend == "k2" else _torch_losses)(log_probs, lengths[kept], kept_targets)
    per_utterance[on_device] = losses.detach()
    target_lengths = torch.tensor([max(1, len(target)) for target in kept_targets])
    target_lengths = target_lengths.to(logits.device, non_blocking=True)
    return CtcResult((losses / target_lengths).mean(), per_utterance, feasible)


def _torch_losses(log_probs: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    # lengths on the CPU and concatenated labels select torch's own GPU kernel, which accepts empty targets
    target_lengths = torch.tensor([len(target) for target in targets])
    labels = torch.cat(targets).to(log_probs.device, non_blocking=True)
    return torch_ctc_loss(log_probs.transpose(0, 1), labels, lengths, target_lengths, blank=BLANK, reduction="none")


def _k2_losses(log_probs: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    import k2

    graphs = k2.ctc_graph([target.tolist() for target in targets], modified=False, device=log_probs.device)
    rows = torch.arange(len(targets))
    segments = torch.stack([rows, torch.zeros_like(rows), lengths], dim=1).to(torch.int32)
    dense = k2.DenseFsaVec(log_probs.contiguous(), segments)
    return k2.ctc_loss(graphs, dense, output_beam=OUTPUT_BEAM, reduction="none", use_double_scores=True)


def greedy_decode(logits: Tensor, lengths: Tensor) -> list[list[int]]:
    """Logits (N, T, C), lengths (N,) -> the labels on each best path: repeats are merged, then blanks dropped."""
    best = logits.detach().argmax(dim=2).cpu()
    decoded = []
    for path, length in zip(best, lengths.tolist()):
        labels = torch.unique_consecutive(path[:length])
        decoded.append(labels[labels != BLANK].tolist())
    return decoded

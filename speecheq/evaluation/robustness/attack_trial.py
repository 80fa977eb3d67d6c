"""Attacks on the test clips of a trained system: on its waveforms, or on the filter banks that are made of them.

Only ESC is attacked. The attacker knows the model and the gold class; a clip that is misclassified already stays as it
is, so that no attack makes a score better. What is attacked is the path of scoring (white_box.py).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.errors import InputError
from speecheq.dataset.batch import TaskBatch
from speecheq.evaluation.robustness import attacks
from speecheq.evaluation.robustness.conditions import (
    APGD,
    APGD_DLR,
    ATTACK_ON_FBANK,
    ATTACK_ON_WAVEFORM,
    BIM,
    CLEAN,
    FGSM,
    PGD,
    Condition,
    Setting,
)
from speecheq.evaluation.robustness.noise_trial import SEED, Change
from speecheq.evaluation.robustness.white_box import WhiteBox, ball_of_fbank, ball_of_waveforms
from speecheq.evaluation.score import BestModel
from speecheq.features.fbank import BatchedFbank

METHODS = {"fgsm": FGSM, "bim": BIM, "pgd": PGD, "apgd": APGD, "apgd_dlr": APGD_DLR}
ON = {"waveform": ATTACK_ON_WAVEFORM, "fbank": ATTACK_ON_FBANK}
LEVELS = {"waveform": (-80.0, -70.0, -60.0, -50.0, -40.0, -30.0), "fbank": (0.03, 0.1, 0.3, 1.0, 3.0)}  # dB
# Moves of BIM and PGD, each of 2.5 radii over their number (Madry et al.: to the edge from anywhere), and of APGD.
STEPS, REACH, APGD_STEPS = 10, 2.5, 20


def drawn_shares(ids: Sequence[str], lengths: Tensor, like: Tensor) -> Tensor:
    """Random numbers in [-1, 1) like ``like`` (N, T, ...), 0 on padding, that follow from SEED and the clip's id."""
    rows = []
    for name, length in zip(ids, lengths.tolist()):
        generator = torch.Generator().manual_seed(random.Random(f"{SEED} attack {name}").getrandbits(63))
        rows.append(torch.rand(length, *like.shape[2:], generator=generator) * 2 - 1)
    found = like.new_zeros(like.shape)
    drawn = pad_sequence(rows, batch_first=True)
    found[:, : drawn.shape[1]] = drawn.to(like.device)
    return found


@dataclass(frozen=True)
class AttackTrial:
    """The test clips under attacks ``on`` their waveforms or filter banks, by ``methods`` at ``levels`` in dB.

    Levels of waveforms are the largest change of a sample relative to the clip's root mean square, levels of filter
    banks the largest change of an energy.
    """

    on: str
    methods: tuple[str, ...]
    levels: tuple[float, ...]

    inputs: tuple[Path, ...] = ()  # beside the training it reads nothing
    inputs_of: str = "manifests"

    def __post_init__(self) -> None:
        if self.on == "fbank" and min(self.levels) <= 0:
            raise InputError(f"a filter bank cannot change by {min(self.levels):g} dB at most: give levels above 0.")

    @property
    def setting(self) -> Setting:
        return ON[self.on]

    @property
    def options(self) -> Mapping[str, Any]:
        """All that decides what comes out."""
        return {
            "methods": list(self.methods),
            "levels": list(self.levels),
            "steps": STEPS,
            "reach": REACH,
            "apgd_steps": APGD_STEPS,
            "seed": SEED,
        }

    def changes(self, folder: Path, trained: BestModel) -> tuple[dict[Condition, Change], dict[str, Any]]:
        """Condition -> what makes features of mini-batches of waveforms; and the facts of it.

        The facts count the clips that are classified correctly, and of these the ones without a gradient to follow, as
        the change of CLEAN comes by them. InputError for a model that cannot be differentiated.
        """
        box = WhiteBox(trained.model, BatchedFbank().to(trained.device), trained.device, str(folder))
        gradients = {"attacked": 0, "without": 0}

        def looked_at(logits: attacks.Logits, ball: attacks.Ball, gold: Tensor, share: Tensor) -> Tensor:
            gradients["attacked"] += len(gold)
            gradients["without"] += int(attacks.slope(logits, ball.centre, gold).blind.sum())
            return ball.centre

        changes = {CLEAN: self._attacked(box, looked_at, 0.0)}
        for method in self.methods:
            for level in self.levels:
                condition = Condition(f"{METHODS[method]} at {level:g} dB", METHODS[method], level)
                changes[condition] = self._attacked(box, BY_METHOD[method], level)
        return changes, {**self.options, "notes": self._notes(), "gradients": gradients}

    def _notes(self) -> list[str]:
        """What the pages say of it."""
        notes = [
            f"the attacks know the model and the gold class and are on the category (ESC) alone; BIM and PGD make "
            f"{STEPS} moves of {REACH / STEPS:g} of the largest change, {APGD} {APGD_STEPS}; PGD and {APGD} begin at a "
            f"random place (seed {SEED}); a clip that is misclassified already stays as it is"
        ]
        if "apgd_dlr" in self.methods:
            notes.append(
                f"{APGD_DLR} is {APGD}, then, on the clips that it leaves right, {APGD} with the loss DLR, "
                "which does not depend on the scale of the logits"
            )
        return notes

    def _attacked(self, box: WhiteBox, attack: "Attack", level: float) -> Change:
        def features(stream: TaskBatch) -> TaskBatch:
            if self.on == "waveform":
                changed = attacked(box.of_waveforms, ball_of_waveforms, stream, attack, level)
                made, frames = box.fbank(changed, stream.lengths)
                return replace(stream, inputs=made, lengths=frames)
            made, frames = box.fbank(stream.inputs, stream.lengths)
            stream = replace(stream, inputs=made, lengths=frames)
            return replace(stream, inputs=attacked(box.of_fbank, ball_of_fbank, stream, attack, level))

        return features


Attack = Callable[[attacks.Logits, attacks.Ball, Tensor, Tensor], Tensor]
BY_METHOD: dict[str, Attack] = {
    "fgsm": lambda logits, ball, gold, share: attacks.fgsm(logits, ball, gold),
    "bim": lambda logits, ball, gold, share: attacks.bim(logits, ball, gold, STEPS, REACH / STEPS),
    "pgd": lambda logits, ball, gold, share: attacks.pgd(logits, ball, gold, STEPS, REACH / STEPS, share),
    "apgd": lambda logits, ball, gold, share: attacks.apgd(logits, ball, gold, APGD_STEPS, share),
    "apgd_dlr": lambda logits, ball, gold, share: attacks.apgd_of_both(logits, ball, gold, APGD_STEPS, share),
}


def attacked(
    logits_of: Callable[[Tensor], attacks.Logits],
    ball_of: Callable[[Tensor, Tensor, float], attacks.Ball],
    stream: TaskBatch,
    attack: Attack,
    level: float,
) -> Tensor:
    """The inputs (N, T, ...) of ``stream`` after an attack on those clips that are classified as their gold class."""
    x, lengths, gold = stream.inputs, stream.lengths, stream.targets["esc"].to(stream.inputs.device)
    with torch.no_grad():
        right = logits_of(lengths)(x).argmax(1) == gold
    rows = right.nonzero()[:, 0].cpu()
    if not len(rows):
        return x
    place = rows.to(x.device)
    clips, their_lengths = x[place], lengths[rows]
    share = drawn_shares([stream.ids[row] for row in rows.tolist()], their_lengths, clips)
    made = attack(logits_of(their_lengths), ball_of(clips, their_lengths, level), gold[place], share)
    return x.index_copy(0, place, made)

"""Attacks on the test clips of a trained system: on their waveforms, or on the fbank features made of them.

Only ESC is attacked. The attacker knows the model and the gold class; clips that are misclassified already are not
changed, so no attack can raise a score. The path from waveform to logits is that of scoring (white_box.py).
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
from speecheq.config.schema import FBANK
from speecheq.dataset.batch import TaskBatch
from speecheq.dataset.model_inputs import FeatureExtractor, waveform_extractor
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
    SEED,
    Condition,
    Setting,
)
from speecheq.evaluation.robustness.white_box import WhiteBox, fbank_ball, waveform_ball
from speecheq.evaluation.score import BestModel

Attack = Callable[[attacks.Logits, attacks.Ball, Tensor, Tensor], Tensor]  # the last two are gold and the offset

METHOD_NAMES = {"fgsm": FGSM, "bim": BIM, "pgd": PGD, "apgd": APGD, "apgd_dlr": APGD_DLR}
SETTINGS = {"waveform": ATTACK_ON_WAVEFORM, "fbank": ATTACK_ON_FBANK}
LEVELS = {"waveform": (-80.0, -70.0, -60.0, -50.0, -40.0, -30.0), "fbank": (0.03, 0.1, 0.3, 1.0, 3.0)}  # dB
# BIM and PGD make STEPS moves of REACH / STEPS radii, so they reach the edge from any start (Madry et al.).
STEPS, REACH, APGD_STEPS = 10, 2.5, 20
ATTACKS: dict[str, Attack] = {
    "fgsm": lambda logits, ball, gold, offset: attacks.fgsm(logits, ball, gold),
    "bim": lambda logits, ball, gold, offset: attacks.bim(logits, ball, gold, STEPS, REACH / STEPS),
    "pgd": lambda logits, ball, gold, offset: attacks.pgd(logits, ball, gold, STEPS, REACH / STEPS, offset),
    "apgd": lambda logits, ball, gold, offset: attacks.apgd(logits, ball, gold, APGD_STEPS, offset),
    "apgd_dlr": lambda logits, ball, gold, offset: attacks.apgd_with_dlr(logits, ball, gold, APGD_STEPS, offset),
}


def random_offsets(ids: Sequence[str], lengths: Tensor, like: Tensor) -> Tensor:
    """Random numbers in [-1, 1) like ``like`` (N, T, ...), 0 on padding, drawn from SEED and each clip's id."""
    rows = []
    for clip_id, length in zip(ids, lengths.tolist()):
        generator = torch.Generator().manual_seed(random.Random(f"{SEED} attack {clip_id}").getrandbits(63))
        rows.append(torch.rand(length, *like.shape[2:], generator=generator) * 2 - 1)
    offsets = like.new_zeros(like.shape)
    drawn = pad_sequence(rows, batch_first=True)
    offsets[:, : drawn.shape[1]] = drawn.to(like.device)
    return offsets


def attack_clips(
    make_logits: Callable[[Tensor], attacks.Logits],
    make_ball: Callable[[Tensor, Tensor, float], attacks.Ball],
    batch: TaskBatch,
    attack: Attack,
    level: float,
) -> Tensor:
    """The inputs (N, T, ...) of ``batch`` after an attack on the clips that are classified correctly.

    ``make_logits`` is a method of WhiteBox that takes the lengths, ``make_ball`` the function for the same inputs.
    """
    x, lengths, gold = batch.inputs, batch.lengths, batch.targets["esc"].to(batch.inputs.device)
    with torch.no_grad():
        correct = make_logits(lengths)(x).argmax(1) == gold
    rows = correct.nonzero()[:, 0].cpu()
    if not len(rows):
        return x
    index = rows.to(x.device)
    clips, clip_lengths = x[index], lengths[rows]
    offset = random_offsets([batch.ids[row] for row in rows.tolist()], clip_lengths, clips)
    changed = attack(make_logits(clip_lengths), make_ball(clips, clip_lengths, level), gold[index], offset)
    return x.index_copy(0, index, changed)


@dataclass(frozen=True)
class AttackTrial:
    """The test clips under attacks by ``methods`` at ``levels``, on their inputs ``on``: waveform or fbank.

    Levels of waveforms are the largest change of a sample, in dB relative to the clip's root mean square; levels of
    fbank are the largest change of an energy in dB. Raises InputError for a level of fbank that is not above 0.
    """

    on: str
    methods: tuple[str, ...]
    levels: tuple[float, ...]

    inputs: tuple[Path, ...] = ()  # nothing besides the training
    input_stage: str = "manifests"

    def __post_init__(self) -> None:
        if self.on == "fbank" and min(self.levels) <= 0:
            raise InputError(f"a filter bank cannot change by {min(self.levels):g} dB at most: give levels above 0.")

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.on]

    @property
    def options(self) -> Mapping[str, Any]:
        """All settings that the scores depend on."""
        return {
            "methods": list(self.methods),
            "levels": list(self.levels),
            "steps": STEPS,
            "reach": REACH,
            "apgd_steps": APGD_STEPS,
            "seed": SEED,
        }

    def extractors(self, folder: Path, trained: BestModel) -> tuple[dict[Condition, FeatureExtractor], dict[str, Any]]:
        """How to make the features of each condition from waveforms. Raises InputError if the model has no gradient.

        Returns: the extractor of each condition, and the facts for ``conditions.write``. The counts "gradients" among
        them are filled in while the extractor of CLEAN runs.
        """
        if trained.config.data.cmvn == "speaker":
            raise InputError(
                f"{folder}: is normalised by speaker, so that a clip's logits depend on other clips; attack a system "
                "with data.cmvn global or utterance."
            )
        if self.on == "fbank" and trained.config.data.features != FBANK:
            raise InputError(f"{folder}: takes no filter banks that could be attacked; give --on waveform.")
        extractor = waveform_extractor(trained.config, trained.model.trained_encoder).to(trained.device)
        box = WhiteBox(trained.model, extractor, trained.device, str(folder))
        gradients = {"attacked": 0, "without": 0}

        def count_gradients(logits: attacks.Logits, ball: attacks.Ball, gold: Tensor, offset: Tensor) -> Tensor:
            gradients["attacked"] += len(gold)
            gradients["without"] += int(attacks.loss_gradient(logits, ball.centre, gold).masked.sum())
            return ball.centre

        extractors = {CLEAN: self._extractor(box, count_gradients, 0.0)}
        for method in self.methods:
            name = METHOD_NAMES[method]
            for level in self.levels:
                condition = Condition(f"{name} at {level:g} dB", name, level)
                extractors[condition] = self._extractor(box, ATTACKS[method], level)
        return extractors, {**self.options, "notes": self._notes(), "gradients": gradients}

    def _notes(self) -> list[str]:
        """Sentences for the report."""
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

    def _extractor(self, box: WhiteBox, attack: Attack, level: float) -> FeatureExtractor:
        def features(batch: TaskBatch) -> TaskBatch:
            waveforms = batch.inputs
            if self.on == "waveform":
                waveforms = attack_clips(box.waveform_logits, waveform_ball, batch, attack, level)
            with torch.no_grad():
                made, frames = box.extractor(waveforms, batch.lengths)
            batch = replace(batch, inputs=made, lengths=frames)
            if self.on == "fbank":
                batch = replace(batch, inputs=attack_clips(box.fbank_logits, fbank_ball, batch, attack, level))
            return batch

        return features

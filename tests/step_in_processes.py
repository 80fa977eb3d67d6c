"""Names for programs that take the same made-up step in one process and in several (training_runs.run_program)."""

import random

import torch
from several_processes import *  # noqa: F403
from several_processes import checkpoint, distributed, folder
from training_runs import small_config

from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, gradients

FP32 = Precision("fp32", torch.device("cpu"))
WEIGHTS = LossWeights(augmentation_weight=0.5, reconstruction_weight=0.5)


def config_of(case):
    config = small_config(model__kind=case["kind"], data__cmvn="none", loss__label_ignore=case["label_ignore"])
    config.model.batch_statistics = "per_stream" if case["seed"] % 2 else "shared"
    if "unlabelled" in case["clips"]:  # MTL-AUG
        config.model.num_augmentations, config.model.decoder_channels = 7, 8
        config.loss.augmentation = config.loss.reconstruction = 0.5
    return config


def batch_of(case):
    """This process' share of a made-up mini-batch of each stream."""
    generator, draws = torch.Generator().manual_seed(case["seed"]), random.Random(case["seed"])
    made = {}
    for name, clips in case["clips"].items():
        lengths = [draws.randint(20, 45) for _ in range(clips)]
        if draws.random() < 0.3:
            lengths = [30] * clips  # no padding
        targets = {
            "emotion": lambda: {
                "esc": torch.tensor([draws.randint(0, 8) for _ in lengths]),
                "eis": torch.tensor([draws.choice([-1.0, 0.0, 1.5, 2.5, 3.5]) for _ in lengths]),
            },
            "gender": lambda: {"gender": torch.tensor([draws.randint(0, 1) for _ in lengths])},
            # one of them in five has more phones than frames
            "phoneme": lambda: {
                "phones": [
                    torch.randint(1, 50, (draws.choice([1, 3, 5, 7, 60]),), generator=generator) for _ in lengths
                ]
            },
            "unlabelled": dict,
        }[name]()
        mtl_aug = "unlabelled" in case["clips"] and name in ("emotion", "unlabelled")
        if mtl_aug:
            targets["augmentation"] = torch.tensor([draws.randint(0, 6) for _ in lengths])
        inputs = [torch.randn(length, 80, generator=generator) for length in lengths]
        clean = [torch.randn(length, 80, generator=generator) for length in lengths] if mtl_aug else []
        rows = range(clips) if distributed.size() > clips else range(clips)[distributed.rank() :: distributed.size()]
        made[name] = TaskBatch(
            torch.nn.utils.rnn.pad_sequence([inputs[row] for row in rows], batch_first=True),
            torch.tensor([lengths[row] for row in rows]),
            [f"{name}{row}" for row in rows],
            {
                key: value[list(rows)] if torch.is_tensor(value) else [value[row] for row in rows]
                for key, value in targets.items()
            },
            all_ids=[f"{name}{row}" for row in range(clips)],
            clean=torch.nn.utils.rnn.pad_sequence([clean[row] for row in rows], batch_first=True) if clean else None,
        )
    return MultitaskBatch(**made)


def backward(rank, cases, out):
    """Write the losses, gradients and statistics of each case's step."""
    found = []
    for case in cases:
        torch.manual_seed(1)
        config = config_of(case)
        model = checkpoint.new_model(config)
        losses = gradients(model, batch_of(case), StepSetup(config, "torch", FP32), WEIGHTS)
        distributed.sum_gradients(model.parameters())
        found.append(
            {
                "losses": {**losses.by_stream, **losses.by_task},
                "left_out": losses.ctc_left_out,
                "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
                "buffers": {name: value.clone() for name, value in model.named_buffers()},
            }
        )
    torch.save(found, folder / f"{out}.{rank}.pt")

"""Telephone speech: the test clips in the band of a telephone and through its codecs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from speecheq.dataset.batch import TaskBatch
from speecheq.dataset.model_inputs import FeatureExtractor, waveform_extractor
from speecheq.evaluation.robustness.conditions import CLEAN, TELEPHONE, Condition, Setting
from speecheq.evaluation.score import BestModel
from speecheq.features.telephone import BAND, CODECS, RATE, telephone_clips


@dataclass(frozen=True)
class TelephoneTrial:
    """The test clips through each codec of a telephone."""

    setting: Setting = TELEPHONE
    input_stage: str = "manifests"
    inputs: tuple[Path, ...] = ()

    @property
    def options(self) -> Mapping[str, Any]:
        """All settings that the scores depend on."""
        return {"codecs": list(CODECS), "band": list(BAND), "rate": RATE}

    def extractors(self, folder: Path, trained: BestModel) -> tuple[dict[Condition, FeatureExtractor], dict[str, Any]]:
        """How to make the features of each condition from waveforms, and the facts for ``conditions.write``."""
        features_of = waveform_extractor(trained.config, trained.model.trained_encoder).to(trained.device)

        def extractor(codec: str | None) -> FeatureExtractor:
            @torch.no_grad()
            def features(batch: TaskBatch) -> TaskBatch:
                clips = batch.inputs
                if codec is not None:
                    clips = telephone_clips(clips, batch.lengths, [codec] * len(clips))
                made, frames = features_of(clips, batch.lengths)
                return replace(batch, inputs=made, lengths=frames)

            return features

        note = f"each clip is filtered to {BAND[0]:g} to {BAND[1]:g} Hz, at {RATE} Hz, and coded and decoded"
        found = {CLEAN: extractor(None), **{Condition(codec): extractor(codec) for codec in CODECS}}
        return found, {**self.options, "notes": [note]}

"""Encoder states of waveforms, augmented or not, that are computed once for all epochs and trainings.

    DATA/NAME/cache/<2 hex digits>/<key>.npy    the states (T, D) of a clip, in float16

A training that computes its encoder's states itself (``data.input: waveform``) spends most of its time on them. With
``data.versions`` each clip has a fixed number of crops and changes, whose states come back epoch after epoch.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file

# Waveforms (N, S) and lengths (N,) -> features (N, T, D) and frames (N,), or changed waveforms and their lengths.
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class StateCache:
    """The states that ``extract`` makes of clips, kept in ``folder``.

    Clips are computed one by one: their states do not depend on a mini-batch. ``facts`` is all that they follow from
    besides the samples and what ``states`` is given.
    """

    def __init__(self, folder: Path, extract: Transform, facts: Sequence[object]):
        self.folder, self.extract, self.facts = Path(folder), extract, digest(facts).encode()

    def states(
        self, waveforms: Tensor, lengths: Tensor, change: Callable[[int], tuple[str, Transform] | None]
    ) -> tuple[Tensor, Tensor]:
        """The states (N, T, D) and frames (N,) of waveforms (N, S), lengths (N,).

        ``change`` gives for each row a name and how its clip is changed before, None for a clip as it is. The name must
        say all that the change follows from. Raises InputError for states that float16 cannot hold, and damaged files.
        """
        found = []
        for row, length in enumerate(lengths.tolist()):
            changed = change(row)
            found.append(self._one(waveforms[row, :length], *(changed or ("", None))))
        states = pad_sequence(found, batch_first=True).to(waveforms.device, torch.float32)
        return states, torch.tensor([len(clip) for clip in found])

    def _one(self, waveform: Tensor, name: str, change: Transform | None) -> Tensor:
        samples = waveform.cpu().numpy().tobytes()
        key = hashlib.blake2b(b"%s %s " % (self.facts, name.encode()) + samples, digest_size=16).hexdigest()
        path = self.folder / key[:2] / f"{key}.npy"
        if path.is_file():
            try:
                return torch.from_numpy(np.load(path, allow_pickle=False))
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: cannot be read ({error}); remove it, it is computed again.") from error
        clip, length = waveform[None], torch.tensor([len(waveform)])
        if change is not None:
            clip, length = change(clip, length)
        states, frames = self.extract(clip, length)
        made = states[0, : int(frames[0])].half().cpu()
        if not made.isfinite().all():
            raise InputError(
                "data.cache_states: the states of a clip are not finite, or above 65504, which float16 cannot hold; "
                "set it to false."
            )
        with whole_file(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, made.numpy())
        return made

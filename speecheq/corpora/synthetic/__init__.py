"""Mini corpora: small synthetic stand-ins in the official layouts, so that every recipe runs without a download.

espeak-ng speaks sentences of our own. A speaker is one of its voice variants with a pitch; ``plan`` defines how an
emotion sounds. Scores on these clips show that a recipe works and nothing else.
"""

import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speecheq.common.digests import digest, tree_sizes
from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder, read_json, remove_leftovers, whole_folder, write_json
from speecheq.common.log import log
from speecheq.common.progress import Progress
from speecheq.corpora.synthetic.emodb import plan_emodb
from speecheq.corpora.synthetic.english import plan_crema_d, plan_librispeech, plan_ravdess
from speecheq.corpora.synthetic.esd import plan_esd
from speecheq.corpora.synthetic.iemocap import plan_iemocap
from speecheq.corpora.synthetic.mandarin import plan_aishell, plan_casia, plan_seqd
from speecheq.corpora.synthetic.msp_improv import plan_msp_improv
from speecheq.corpora.synthetic.plan import Plan
from speecheq.corpora.synthetic.voice import Voice, recorded

SIZES = ("mini", "nano")
# A file beside the corpus that marks the folder as a mini corpus, which may be replaced.
MARKER = "synthesised.json"
# Raised when the corpora change.
FORMAT = 1

# corpus -> its plan for a size
CORPORA: dict[str, Callable[[str, random.Random], Plan]] = {
    "casia": plan_casia,
    "aishell": plan_aishell,
    "seqd": plan_seqd,
    "esd": plan_esd,
    "ravdess": plan_ravdess,
    "crema_d": plan_crema_d,
    "iemocap": plan_iemocap,
    "emodb": plan_emodb,
    "msp_improv": plan_msp_improv,
    "librispeech": plan_librispeech,
}


def _check_choice(kind: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {kind} {value!r} is unknown; choose one of {', '.join(choices)}.")


def _check_replaceable(out_dir: Path, corpus: str) -> None:
    """Raise InputError unless ``out_dir`` is new, empty or an earlier mini version of ``corpus``: it gets replaced."""
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir}: is not a folder; name a new one for the mini corpus {corpus}.")
    if not out_dir.is_dir() or not any(out_dir.iterdir()):
        return
    marker = out_dir / MARKER
    if not marker.is_file() or read_json(marker).get("corpus") != corpus:
        raise InputError(
            f"{out_dir}: holds something other than the mini corpus {corpus}, which would replace it; "
            "name a new or empty folder."
        )


def synthesise(corpus: str, out_dir: str | Path, size: str = "mini", seed: int = 0) -> dict[str, int]:
    """Write the mini version of ``corpus`` to ``out_dir``, in the official layout and as a whole; return its counts.

    ``size`` is ``mini`` (for the demo) or ``nano`` (the smallest that a whole recipe works on, for tests). The same
    ``seed`` gives the same bytes; a folder that has them is left as it is. Raises InputError for an unknown corpus or
    size, a folder that holds something else, and where the extra `demo` is not installed.
    """
    _check_choice("mini corpus", corpus, tuple(CORPORA))
    _check_choice("size", size, SIZES)
    out_dir = Path(out_dir)
    rng = random.Random(f"{corpus} {seed}")
    plan = CORPORA[corpus](size, rng)
    counts = {**plan.counts, "clips": len(plan.clips)}
    marker = {"corpus": corpus, "size": size, "seed": seed, "format": FORMAT, "counts": counts}
    _check_replaceable(out_dir, corpus)
    with locked_folder(out_dir, wait=True):
        remove_leftovers(out_dir)
        if (out_dir / MARKER).is_file() and read_json(out_dir / MARKER) == {**marker, "files": _files(out_dir)}:
            log.info("%s: already holds the %s version of %s, skipped", out_dir, size, corpus)
        else:
            _write(plan, rng, f"synthesise {corpus} ({size})", out_dir, marker)
    return counts


def _files(folder: Path) -> str:
    """A digest of the names and sizes of the files below ``folder`` but for the marker."""
    return digest({name: size for name, size in tree_sizes(folder).items() if name != MARKER})


def _write(plan: Plan, rng: random.Random, title: str, out_dir: Path, marker: Mapping[str, Any]) -> None:
    import soundfile

    with Voice() as voice, whole_folder(out_dir) as folder, Progress(title, len(plan.clips), "clips") as shown:
        noise = np.random.default_rng(rng.getrandbits(64))
        for clip in plan.clips:
            path = folder / clip.path
            path.parent.mkdir(parents=True, exist_ok=True)
            spoken = voice.say(clip.text, clip.speaker, clip.prosody, clip.language)
            samples = recorded(spoken, voice.sample_rate, clip.rate, clip.channels, noise)
            audio = io.BytesIO()  # libsndfile does not say why it could not write to a file
            soundfile.write(audio, samples, clip.rate, subtype="PCM_16", format=path.suffix[1:].upper())
            path.write_bytes(audio.getbuffer())
            shown.update()
        for name, content in plan.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        write_json(folder / MARKER, {**marker, "files": _files(folder)})

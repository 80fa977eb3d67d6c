"""The recipe of MsUD: corpora, protocol, dev part, classes; and the names of its sets and folders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.corpora.declaration import NEUTRAL_RULES
from speecheq.dataset.protocols import ALL, CROSS, RANDOM_PROTOCOLS

CLASSES = ("seqm", "corpus")
DECLARED = "declared"
DEV_PARTS = ("auto", "clips", "speaker", "official")
EVERY_CORPUS = "*"
# What published protocols do and this house does not: each is a switch of a protocol of its own, never of another.
IMPROVISED, DROP_SHORT, BEST_TEST = "improvised", "drop_short", "best_test"
AS_PUBLISHED = {
    IMPROVISED: "improvised speech only",
    DROP_SHORT: "clips of 2 s or less are left out, of the test too",
    BEST_TEST: "the epoch is chosen on the test clips",
}
SHORT_SECONDS = 2.0
# The sets of a fold. Training sets are named after their task.
TRAINING, GENDER, DEV, TEST = "emotion", "gender", "dev", "test"


def parse_switches(text: str) -> tuple[str, ...]:
    """The switches of ``--as-published``, in the order of AS_PUBLISHED. Raises InputError for an unknown one."""
    names = text.replace(",", " ").split()
    unknown = next((name for name in names if name not in AS_PUBLISHED), None)
    if unknown is not None:
        raise InputError(f"--as-published: {unknown!r} is not one of {', '.join(AS_PUBLISHED)}.")
    return tuple(name for name in AS_PUBLISHED if name in names)


def experiment_name(
    target: str, protocol: str, classes: str = "seqm", neutral_eis: str = DECLARED, as_published: Sequence[str] = ()
) -> str:
    """The name of the folder of a target under a protocol; switches that are not at their defaults are part of it.

    Raises InputError for a protocol whose name cannot be part of a folder's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", protocol):
        raise InputError(f"--protocol {protocol!r}: a name has letters, digits, - and _ only.")
    name = f"{target}.{protocol}"
    if classes != "seqm":
        name += f".{classes}_classes"
    if neutral_eis != DECLARED:
        name += f".neutral_{neutral_eis}"
    if as_published:
        name += f".as_published-{'-'.join(as_published)}"
    return name


@dataclass(frozen=True)
class Recipe:
    """The composition of MsUD.

    - ``corpora``: the emotion corpora. The target always is one, whether it is named or not.
    - ``dev``: which training clips are the dev part: ``clips`` (10 %), one ``speaker``, the ``official`` part, or
      ``auto``: the official part where there is one and the protocol is ``official``, else clips.
    - ``classes``: the nine of SEQM, or the target ``corpus``' own.
    - ``neutral_eis``: the EIS of neutral clips is as each corpus declares it (``declared``), SEQM's 0 in all corpora
      (``metric``), or that of the corpora's own intensities (``corpus``).
    - ``use``: the SEQM categories that are used of a corpus, or of all ("*"); None: all categories.
    - ``folds_file``: a published partition of the target.
    - ``as_published``: the switches of AS_PUBLISHED that are on.
    - ``recipe_corpora``: all corpora that the recipe knows, so that those left out can be named.
    """

    target: str
    protocol: str
    corpora: Sequence[str]
    dev: str = "auto"
    seed: int = 0
    classes: str = "seqm"
    neutral_eis: str = DECLARED
    use: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    folds_file: Path | None = None
    recipe_corpora: Sequence[str] = ()
    as_published: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--classes", self.classes, CLASSES),
            ("--neutral-eis", self.neutral_eis, (DECLARED, *NEUTRAL_RULES)),
            ("--dev", self.dev, DEV_PARTS),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r} is not one of {', '.join(choices)}.")
        for category in (category for categories in self.use.values() for category in categories or ()):
            if category not in seqm.CATEGORIES:
                raise InputError(f"--use: {category!r} is not one of SEQM's categories {', '.join(seqm.CATEGORIES)}.")
        unknown = sorted(set(self.use) - {EVERY_CORPUS, self.target, *self.corpora, *self.recipe_corpora})
        if unknown:
            raise InputError(f"--use {unknown[0]}=...: there is no corpus {unknown[0]} in this run.")
        if BEST_TEST in self.as_published and (self.dev != "auto" or self.protocol == CROSS):
            raise InputError("--as-published best_test has no dev part; leave out --dev, and the protocol cross.")
        if self.protocol == CROSS and self.classes == "corpus":
            raise InputError("the protocol 'cross' compares corpora in SEQM's classes; leave out --classes corpus.")
        if self.folds_file is not None and self.protocol in (ALL, CROSS, "official", *RANDOM_PROTOCOLS):
            raise InputError(
                f"--folds-file gives the folds, but the protocol {self.protocol!r} makes its own: give the list "
                "another name with --protocol, or leave it out."
            )

    def used_categories(self, corpus: str) -> Sequence[str] | None:
        """The SEQM categories that are used of a corpus; None: all."""
        return self.use.get(corpus, self.use.get(EVERY_CORPUS))

    @property
    def name(self) -> str:
        return experiment_name(self.target, self.protocol, self.classes, self.neutral_eis, self.as_published)

    @property
    def others(self) -> list[str]:
        """The corpora besides the target, each once."""
        return [name for name in dict.fromkeys(self.corpora) if name != self.target]


def parse_use(texts: Sequence[str]) -> dict[str, list[str] | None]:
    """Parse ``--use``: ``joy,anger`` (every corpus) or ``esd_zh=joy,anger``.

    Returns: corpus or "*" -> categories. Of two texts for the same corpus the later one counts; ``all`` lifts a
    restriction (None).
    """
    use: dict[str, list[str] | None] = {}
    for text in texts:
        corpus, equals, categories = text.rpartition("=")
        names = categories.replace(",", " ").split()
        if not names:
            raise InputError(f"--use {text!r}: names no category, for instance --use joy,anger,neutral,sadness.")
        use[corpus.strip() if equals else EVERY_CORPUS] = None if names == ["all"] else names
    if use.get(EVERY_CORPUS) is None:  # None has an effect only if all other corpora are restricted
        return {corpus: names for corpus, names in use.items() if names is not None}
    return use

"""Clips by dialogue, in the order in which they were spoken: the mini-batches of ``data.batches: dialogue``."""

from collections import defaultdict
from collections.abc import Iterable

from lhotse.cut import Cut

from speecheq.common.errors import InputError

DIALOGUE, BEGIN = "dialogue", "begin"  # the fields of a clip that name its dialogue, and the second it begins at


def has_dialogues(cut: Cut) -> bool:
    """Whether the corpus of a clip names dialogues."""
    return DIALOGUE in cut.supervisions[0].custom


def by_dialogue(cuts: Iterable[Cut]) -> list[list[Cut]]:
    """The clips of each dialogue, in their order; dialogues by name. Raises InputError for a clip that names none."""
    dialogues: dict[str, list[tuple[float, str, Cut]]] = defaultdict(list)
    for cut in cuts:
        custom = cut.supervisions[0].custom
        if not has_dialogues(cut):
            raise InputError(
                f"{cut.id}: {custom['corpus']} names no dialogues, which model.context dialogue needs (IEMOCAP does; "
                "prepared before, it needs stage 1 again); leave it at none."
            )
        dialogues[custom[DIALOGUE]].append((custom[BEGIN], cut.id, cut))
    return [[cut for *_, cut in sorted(found, key=lambda turn: turn[:2])] for _, found in sorted(dialogues.items())]

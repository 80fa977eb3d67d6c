"""How often the clips of each corpus occur in an epoch (``data.corpus_sampling``, ``data.target_share``)."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lhotse.cut import Cut


@dataclass(frozen=True)
class CorpusSampling:
    """The share of each corpus: in proportion to its size to the power of ``exponent``.

    With exponent 1 each has its own clips, with 0 all corpora have as many. The share of the corpus ``target`` is
    ``target_share``, where that is given, and the others' are in proportion as before.
    """

    exponent: float = 1.0
    target: str | None = None
    target_share: float | None = None

    def takes_each_clip_once(self) -> bool:
        return self.exponent == 1 and (self.target is None or self.target_share is None)

    def quotas(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Clips of each corpus in an epoch, in sum as many as all; ``sizes``: clips of each corpus."""
        weights = {name: size**self.exponent for name, size in sizes.items()}
        if self.target in weights and self.target_share is not None and len(weights) > 1:
            others = sum(weight for name, weight in weights.items() if name != self.target)
            weights[self.target] = others * self.target_share / (1 - self.target_share)
        total = sum(sizes.values())
        exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
        quotas = {name: int(value) for name, value in exact.items()}
        largest = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))  # largest remainders first
        for name in largest[: total - sum(quotas.values())]:
            quotas[name] += 1
        return quotas

    def resample(self, cuts: Iterable[Cut], seed: str) -> list[Cut]:
        """The cuts of an epoch, in random order, with the quota of each corpus.

        A corpus with a quota above its size has each clip as often as it fits in, and the others drawn without
        replacement; the draw follows from ``seed``.
        """
        by_corpus: dict[str, list[Cut]] = defaultdict(list)
        for cut in cuts:
            by_corpus[cut.supervisions[0].custom["corpus"]].append(cut)
        randomness, chosen = random.Random(seed), []
        quotas = self.quotas({name: len(own) for name, own in by_corpus.items()})
        for name, own in sorted(by_corpus.items()):
            times, others = divmod(quotas[name], len(own))
            chosen += times * own + randomness.sample(own, others)
        randomness.shuffle(chosen)
        return chosen

"""How often the clips of each corpus occur in an epoch of the emotion stream (``data.corpus_sampling``)."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

from lhotse.cut import Cut


def corpus_quotas(sizes: Mapping[str, int], exponent: float) -> dict[str, int]:
    """Clips of each corpus in an epoch: in proportion to its size to the power of ``exponent``; in sum as many as all.

    ``sizes``: clips of each corpus. With exponent 1 each has its own clips, with 0 all corpora have as many.
    """
    total, weights = sum(sizes.values()), {name: size**exponent for name, size in sizes.items()}
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    largest = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))  # largest remainders first
    for name in largest[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def resample(cuts: Iterable[Cut], exponent: float, seed: str) -> list[Cut]:
    """The cuts of an epoch, in random order, with ``corpus_quotas`` of each corpus.

    A corpus with a quota above its size has each clip as often as it fits in, and the others drawn without
    replacement; the draw follows from ``seed``.
    """
    by_corpus: dict[str, list[Cut]] = defaultdict(list)
    for cut in cuts:
        by_corpus[cut.supervisions[0].custom["corpus"]].append(cut)
    randomness, chosen = random.Random(seed), []
    quotas = corpus_quotas({name: len(own) for name, own in by_corpus.items()}, exponent)
    for name, own in sorted(by_corpus.items()):
        times, others = divmod(quotas[name], len(own))
        chosen += times * own + randomness.sample(own, others)
    randomness.shuffle(chosen)
    return chosen

"""The label sequences of utterances whose words have several pronunciations, by brute force."""

from itertools import chain, product


def all_sequences(words, pause=None):
    """Every choice of pronunciations as one tuple of labels; with ``pause`` that label may stand wherever it can."""
    if pause is not None:
        either = ((), (pause,))
        words = [either, *chain.from_iterable((word, either) for word in words)]
    return {tuple(chain.from_iterable(choice)) for choice in product(*words)}

"""Utterances whose words have several pronunciations: as a lattice of labels, and as the graph of its CTC paths.

An utterance is a row of words, and a word the alternatives of its pronunciation, each a row of labels; the first
alternative is the one that is taken where there can only be one. In front of, between and after the words there may be
pauses, a label of their own.

    words    [[1 2], [1 3]]  [[4]]        two words, the first with two pronunciations
    lattice  0 -1-> 1 -2-> 2 -4-> 3       each label sequence is one path: alternatives with the same beginning share
                    1 -3-> 2              arcs, and two ways to the same sequence are one
"""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from graphlib import TopologicalSorter
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

BLANK = 0  # of CTC, in every table
# The alternatives of each word, each a row of labels.
Words = tuple[tuple[tuple[int, ...], ...], ...]
# Graphs kept: an utterance is met once an epoch, and a graph takes about 20 kB.
CACHED_GRAPHS = 4096


class Lattice(NamedTuple):
    """A deterministic acyclic automaton: the arcs of each state, label -> next state; state 0 is the first."""

    arcs: list[dict[int, int]]
    finals: frozenset[int]


class CtcGraph(NamedTuple):
    """All CTC paths of a lattice, as k2 takes them.

    - ``arcs`` (A, 4) int32: from, to, label, 0 (the bits of the score 0.0), by the state that they leave. State 0 is
      the first, the highest is final, and the arcs to it have the label -1.
    - ``min_frames``: the fewest frames that one of the paths needs.
    - ``highest``: the highest label.
    """

    arcs: np.ndarray
    min_frames: int
    highest: int


def as_words(nested: Sequence[Sequence[Sequence[int]]]) -> Words:
    """Nested lists, as manifests hold them, as tuples, which are keys of the cache."""
    return tuple(tuple(tuple(alternative) for alternative in word) for word in nested)


def first_of(words: Words) -> Words:
    """The words with their first pronunciation only."""
    return tuple(word[:1] for word in words)


def first_labels(words: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """The labels of the first pronunciation of each word."""
    return [label for word in words for label in word[0]]


def build_lattice(words: Words, pause: int | None = None) -> Lattice:
    """The lattice of an utterance; with ``pause`` that label may stand at its ends and between two words.

    Raises ValueError for a word without a pronunciation, or one without labels.
    """
    # states of words: (word, alternative, labels read of it); at its start alternative is -1, after a pause -2
    start = (0, -1, 0)

    def leaving(state: tuple[int, int, int]) -> Iterator[tuple[int, tuple[int, int, int]]]:
        word, alternative, place = state
        if alternative < 0:
            if pause is not None and alternative == -1:
                yield pause, (word, -2, 0)
            options = range(len(words[word])) if word < len(words) else ()
        else:
            options = range(alternative, alternative + 1)
        for number in options:
            labels = words[word][number]
            ends = place + 1 == len(labels)
            yield labels[place], (word + 1, -1, 0) if ends else (word, number, place + 1)

    for number, word in enumerate(words):
        if not word or not all(word):
            raise ValueError(f"word {number + 1} of the utterance has no pronunciation, or one without labels")
    states = {frozenset([start]): 0}
    arcs: list[dict[int, int]] = []
    finals = []
    waiting = deque(states)
    while waiting:  # the subset construction
        subset = waiting.popleft()
        reached: dict[int, set] = {}
        for state in subset:
            if state[0] == len(words):
                finals.append(len(arcs))
            for label, following in leaving(state):
                reached.setdefault(label, set()).add(following)
        arcs.append({})
        for label in sorted(reached):
            together = frozenset(reached[label])
            if together not in states:
                states[together] = len(states)
                waiting.append(together)
            arcs[-1][label] = states[together]
    return Lattice(arcs, frozenset(finals))


@lru_cache(maxsize=CACHED_GRAPHS)
def ctc_graph(words: Words, pause: int | None = None) -> CtcGraph:
    """The graph of all CTC paths of ``words``: blanks between labels, labels over several frames.

    It is the composition of CTC's topology with the lattice: a state for the blank at each state of the lattice, and
    one for the label of each of its arcs. Two equal labels in succession have a blank between them.
    """
    lattice = build_lattice(words, pause)
    blanks = len(lattice.arcs)
    labelled = [(label, state) for arcs in lattice.arcs for label, state in arcs.items()]
    final = blanks + len(labelled)
    numbers: list[dict[int, int]] = []  # the label states that follow each state of the lattice, by label
    count = blanks
    for arcs in lattice.arcs:
        numbers.append(dict(zip(arcs, range(count, count + len(arcs)))))
        count += len(arcs)
    rows: list[tuple[int, int, int, int]] = []
    for state in range(blanks):
        rows.append((state, state, BLANK, 0))
        rows += [(state, number, label, 0) for label, number in numbers[state].items()]
        if state in lattice.finals:
            rows.append((state, final, -1, 0))
    for own, (label, state) in enumerate(labelled, blanks):
        rows += [(own, own, label, 0), (own, state, BLANK, 0)]
        rows += [(own, number, other, 0) for other, number in numbers[state].items() if other != label]
        if state in lattice.finals:
            rows.append((own, final, -1, 0))
    arcs_array = np.array(rows, dtype=np.int32)
    return CtcGraph(arcs_array, _fewest_frames(rows, final), max((label for label, _ in labelled), default=BLANK))


def _fewest_frames(rows: Sequence[tuple[int, int, int, int]], final: int) -> int:
    """Arcs on the shortest way to the final state, without the last, which takes no frame; at least 1."""
    following: dict[int, list[int]] = {}
    for source, target, _, _ in rows:
        following.setdefault(source, []).append(target)
    distances = {0: 0}
    waiting = deque([0])
    while final not in distances:
        state = waiting.popleft()
        for target in following[state]:
            if target not in distances:
                distances[target] = distances[state] + 1
                waiting.append(target)
    return max(1, distances[final] - 1)


def nearest(words: Words, labels: Sequence[int]) -> list[int]:
    """Of all pronunciations of ``words`` the one with the smallest edit distance to ``labels``; no pauses.

    Of several that are equally near the choice is the same every time, and the first pronunciation where it is one.
    """
    lattice = build_lattice(words)
    given, steps = np.array(labels, dtype=np.int64), np.arange(len(labels) + 1)
    entering: list[list[tuple[int, int]]] = [[] for _ in lattice.arcs]
    for state, arcs in enumerate(lattice.arcs):
        for label, following in arcs.items():
            entering[following].append((state, label))
    before: dict[int, np.ndarray] = {}  # distances by state, up to each place of the labels: without labels beside,
    after: dict[int, np.ndarray] = {}  # and with those that no arc has
    sources = {state: [source for source, _ in arcs] for state, arcs in enumerate(entering)}
    for state in TopologicalSorter(sources).static_order():
        best = steps.copy() if state == 0 else np.full(len(steps), 1 << 30)
        for source, label in entering[state]:
            best = np.minimum(best, after[source] + 1)
            best[1:] = np.minimum(best[1:], after[source][:-1] + (given != label))
        before[state], after[state] = best, np.minimum.accumulate(best - steps) + steps
    state, place = min(lattice.finals, key=lambda final: (after[final][-1], final)), len(labels)
    least = after[state][-1]
    first = first_labels(words)
    if Levenshtein.distance(first, labels) == least:
        return first
    found: list[int] = []
    while state != 0:
        while after[state][place] != before[state][place]:
            place -= 1
        for source, label in entering[state]:
            if place and after[source][place - 1] + (given[place - 1] != label) == before[state][place]:
                place -= 1
                break
            if after[source][place] + 1 == before[state][place]:
                break
        found.append(label)
        state = source
    return found[::-1]


def word_of_each(words: Words, labels: Sequence[int], pause: int | None = None) -> list[int | None]:
    """For each of ``labels``, one of the utterance's sequences, the number of its word; None for a pause.

    Where the words can be cut in several ways, the choice is the same every time. Raises ValueError for another
    sequence.
    """
    labels = list(labels)

    def starts(end: int) -> list[int]:
        """Where the next word may begin after a word that ends at ``end``."""
        paused = pause is not None and end < len(labels) and labels[end] == pause
        return [end, end + 1] if paused else [end]

    ends: list[dict[int, int]] = []  # for each word where it may end, and where it then begins
    reached = [0]
    for word in words:
        found: dict[int, int] = {}
        for end in reached:
            for start in starts(end):
                for alternative in word:
                    if tuple(labels[start : start + len(alternative)]) == alternative:
                        found.setdefault(start + len(alternative), start)
        ends.append(found)
        reached = list(found)
    place = next((end for end in reached if len(labels) in starts(end)), None)
    if place is None:
        raise ValueError("the labels are no pronunciation of the words")
    numbers: list[int | None] = [None] * len(labels)
    for word_number in reversed(range(len(words))):
        start = ends[word_number][place]
        numbers[start:place] = [word_number] * (place - start)
        place = start if word_number == 0 or start in ends[word_number - 1] else start - 1
    return numbers

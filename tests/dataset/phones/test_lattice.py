"""Lattices of pronunciations: their sequences, their CTC paths, the nearest one, and where words are in one."""

import random
from itertools import groupby, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pronunciations import all_sequences

from speecheq.dataset.phones.lattice import (
    as_words,
    build_lattice,
    ctc_graph,
    first_labels,
    first_of,
    nearest,
    word_of_each,
)
from speecheq.evaluation.metrics import phone_errors

PAUSE = 4
WORDS = st.lists(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=4
).map(as_words)


def sequences(lattice):
    """All label sequences of a lattice, each as often as it has paths."""
    found, waiting = [], [(0, ())]
    while waiting:
        state, labels = waiting.pop()
        if state in lattice.finals:
            found.append(labels)
        waiting += [(following, (*labels, label)) for label, following in lattice.arcs[state].items()]
    return found


def paths(graph, frames):
    """The labels of each path of a CTC graph that takes so many frames."""
    leaving = {}
    for source, target, label, _ in graph.arcs.tolist():
        leaving.setdefault(source, []).append((label, target))
    final = graph.arcs[:, 1].max()
    found, waiting = [], [(0, ())]
    while waiting:
        state, labels = waiting.pop()
        for label, target in leaving.get(state, ()):
            if label == -1:
                assert target == final
                found += [labels] if len(labels) == frames else []
            elif len(labels) < frames:
                waiting.append((target, (*labels, label)))
    return found


@settings(max_examples=40)
@given(WORDS)
def test_a_lattice_holds_each_sequence_once(words):
    found = sequences(build_lattice(words))
    assert len(found) == len(set(found)) and set(found) == all_sequences(words)
    assert tuple(first_labels(words)) in found
    assert set(sequences(build_lattice(first_of(words)))) == {tuple(first_labels(words))}


@settings(max_examples=40)
@given(WORDS.filter(lambda words: len(words) < 3))
def test_pauses_may_stand_between_words_and_at_the_ends(words):
    assert sorted(sequences(build_lattice(words, PAUSE))) == sorted(all_sequences(words, PAUSE))


@pytest.mark.parametrize("pause", [None, PAUSE])
@pytest.mark.parametrize("seed", range(4))
def test_a_ctc_graph_has_each_frame_path_once(seed, pause):
    draw = random.Random(seed)
    words = as_words([[[draw.randint(1, 2) for _ in range(draw.randint(1, 2))] for _ in range(2)] for _ in range(2)])
    graph, wanted = ctc_graph(words, pause), set(sequences(build_lattice(words, pause)))
    for frames in range(1, 6):
        alphabet = [0, 1, 2] + ([] if pause is None else [pause])
        expected = [
            path
            for path in product(alphabet, repeat=frames)
            if tuple(label for label, _ in groupby(path) if label) in wanted
        ]
        found = paths(graph, frames)
        assert len(found) == len(set(found)) and set(found) == set(expected)
        assert bool(found) == (frames >= graph.min_frames)
    assert graph.highest == max(label for labels in wanted for label in labels)


def test_an_utterance_without_words_has_blanks_only():
    graph = ctc_graph(())
    assert paths(graph, 3) == [(0, 0, 0)] and graph.min_frames == 1 and graph.highest == 0


@pytest.mark.parametrize("words", [(((1,),), ()), (((1,),), ((),))])
def test_a_word_without_pronunciation_is_named(words):
    with pytest.raises(ValueError, match="word 2 of the utterance has no pronunciation"):
        ctc_graph(words)


@settings(max_examples=40)
@given(WORDS, st.lists(st.integers(1, 3), max_size=8))
def test_the_nearest_pronunciation_is_no_farther_than_any(words, labels):
    found = nearest(words, labels)
    distances = {sequence: phone_errors(sequence, labels) for sequence in all_sequences(words)}
    assert phone_errors(found, labels) == min(distances.values()) and tuple(found) in distances
    if distances[tuple(first_labels(words))] == min(distances.values()):
        assert found == first_labels(words)


@settings(max_examples=40)
@given(WORDS, st.data())
def test_words_are_found_in_a_sequence(words, data):
    labels = data.draw(st.sampled_from(sorted(all_sequences(words[:2], PAUSE))))
    numbers = word_of_each(words[:2], labels, PAUSE)
    assert [number is None for number in numbers] == [label == PAUSE for label in labels]
    for number, word in enumerate(words[:2]):
        assert tuple(label for label, own in zip(labels, numbers) if own == number) in word
    with pytest.raises(ValueError, match="no pronunciation"):
        word_of_each(words[:2], [*labels, 1, PAUSE, 3, 1, 2, 3], PAUSE)

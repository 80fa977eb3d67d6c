"""Folds partition the clips, are stratified and disjoint as they say; a planted leak is always found."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speecheq.corpus import Request
from speecheq.corpus import prepare as prepare_corpus
from speecheq.errors import InputError
from speecheq.msud import clip_of
from speecheq.protocol import MUST_DIFFER, PROTOCOLS, Clip, check_leaks, dev_part, make_folds, parse_numbers

LABELS = ("anger", "joy", "neutral")


@st.composite
def corpora(draw):
    """Clips of 2 to 5 speakers and 5 to 9 texts, a few of them missing."""
    speakers, texts = draw(st.integers(2, 5)), draw(st.integers(5, 9))
    clips = [Clip(f"{s}-{label}-{t}", f"s{s}", label, str(t), ("train", "test")[t % 2], "toy")
             for s in range(speakers) for label in LABELS for t in range(texts)]
    missing = draw(st.sets(st.sampled_from(clips), max_size=3))
    return draw(st.permutations([clip for clip in clips if clip not in missing]))


@given(corpora(), st.sampled_from(["random10", "speaker", "text"]), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_folds_partition_the_clips_and_nothing_leaks(clips, protocol, seed):
    folds = make_folds(protocol, clips, seed)
    assert Counter(name for fold in folds for name in fold) == Counter(clip.id for clip in clips)
    assert len(folds) == {"random10": 10, "text": 5, "speaker": len({c.speaker for c in clips})}[protocol]
    assert folds == make_folds(protocol, clips[::-1], seed), "the order of the manifest must not matter"
    for fold in folds:
        test = [clip for clip in clips if clip.id in fold]
        pool = [clip for clip in clips if clip.id not in fold]
        for field in MUST_DIFFER[protocol]:
            assert not {getattr(c, field) for c in test} & {getattr(c, field) for c in pool}
        dev = dev_part(pool, "clips", seed)
        assert dev and dev < {clip.id for clip in pool}
        training = [clip for clip in pool if clip.id not in dev]
        assert {c.label for c in training} == {c.label for c in pool} == {c.label for c in pool if c.id in dev}
        check_leaks(protocol, training, [clip for clip in pool if clip.id in dev], test)


@given(corpora())
@settings(max_examples=40, deadline=None)
def test_random10_is_stratified_by_label_and_speaker(clips):
    folds = make_folds("random10", clips)
    of = {clip.id: clip for clip in clips}
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for group in {(c.label, c.speaker) for c in clips}:
        counts = [sum((of[name].label, of[name].speaker) == group for name in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1


def grid(speakers=4, texts=50):
    return [Clip(f"{s}-{label}-{t}", f"s{s}", label, str(t), None, "toy")
            for s in range(speakers) for label in LABELS for t in range(texts)]


def test_seeds_change_random_folds():
    clips = grid()
    assert make_folds("random10", clips, 0) != make_folds("random10", clips, 1)
    assert make_folds("text", clips, 0) != make_folds("text", clips, 1)


def test_the_dev_part_is_a_tenth_of_every_label_and_nearly_of_every_speaker():
    clips = grid()
    dev = [clip for clip in clips if clip.id in dev_part(clips)]
    assert Counter(clip.label for clip in dev) == dict.fromkeys(LABELS, 20)
    assert Counter(clip.speaker for clip in dev) == dict.fromkeys(["s0", "s1", "s2", "s3"], 15)
    assert dev_part(clips) == dev_part(clips[::-1]) != dev_part(clips, seed=1)


def test_a_dev_speaker():
    dev = dev_part(grid(4), "speaker")
    assert len(dev) == 150 and len({name.split("-")[0] for name in dev}) == 1
    with pytest.raises(InputError, match="needs at least 4 training speakers, there are 3"):
        dev_part(grid(3), "speaker")
    with pytest.raises(InputError, match="neither 'clips' nor 'speaker'"):
        dev_part(grid(4), "text")


def parts(protocol):
    clips = grid()
    test_ids = make_folds(protocol, clips)[0]
    pool = [clip for clip in clips if clip.id not in test_ids]
    dev_ids = dev_part(pool)
    return ([c for c in pool if c.id not in dev_ids], [c for c in pool if c.id in dev_ids],
            [c for c in clips if c.id in test_ids])


@pytest.mark.parametrize("protocol", ["random10", "speaker", "text"])
@pytest.mark.parametrize("place", ["training", "dev"])
def test_a_planted_test_clip_is_found(protocol, place):
    training, dev, test = parts(protocol)
    (training if place == "training" else dev).append(test[3])
    with pytest.raises(InputError, match=rf"leak: 1 test clip\(s\) are in .*{place}.*{test[3].id}"):
        check_leaks(protocol, training, dev, test)


@pytest.mark.parametrize("protocol, field, what", [("speaker", "speaker", "speaker"), ("text", "text_id", "text")])
@pytest.mark.parametrize("place", ["training", "dev"])
def test_a_planted_test_speaker_or_text_is_found(protocol, field, what, place):
    training, dev, test = parts(protocol)
    used = training if place == "training" else dev
    planted = used[0]._replace(id="another clip", **{field: getattr(test[0], field)})
    used.append(planted)
    shared = getattr(test[0], field)
    with pytest.raises(InputError, match=rf"leak: 1 test {what}\(s\) are in .*{place}.*{shared} for one"):
        check_leaks(protocol, training, dev, test)
    check_leaks("random10", training, dev, test)  # the paper's protocol shares speakers and texts
    # speakers and texts of another corpus may have the same names, or none
    used[-1] = planted._replace(corpus="other")
    check_leaks(protocol, training, dev, test)
    used[-1] = planted._replace(**{field: None})
    check_leaks(protocol, training, dev, test + [test[0]._replace(id="x", **{field: None})])


def test_a_dev_clip_in_training_is_found():
    training, dev, test = parts("random10")
    with pytest.raises(InputError, match="leak: 1 dev clip"):
        check_leaks("random10", training + dev[:1], dev, test)


def test_protocols_that_are_not_to_be_had():
    with pytest.raises(InputError, match="no protocol 'random5'; the protocols are random10, speaker, text, official"):
        make_folds("random5", grid())
    with pytest.raises(InputError, match="does not number its texts"):
        make_folds("text", [clip._replace(text_id=None) for clip in grid()])
    with pytest.raises(InputError, match="at least 5 texts, the corpus has 4"):
        make_folds("text", grid(texts=4))
    with pytest.raises(InputError, match="no official test part"):
        make_folds("official", grid())
    with pytest.raises(InputError, match="fold 1 of the protocol 'speaker' has no training clip"):
        make_folds("speaker", grid(speakers=1))
    with pytest.raises(InputError, match="fold 10 of the protocol 'random10' has no test clip"):
        make_folds("random10", grid(speakers=1, texts=3))


def test_the_official_test_part_is_the_only_fold():
    clips = [clip._replace(split="test" if clip.text_id == "7" else "train") for clip in grid()]
    assert make_folds("official", clips) == [{clip.id for clip in clips if clip.text_id == "7"}]


@pytest.mark.parametrize(
    "text, numbers",
    [("1", [1]), ("1 3-5", [1, 3, 4, 5]), ("2,1", [2, 1]), ("all", list(range(1, 11))), ("3 2-4", [3, 2, 4]),
     ("4-4", [4])],
)
def test_numbers(text, numbers):
    assert parse_numbers(text, "fold", 10) == numbers


@pytest.mark.parametrize(
    "text, words",
    [
        ("11", "fold 11 does not exist; there are folds 1 to 10"),
        ("0", "fold 0 does not exist"),
        ("9-1000000000000", "fold 1000000000000 does not exist"),
        ("one", "'one' is not a fold number"),
        ("1-", "'1-' is not a fold number"),
        ("-1", "'-1' is not a fold number"),
        ("5-3", "the range 5-3 ends before it begins"),
        (" ", "names no fold"),
    ],
)
def test_numbers_that_are_refused(text, words):
    with pytest.raises(InputError) as refused:
        parse_numbers(text, "fold", 10)
    assert words in str(refused.value)


def test_seeds_have_no_list_of_all():
    assert parse_numbers("0 7", "seed") == [0, 7]
    with pytest.raises(InputError, match="--seeds all: there is no list of all seeds"):
        parse_numbers("all", "seed")


def test_every_fold_of_every_protocol_on_the_real_clips(samples, toys, tmp_path):
    from speecheq.features import corpus_cuts

    script = toys.script("casia")
    prepare_corpus(script.CASIA, script.find_utterances, Request(samples("CASIA")), tmp_path / "casia")
    clips = [clip_of(cut) for cut in corpus_cuts(tmp_path / "casia", "casia", ["all"])]
    sizes = {"random10": [120] * 10, "speaker": [300] * 4, "text": [240] * 5}
    for protocol, expected in sizes.items():
        folds = make_folds(protocol, clips)
        assert list(map(len, folds)) == expected
        for fold in folds:
            pool = [clip for clip in clips if clip.id not in fold]
            dev = dev_part(pool)
            assert abs(len(dev) - len(pool) / 10) <= 3
            check_leaks(protocol, [c for c in pool if c.id not in dev], [c for c in pool if c.id in dev],
                        [c for c in clips if c.id in fold])
            assert {Counter(c.label for c in clips if c.id in fold)[label] for label in {c.label for c in clips}} == {
                len(fold) // 6
            }
    assert set(sizes) | {"official"} == set(PROTOCOLS)

"""Folds partition the clips, are stratified and disjoint as they say; a planted leak is always found."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.fold_sets import fold_clip
from speecheq.dataset.protocols import MUST_DIFFER, PROTOCOLS, FoldClip, check_leaks, dev_part, make_folds

LABELS = ("anger", "joy", "neutral")


@st.composite
def corpora(draw):
    """Clips of 2 to 5 speakers and 5 to 9 texts, a few of them missing."""
    speakers, texts = draw(st.integers(2, 5)), draw(st.integers(5, 9))
    clips = [
        FoldClip(f"{s}-{label}-{t}", f"s{s}", label, str(t), ("train", "test")[t % 2], "toy", f"Ses{s // 2}")
        for s in range(speakers)
        for label in LABELS
        for t in range(texts)
    ]
    missing = draw(st.sets(st.sampled_from(clips), max_size=3))
    return draw(st.permutations([clip for clip in clips if clip not in missing]))


@given(corpora(), st.sampled_from(["random10", "random5", "speaker", "session", "text"]), st.integers(0, 3))
@settings(max_examples=60)
def test_folds_partition_the_clips_and_nothing_leaks(clips, protocol, seed):
    assume(protocol != "session" or len({c.session for c in clips}) > 1)
    folds = make_folds(protocol, clips, seed)
    assert Counter(name for fold in folds for name in fold) == Counter(clip.id for clip in clips)
    speakers, sessions = {c.speaker for c in clips}, {c.session for c in clips}
    assert (
        len(folds)
        == {"random10": 10, "random5": 5, "text": 5, "speaker": len(speakers), "session": len(sessions)}[protocol]
    )
    assert folds == make_folds(protocol, clips[::-1], seed), "the order of the manifest must not matter"
    for fold in folds:
        test = [clip for clip in clips if clip.id in fold]
        pool = [clip for clip in clips if clip.id not in fold]
        for field in MUST_DIFFER.get(protocol, ()):
            assert not {getattr(c, field) for c in test} & {getattr(c, field) for c in pool}
        dev = dev_part(pool, "clips", seed)
        assert dev and dev < {clip.id for clip in pool}
        training = [clip for clip in pool if clip.id not in dev]
        assert {c.label for c in training} == {c.label for c in pool} == {c.label for c in pool if c.id in dev}
        check_leaks(protocol, training, [clip for clip in pool if clip.id in dev], test)


@given(corpora())
@settings(max_examples=40)
def test_random10_is_stratified_by_label_and_speaker(clips):
    folds = make_folds("random10", clips)
    of = {clip.id: clip for clip in clips}
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for group in {(c.label, c.speaker) for c in clips}:
        counts = [sum((of[name].label, of[name].speaker) == group for name in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1


def grid(speakers=4, texts=50):
    return [
        FoldClip(f"{s}-{label}-{t}", f"s{s}", label, str(t), None, "toy")
        for s in range(speakers)
        for label in LABELS
        for t in range(texts)
    ]


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
    return (
        [c for c in pool if c.id not in dev_ids],
        [c for c in pool if c.id in dev_ids],
        [c for c in clips if c.id in test_ids],
    )


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


@pytest.mark.parametrize("place", ["training", "dev"])
def test_the_same_audio_under_another_name_is_found(place):
    training, dev, test = parts("random10")
    used = training if place == "training" else dev
    test[0] = test[0]._replace(audio=7)
    used.append(used[0]._replace(id="mine-1", corpus="mine", audio=7))
    with pytest.raises(
        InputError, match=rf"the test clip {test[0].id} of toy is the audio of mine-1 of mine in .*{place}"
    ):
        check_leaks("random10", training, dev, test)
    used[-1] = used[-1]._replace(audio=8)
    check_leaks("random10", training, dev, test)


def test_a_dev_clip_in_training_is_found():
    training, dev, test = parts("random10")
    with pytest.raises(InputError, match="leak: 1 dev clip"):
        check_leaks("random10", training + dev[:1], dev, test)


def test_protocols_that_are_not_to_be_had():
    with pytest.raises(InputError, match="no protocol 'random7'; the protocols are random10, random5, .*--folds-file"):
        make_folds("random7", grid())
    with pytest.raises(InputError, match="has no sessions"):
        make_folds("session", grid())
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


def test_every_fold_of_every_protocol_on_the_real_clips(samples, toys, tmp_path):
    from speecheq.corpora.prepared_corpus import corpus_cuts

    script = toys.script("casia")
    prepare_corpus(script.CASIA, script.find_utterances, PrepareRequest(samples("CASIA")), tmp_path / "casia")
    clips = [fold_clip(cut) for cut in corpus_cuts(tmp_path / "casia", "casia", ["all"])]
    sizes = {"random10": [120] * 10, "speaker": [300] * 4, "text": [240] * 5}
    for protocol, expected in sizes.items():
        folds = make_folds(protocol, clips)
        assert list(map(len, folds)) == expected
        for fold in folds:
            pool = [clip for clip in clips if clip.id not in fold]
            dev = dev_part(pool)
            assert abs(len(dev) - len(pool) / 10) <= 3
            check_leaks(
                protocol,
                [c for c in pool if c.id not in dev],
                [c for c in pool if c.id in dev],
                [c for c in clips if c.id in fold],
            )
            assert {Counter(c.label for c in clips if c.id in fold)[label] for label in {c.label for c in clips}} == {
                len(fold) // 6
            }
    assert set(sizes) | {"official", "session", "random5", "speaker5", "cross", "all"} == set(PROTOCOLS)


def test_the_whole_target_is_the_test_of_a_cross_corpus_fold():
    assert make_folds("cross", grid()) == [{clip.id for clip in grid()}]


def test_speaker5_spreads_speakers_of_unequal_sizes():
    sizes = {"a": 9, "b": 5, "c": 4, "d": 3, "e": 3, "f": 2, "g": 1}
    clips = [FoldClip(f"{name}{n}", name, LABELS[n % 3]) for name, size in sizes.items() for n in range(size)]
    folds = make_folds("speaker5", clips)
    assert sorted(map(len, folds)) == [4, 4, 5, 5, 9]
    speakers = [{name[0] for name in fold} for fold in folds]
    assert sum(map(len, speakers)) == len(sizes), "no speaker is in two folds"
    with pytest.raises(InputError, match="needs at least 5 speakers"):
        make_folds("speaker5", [clip for clip in clips if clip.speaker < "e"])
    assert folds == make_folds("speaker5", clips[::-1]), "the order of the manifest must not matter"


def test_all_tests_nothing():
    assert make_folds("all", [FoldClip("a", "s", "joy"), FoldClip("b", "s", "anger")]) == [set()]

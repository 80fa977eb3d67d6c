"""Folds partition the clips, are stratified and disjoint as they say; a planted leak is always found."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speecheq.common.command_line import parse_numbers
from speecheq.common.errors import InputError
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.fold_sets import fold_clip
from speecheq.dataset.protocols import MUST_DIFFER, PROTOCOLS, FoldClip, check_leaks, dev_part, make_folds
from speecheq.dataset.published_folds import folds_from_file, read_folds_file

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


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("1", [1]),
        ("1 3-5", [1, 3, 4, 5]),
        ("2,1", [2, 1]),
        ("all", list(range(1, 11))),
        ("3 2-4", [3, 2, 4]),
        ("4-4", [4]),
    ],
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
    assert set(sizes) | {"official", "session", "random5", "cross"} == set(PROTOCOLS)


def test_the_whole_target_is_the_test_of_a_cross_corpus_fold():
    assert make_folds("cross", grid()) == [{clip.id for clip in grid()}]


HEAD = "clip\ttest_fold\n"


def folds_file(tmp_path, content):
    path = tmp_path / "folds.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_published_folds_name_clips_by_id_or_by_the_end_of_their_path(tmp_path):
    clips = [FoldClip(f"c-{s}-{n}", s, "joy", path=f"/any where/{s}/joy/{n}") for s in ("a", "b") for n in (1, 2)]
    path = folds_file(tmp_path, HEAD + "a/joy/1\t2\nb/joy/1\t1\nc-a-2\t1\n")
    folds, unnamed, absent = folds_from_file(path, clips, may_lack_clips=False)
    assert folds == [{"c-b-1", "c-a-2"}, {"c-a-1"}] and unnamed == ["c-b-2"] and absent == 0
    with pytest.raises(InputError, match=r"line 2: 1 names two clips, c-a-1 and c-b-1; give more of the path"):
        folds_from_file(folds_file(tmp_path, HEAD + "1\t1\n"), clips, may_lack_clips=False)
    absent = folds_file(tmp_path, HEAD + "a/joy/1\t1\na/joy/9\t1\n")
    with pytest.raises(InputError, match=r"line 3: names the clip a/joy/9, which the corpus does not have \(1 such"):
        folds_from_file(absent, clips, may_lack_clips=False)
    assert folds_from_file(absent, clips, may_lack_clips=True) == ([{"c-a-1"}], ["c-a-2", "c-b-1", "c-b-2"], 1)
    with pytest.raises(InputError, match="line 2: names the clip x"):  # another corpus' list, not a partial copy
        folds_from_file(folds_file(tmp_path, HEAD + "x\t1\ny\t1\n"), clips, may_lack_clips=True)


@pytest.mark.parametrize(
    "content, words",
    [
        ("clip\tfold\na\t1\n", "line 1: expected the columns clip and test_fold, found clip fold"),
        ("", "line 1: expected the columns clip and test_fold, found none"),
        (HEAD + "a\n", "line 2: expected 2 columns, found 1"),
        (HEAD + "a\t1\nb\t1\t1\n", "line 3: expected 2 columns, found 3"),
        (HEAD + "a\tone\n", "line 2: expected a clip and a fold number from 1, found 'a' and 'one'"),
        (HEAD + "a\t0\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "a\t-1\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "\t1\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "a\t1\n\na\t2\n", "line 4: the clip a occurs a second time, first in"),
        (HEAD + "a\t1\nb\t3\n", "no clip has the test fold 2"),
        (HEAD + '"a\t1\n', "line 2: cannot be read as a table"),
        (HEAD.encode() + b"\xff\t1\n", "is not UTF-8"),
    ],
)
def test_lists_of_folds_that_are_refused(tmp_path, content, words):
    path = folds_file(tmp_path, content)
    with pytest.raises(InputError) as refused:
        read_folds_file(path)
    assert str(refused.value).startswith(str(path)) and words in str(refused.value)


def test_lists_of_folds_as_other_programs_write_them(tmp_path):
    expected = [("a", 1), ("b", 2)]
    for content in (
        "clip,test_fold\na,1\nb,2\n",
        "\ufeffclip\ttest_fold\r\na\t1\r\nb\t2\r\n",
        "test_fold\tsex\tclip\n1\tF\ta\n2\tM\tb\n\n",
    ):
        assert [(clip, fold) for _, clip, fold in read_folds_file(folds_file(tmp_path, content))] == expected
    with pytest.raises(InputError, match="there is no such file of folds"):
        read_folds_file(tmp_path / "none.tsv")


@given(st.text() | st.text(alphabet='clip\ttest_fold,12\n\r"a'))
@settings(max_examples=200)
def test_no_text_makes_the_list_fail_with_anything_but_a_sentence(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    for content in (text, HEAD + text):
        path.write_text(content, encoding="utf-8", newline="")
        try:
            read_folds_file(path)
        except InputError as refused:
            assert str(refused).startswith(str(path)) and str(refused).endswith(".")


@pytest.mark.parametrize("name, folds, clips_of_1", [("casia", 4, 300), ("ravdess", 6, None), ("emodb", 5, None)])
def test_the_partition_of_emobox_on_the_real_clips(samples, toys, tmp_path, name, folds, clips_of_1):
    from speecheq.corpora.prepared_corpus import corpus_cuts

    corpus_dir = samples({"casia": "CASIA", "ravdess": "RAVDESS", "emodb": "EMODB"}[name])
    path = toys.root.parent / "shared" / "data" / "emobox_folds" / f"{name}.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    script = toys.script(name)
    prepare_corpus(getattr(script, name.upper()), script.find_utterances, PrepareRequest(corpus_dir), tmp_path / name)
    clips = [fold_clip(cut, with_path=True) for cut in corpus_cuts(tmp_path / name, name, ["all"])]
    found, unnamed, _ = folds_from_file(path, clips, may_lack_clips=False)
    assert not unnamed and len(found) == folds and sum(map(len, found)) == len(clips)
    speakers = [{clip.speaker for clip in clips if clip.id in fold} for fold in found]
    shared = any(a & b for i, a in enumerate(speakers) for b in speakers[i + 1 :])
    assert shared == (name == "emodb"), "CASIA and RAVDESS are tested on unseen speakers"

"""Published lists of folds: how they name clips, what is refused, EmoBox' partitions on real clips."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.fold_sets import fold_clip
from speecheq.dataset.protocols import FoldClip
from speecheq.dataset.published_folds import (
    EMOBOX_SPEAKERS,
    emobox_folds,
    folds_file_digest,
    folds_from_file,
    read_folds_file,
)

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
        ("clip\na\n", "line 1: lacks the column test_fold; expected the columns clip and test_fold, found clip"),
        ("", "line 1: lacks the column clip; expected the columns clip and test_fold, found none"),
        (HEAD + "a\n", "line 2: expected 2 fields, as in the first line, found 1"),
        (HEAD + "a\t1\nb\t1\t1\n", "line 3: expected 2 fields, as in the first line, found 3"),
        (HEAD + "a\tone\n", "line 2: expected a clip and a fold number from 1, found 'a' and 'one'"),
        (HEAD + "a\t0\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "a\t-1\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "\t1\n", "line 2: expected a clip and a fold number from 1"),
        (HEAD + "a\t1\n\na\t2\n", "line 4: the clip a occurs a second time, first in"),
        (HEAD + "a\t1\nb\t3\n", "no clip has the test fold 2"),
        (HEAD + '"a\t1\n', "line 2: cannot be split into fields"),
        (HEAD.encode() + b"\xff\t1\n", "line 2: is not UTF-16 or UTF-8"),
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
        "clip;test_fold\na;1\nb;2\n",
        "clip\ttest_fold\r\na\t1\r\nb\t2\r\n".encode("utf-16"),
    ):
        assert [(clip, fold) for _, clip, fold, _ in read_folds_file(folds_file(tmp_path, content))] == expected
    with pytest.raises(InputError, match="the file of folds does not exist"):
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


# ---- EmoBox


def _emobox(folder, tests):
    """data/NAME of EmoBox with the test clips (key, wav) of each fold."""
    for number, clips in enumerate(tests, 1):
        (folder / f"fold_{number}").mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            lines = [json.dumps({"key": key, "dataset": "made", "wav": wav, "emo": "a"}) for key, wav in clips]
            path = folder / f"fold_{number}" / f"made_{part}_fold_{number}.jsonl"
            path.write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_emobox_names_clips_by_key_or_by_path(tmp_path):
    folder = _emobox(
        tmp_path,
        [
            [("made-1", "downloads/made/a/1.wav"), ("other-name", "downloads/made/B/2.wav")],
            [("made-3", "downloads/made/c/3.wav")],
        ],
    )
    clips = [
        FoldClip(f"made-{n}", "s", "anger", path=f"/corpora/Made/{p}/{n}") for n, p in ((1, "a"), (2, "b"), (3, "c"))
    ]
    found = folds_from_file(folder, [*clips, FoldClip("made-4", "s", "anger", path="/x/4")], may_lack_clips=False)
    assert found.folds == [{"made-1", "made-2"}, {"made-3"}] and found.unnamed == ["made-4"] and not found.absent
    before = folds_file_digest(folder)
    _emobox(folder, [[("made-1", "downloads/made/a/1.wav")]])
    assert folds_file_digest(folder) != before
    with pytest.raises(InputError, match="no_folds: holds no fold_1/NAME_test_fold_1.jsonl"):
        (tmp_path / "no_folds").mkdir()
        folds_file_digest(tmp_path / "no_folds")


def test_a_clip_in_two_folds_of_emobox_is_named(tmp_path):
    folder = _emobox(tmp_path, [[("a", "x/y/a.wav")], [("a", "x/y/a.wav")]])
    with pytest.raises(InputError, match="made_test_fold_2.jsonl, line 1: the clip a occurs a second time"):
        read_folds_file(folder)


def test_emoboxs_folds_of_whole_speakers_need_no_list():
    clips = [
        FoldClip(f"{speaker}-{n}", speaker, "anger") for speaker in sum(EMOBOX_SPEAKERS["ravdess"], ()) for n in (1, 2)
    ]
    folds = emobox_folds("ravdess", clips, may_lack_clips=False)
    assert len(folds) == 6 and set(map(len, folds)) == {8} and len(set().union(*folds)) == 48
    assert folds[0] == {f"{speaker}-{n}" for speaker in ("01", "11", "20", "21") for n in (1, 2)}
    assert len(emobox_folds("ravdess", clips[:4], may_lack_clips=True)) == 1
    zhao = FoldClip("z", "ZhaoZuoxiang", "anger")
    assert emobox_folds("casia", [zhao], may_lack_clips=False) == [set(), {"z"}, set(), set()]
    with pytest.raises(InputError, match="z: its speaker ZhaoZuoxiang is in none of EmoBox' folds of ravdess"):
        emobox_folds("ravdess", [zhao], may_lack_clips=False)
    with pytest.raises(InputError, match="emodb: EmoBox' folds of it are lists of clips; give them with --folds-file"):
        emobox_folds("emodb", [zhao], may_lack_clips=False)


@pytest.mark.parametrize("corpus", EMOBOX_SPEAKERS)
def test_the_rule_gives_emoboxs_own_folds(toys, corpus):
    path = toys.root.parent / "shared" / "data" / "emobox_folds" / f"{corpus}.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    for row in read_folds_file(path):
        speaker = row.clip.split("/")[0] if corpus == "casia" else row.clip.rpartition("-")[2]
        assert speaker.casefold() in EMOBOX_SPEAKERS[corpus][row.fold - 1], row

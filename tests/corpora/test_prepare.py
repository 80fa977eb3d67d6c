"""The declaration of a corpus, and what every prep script shares."""

import pytest
import soundfile

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora import Corpus, Utterance, find_root, iter_clips, read_lines
from speecheq.corpora.audio_headers import read_recording
from speecheq.corpora.prep_script import main
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.corpora.prepared_corpus import load_card

LABELS = {"mad": "anger", "calm": "neutral"}
TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels=LABELS, levels=("weak", "strong"))


def test_eis_comes_from_the_declared_levels():
    assert TOY.eis("mad", "weak") == 2.0 and TOY.eis("mad", "strong") == 3.0 and TOY.eis("mad", None) == -1
    # neutral is SEQM's 0 in a corpus with levels, whatever level its clips carry
    assert TOY.eis("calm", None) == TOY.eis("calm", "weak") == 0.0
    three = Corpus("t", "T", "x", "", labels=TOY.labels, levels=("a", "b", "c"))
    assert [three.eis("mad", level) for level in "abc"] == [1.5, 2.5, 3.5]
    without = Corpus("t", "T", "x", "", labels=TOY.labels)
    assert without.eis("calm", None) == without.eis("mad", None) == -1


def test_labels_and_levels_outside_the_declaration():
    assert TOY.esc("mad") == "anger" and TOY.esc(None) is None
    with pytest.raises(ValueError, match="'bored' is not one of the toy's: mad, calm"):
        TOY.esc("bored")
    with pytest.raises(ValueError, match="'mild' is not one of the toy's: weak, strong"):
        TOY.eis("mad", "mild")
    with pytest.raises(ValueError, match="'mild'"):
        TOY.eis("calm", "mild")
    with pytest.raises(ValueError, match="'fury' is neither a category nor an emotion of SEQM"):
        Corpus("t", "T", "x", "", labels={"mad": "fury"})
    with pytest.raises(ValueError, match="2 or 3 levels, not 4"):
        Corpus("t", "T", "x", "", levels=tuple("abcd"))


def utterances(toys, folder, **changes):
    clip = toys.write_wav(folder / "a.wav")
    return [Utterance(**{**dict(id="a", audio=clip, speaker="s", gender="F", label="mad"), **changes})]


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(gender="x"), "the gender 'x' is neither F nor M"),
        (dict(label="bored"), "'bored' is not one of"),
        (dict(level="mild"), "'mild' is not one of"),
    ],
)
def test_an_utterance_outside_the_declaration_names_its_source(toys, tmp_path, changes, words):
    for source in ("", "table, line 7"):
        found = utterances(toys, tmp_path / "c", source=source, **changes)
        with pytest.raises(InputError) as refused:
            prepare(TOY, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")
        assert str(refused.value).startswith(source or str(tmp_path / "c" / "a.wav")) and words in str(refused.value)
        assert not (tmp_path / "out").exists()


def test_a_repeated_id_names_both(toys, tmp_path):
    found = utterances(toys, tmp_path / "c", source="line 1") + utterances(toys, tmp_path / "c", source="line 2")
    with pytest.raises(InputError, match="line 2: the utterance a occurs a second time, first in line 1"):
        prepare(TOY, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")


def test_the_layout_is_checked_before_the_whole_folder_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "speecheq.common.digests.iter_tree", lambda folder: pytest.fail("walked through a wrong folder")
    )
    with pytest.raises(InputError, match="does not look like"):
        (tmp_path / "x" / "y").mkdir(parents=True)
        prepare(
            TOY,
            lambda folder, *_: [find_root(folder, lambda path: False, TOY)],
            PrepareRequest(tmp_path),
            tmp_path / "o",
        )


def test_a_card_needs_stage_1(toys, tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        load_card(tmp_path / "out", "toy")
    prepare(TOY, lambda *_: utterances(toys, tmp_path / "c"), PrepareRequest(tmp_path / "c"), tmp_path / "out")
    assert load_card(tmp_path / "out", "toy")["counts"]["eis"] == {"-1.0": 1}


def test_a_full_folder_of_links_and_hidden_files(toys, tmp_path):
    for name in ("b.wav", "a.WAV", "._a.wav", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [clip.name for clip in iter_clips(tmp_path)] == ["a.WAV", "b.wav"]


def test_lines_have_their_numbers_and_no_other_line_ends(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffone\r\n\n  \nfour\u2028still four\n".encode())
    assert list(read_lines(path)) == [(f"{path}, line 1", "one"), (f"{path}, line 4", "four\u2028still four")]
    path.write_bytes(b"one\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: is not UTF-8"):
        list(read_lines(path))
    with pytest.raises(InputError, match="there is no such file"):
        list(read_lines(tmp_path / "u.txt"))


def test_recordings_of_any_rate_and_channels(toys, tmp_path):
    recording = read_recording("x", toys.write_wav(tmp_path / "a.wav", 0.5, 48000, 2))
    assert (recording.sampling_rate, recording.num_samples, recording.channel_ids) == (48000, 24000, [0, 1])
    with pytest.raises(InputError, match="less than one frame of 25 ms"):
        soundfile.write(tmp_path / "b.wav", [0.0] * 1199, 48000)
        read_recording("x", tmp_path / "b.wav")
    with pytest.raises(InputError, match="there is no such file"):
        read_recording("x", tmp_path / "c.wav")


SCALED = Corpus(
    "scaled", "the scaled", "English", "DIR/*.wav", labels={"mad": "anger", "calm": "neutral"}, scale=(1.0, 5.0)
)


def test_continuous_intensity_is_rescaled_to_1_to_4_and_neutral_keeps_its_own():
    assert [SCALED.eis("mad", None, value) for value in (1.0, 3.0, 5.0)] == [1.0, 2.5, 4.0]
    assert SCALED.eis("calm", None, 5.0) == 4.0 and SCALED.eis("mad", None) == -1
    metric = Corpus("t", "T", "x", "", labels=SCALED.labels, scale=(1.0, 5.0), neutral_eis="metric")
    assert metric.eis("calm", None, 5.0) == 0.0 and metric.own_eis("calm", None, 5.0) == 4.0
    with pytest.raises(ValueError, match="outside the declared scale 1 to 5"):
        SCALED.eis("mad", None, 0.5)
    with pytest.raises(ValueError, match="declares no scale"):
        TOY.eis("mad", None, 2.0)


def test_a_label_can_be_a_name_of_seqm_with_its_intensity():
    named = Corpus("t", "T", "x", "", labels={"bored": "boredom", "loath": "disgust", "furious": "rage"})
    assert (named.esc("bored"), named.eis("bored", None)) == ("disgust", 1.5)
    assert (named.esc("loath"), named.eis("loath", None)) == ("disgust", -1)
    assert (named.esc("furious"), named.eis("furious", None)) == ("anger", 3.5)


@pytest.mark.parametrize(
    "declaration, words",
    [
        (dict(levels=("a", "b"), scale=(1, 5)), "by levels or by a scale"),
        (dict(scale=(5.0, 1.0)), "not a finite range"),
        (dict(neutral_eis="zero"), "not one of metric, corpus"),
        (dict(splits=("train",), test_split="test"), "'test' is not among its parts"),
    ],
)
def test_declarations_that_contradict_themselves(declaration, words):
    with pytest.raises(ValueError, match=words):
        Corpus("t", "T", "x", "", **declaration)


def test_a_neutral_clip_keeps_what_its_corpus_says_of_it(toys, tmp_path):
    from lhotse import SupervisionSet

    found = utterances(toys, tmp_path / "c", label="calm", level="strong", session="2", text_id="7", extra={"age": 31})
    prepare(TOY, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")
    custom = next(iter(SupervisionSet.from_file(tmp_path / "out" / "toy_supervisions_all.jsonl.gz"))).custom
    assert custom == {
        "age": 31,
        "corpus": "toy",
        "emotion": "calm",
        "intensity": "strong",
        "esc": "neutral",
        "eis": 0.0,
        "eis_of_corpus": 3.0,
        "text_id": "7",
        "session": "2",
    }


COUNTED = Corpus(
    "counted",
    "the counted",
    "English",
    "DIR/*.wav",
    labels={"mad": "anger", "calm": "neutral"},
    counts={"the release": 4},
    count_by={"label": {"mad": 2, "calm": 2}, "speaker": {"s": 2, "t": 2}},
)


def counted(toys, folder, labels="mad mad calm calm", speakers="s t s t"):
    return [
        Utterance(f"u{n}", toys.write_wav(folder / f"{n}.wav"), speaker, label=label)
        for n, (label, speaker) in enumerate(zip(labels.split(), speakers.split()))
    ]


@pytest.mark.parametrize(
    "labels, speakers, words",
    [
        (
            "mad mad calm",
            "s t s",
            "3 utterances found, the counted has 4 (the release) - 1 of 2 with the label calm, "
            "1 of 2 with the speaker t; complete the copy",
        ),
        (
            "mad mad mad calm",
            "s t s t",
            "4 utterances found, the counted has 4 (the release) - 1 of 2 with the label calm, "
            "3 of 2 with the label mad; complete",
        ),
        ("mad mad calm calm", "s t s x", "1 of 2 with the speaker t, 1 with the unknown speaker x"),
    ],
)
def test_a_copy_that_is_not_the_release_is_told_what_is_missing_or_extra(
    toys, tmp_path, capsys, labels, speakers, words
):
    found = counted(toys, tmp_path / "c", labels, speakers)
    with pytest.raises(InputError) as refused:
        prepare(COUNTED, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")
    assert words in str(refused.value)
    prepare(COUNTED, lambda *_: found, PrepareRequest(tmp_path / "c", partial=True), tmp_path / "out")
    assert read_json(tmp_path / "out" / "counted_card.json")["partial"]


def test_a_whole_copy_needs_no_option(toys, tmp_path):
    prepare(COUNTED, lambda *_: counted(toys, tmp_path / "c"), PrepareRequest(tmp_path / "c"), tmp_path / "out")
    card = read_json(tmp_path / "out" / "counted_card.json")
    assert card["counts"]["emotion"] == {"calm": 2, "mad": 2} and card["counts"]["sampling_rate"] == {"16000": 4}


@pytest.mark.parametrize(
    "segment, words",
    [
        (dict(start=0.5, end=0.51), "line 3: the segment from 0.5 to 0.51 s is shorter than one frame of 25 ms"),
        (dict(start=0.5, end=1.2), "leaves its recording of 1.00 s"),
        (dict(start=-0.1, end=0.5), "leaves its recording"),
        (dict(start=0.7, end=0.3), "shorter than one frame"),
    ],
)
def test_segments_outside_their_recording(toys, tmp_path, segment, words):
    clip = toys.write_wav(tmp_path / "c" / "long.wav", 1.0)
    found = [Utterance("a", clip, "s", label="mad", recording="long", source="segments, line 3", **segment)]
    with pytest.raises(InputError, match=words):
        prepare(TOY, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")


def test_a_recording_of_many_segments_is_written_once(toys, tmp_path):
    from lhotse import RecordingSet, SupervisionSet

    clips = [toys.write_wav(tmp_path / "c" / f"{name}.wav", 1.0) for name in ("long", "other")]
    found = [
        Utterance(f"{clip.stem[0]}{n}", clip, "s", label="mad", recording=clip.stem, start=n / 10, end=n / 10 + 0.1)
        for n in range(9)
        for clip in clips
    ]
    prepare(TOY, lambda *_: found, PrepareRequest(tmp_path / "c"), tmp_path / "out")
    assert [r.id for r in RecordingSet.from_file(tmp_path / "out" / "toy_recordings_all.jsonl.gz")] == ["long", "other"]
    supervisions = list(SupervisionSet.from_file(tmp_path / "out" / "toy_supervisions_all.jsonl.gz"))
    assert len(supervisions) == 18 and [s.recording_id for s in supervisions[:9]] == ["long"] * 9
    with pytest.raises(InputError, match="the recording long is .*other.wav, but .*long.wav in"):
        twice = [found[0], Utterance("z", clips[1], "s", label="mad", recording="long", start=0.0, end=0.1)]
        prepare(TOY, lambda *_: twice, PrepareRequest(tmp_path / "c"), tmp_path / "another")


def test_one_script_for_a_corpus_in_parts(toys, tmp_path, capsys):
    other = Corpus("toy_other", "the other toy", "English", "DIR/*.wav", labels=LABELS)
    find = lambda *_: utterances(toys, tmp_path / "c")  # noqa: E731
    parts = {"zh": (TOY, find), "en": (other, find)}
    assert main(parts, [str(tmp_path / "c"), str(tmp_path / "out"), "--part", "en"]) == 0
    assert read_json(tmp_path / "out" / "toy_other_card.json")["language"] == "English"
    assert main(parts, [str(tmp_path / "c"), str(tmp_path / "o2")]) == 1
    assert "prepare_toy.py: the following arguments are required: --part" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_lines_in_the_first_encoding_that_fits(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes("一\t我们\r\n\r\n二\t你好\r\n".encode(encoding))
    expected = [(f"{path}, line 1", "一\t我们"), (f"{path}, line 3", "二\t你好")]
    assert list(read_lines(path, ("utf-16", "utf-8", "gb18030"))) == expected
    assert list(read_lines(path, ("utf-8", "utf-16", "gb18030"))) == expected


def test_lines_that_fit_no_encoding_name_the_line(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"good\n\xff\xff\n")
    with pytest.raises(InputError, match="line 2: is not UTF-16 or UTF-8 or GB18030"):
        list(read_lines(path, ("utf-16", "utf-8", "gb18030")))

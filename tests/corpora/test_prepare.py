"""Stage 1: what is checked of a corpus, its manifests and its card."""

import pytest

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora import Corpus, Utterance, find_root
from speecheq.corpora.prep_script import main
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.corpora.prepared_corpus import load_card

LABELS = {"mad": "anger", "calm": "neutral"}
TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels=LABELS, levels=("weak", "strong"))


def utterances(toys, folder, **changes):
    clip = toys.write_wav(folder / "a.wav")
    return [Utterance(**{**dict(id="a", audio=clip, speaker="s", gender="F", label="mad"), **changes})]


def prepare_found(folder, found, corpus=TOY, **options):
    """Stage 1 of the utterances ``found`` below ``folder``/c, into ``folder``/out."""
    prepare(corpus, lambda *_: found, PrepareRequest(folder / "c", **options), folder / "out")


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
            prepare_found(tmp_path, found)
        assert str(refused.value).startswith(source or str(tmp_path / "c" / "a.wav")) and words in str(refused.value)
        assert not (tmp_path / "out").exists()


def test_a_repeated_id_names_both(toys, tmp_path):
    found = utterances(toys, tmp_path / "c", source="line 1") + utterances(toys, tmp_path / "c", source="line 2")
    with pytest.raises(InputError, match="line 2: the utterance a occurs a second time, first in line 1"):
        prepare_found(tmp_path, found)


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
    prepare_found(tmp_path, utterances(toys, tmp_path / "c"))
    assert load_card(tmp_path / "out", "toy")["counts"]["eis"] == {"-1.0": 1}


def test_a_neutral_clip_keeps_what_its_corpus_says_of_it(toys, tmp_path):
    from lhotse import SupervisionSet

    found = utterances(toys, tmp_path / "c", label="calm", level="strong", session="2", text_id="7", extra={"age": 31})
    prepare_found(tmp_path, found)
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
        prepare_found(tmp_path, found, COUNTED)
    assert words in str(refused.value)
    prepare_found(tmp_path, found, COUNTED, partial=True)
    assert read_json(tmp_path / "out" / "counted_card.json")["partial"]


def test_a_whole_copy_needs_no_option(toys, tmp_path):
    prepare_found(tmp_path, counted(toys, tmp_path / "c"), COUNTED)
    card = read_json(tmp_path / "out" / "counted_card.json")
    assert card["counts"]["emotion"] == {"calm": 2, "mad": 2} and card["counts"]["sampling_rate"] == {"16000": 4}


@pytest.mark.parametrize(
    "segment, words",
    [
        (dict(start=0.5, end=0.51), "line 3: the segment from 0.5 to 0.51 s is shorter than one frame of 25 ms"),
        (dict(start=0.5, end=1.6), "leaves its recording of 1.00 s"),
        (dict(start=-0.1, end=0.5), "leaves its recording"),
        (dict(start=0.7, end=0.3), "shorter than one frame"),
    ],
)
def test_segments_outside_their_recording(toys, tmp_path, segment, words):
    clip = toys.write_wav(tmp_path / "c" / "long.wav", 1.0)
    found = [Utterance("a", clip, "s", label="mad", recording="long", source="segments, line 3", **segment)]
    with pytest.raises(InputError, match=words):
        prepare_found(tmp_path, found)


def test_a_recording_of_many_segments_is_written_once(toys, tmp_path):
    from lhotse import RecordingSet, SupervisionSet

    clips = [toys.write_wav(tmp_path / "c" / f"{name}.wav", 1.0) for name in ("long", "other")]
    found = [
        Utterance(f"{clip.stem[0]}{n}", clip, "s", label="mad", recording=clip.stem, start=n / 10, end=n / 10 + 0.1)
        for n in range(9)
        for clip in clips
    ]
    prepare_found(tmp_path, found)
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


@pytest.mark.parametrize("corpus", ["casia", "seqd", "aishell"])
def test_leftovers_of_macos_change_nothing_and_are_counted(toys, prepare, tmp_path, caplog, corpus):
    folder = tmp_path / "zip" / "corpus"
    getattr(toys, corpus)(folder)
    assert prepare(corpus, folder, tmp_path / "clean", "--partial", "true") == 0
    clips = sorted(folder.rglob("*.wav"))
    for clip in clips:
        mirrored = folder / "__MACOSX" / clip.relative_to(folder).with_name(f"._{clip.name}")
        for leftover in (mirrored, clip.with_name(f"._{clip.name}")):
            leftover.parent.mkdir(parents=True, exist_ok=True)
            leftover.write_bytes(b"Mac OS X")
        (clip.parent / ".DS_Store").write_bytes(b"Bud1")
    (clips[0].parents[1] / "__MACOSX").mkdir()
    caplog.clear()
    assert prepare(corpus, folder, tmp_path / "out", "--partial", "true") == 0
    assert load_card(tmp_path / "out", corpus) == load_card(tmp_path / "clean", corpus)
    hidden = 2 * len(clips) + len({clip.parent for clip in clips})
    assert f"{corpus}: {hidden} hidden files are skipped" in caplog.text

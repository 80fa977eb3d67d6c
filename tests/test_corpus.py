"""The declaration of a corpus, and what every prep script shares."""

import pytest
import soundfile

from speecheq.corpus import Corpus, Request, Utterance, find_root, iter_clips, load_card, prepare, read_lines
from speecheq.corpus import read_recording
from speecheq.errors import InputError

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
            prepare(TOY, lambda *_: found, Request(tmp_path / "c"), tmp_path / "out")
        assert str(refused.value).startswith(source or str(tmp_path / "c" / "a.wav")) and words in str(refused.value)
        assert not (tmp_path / "out").exists()


def test_a_repeated_id_names_both(toys, tmp_path):
    found = utterances(toys, tmp_path / "c", source="line 1") + utterances(toys, tmp_path / "c", source="line 2")
    with pytest.raises(InputError, match="line 2: the utterance a occurs a second time, first in line 1"):
        prepare(TOY, lambda *_: found, Request(tmp_path / "c"), tmp_path / "out")


def test_the_layout_is_checked_before_the_whole_folder_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("speecheq.stages.iter_tree", lambda folder: pytest.fail("walked through a wrong folder"))
    with pytest.raises(InputError, match="does not look like"):
        (tmp_path / "x" / "y").mkdir(parents=True)
        prepare(TOY, lambda folder, *_: [find_root(folder, lambda path: False, TOY)], Request(tmp_path), tmp_path / "o")


def test_a_card_needs_stage_1(toys, tmp_path):
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        load_card(tmp_path / "out", "toy")
    prepare(TOY, lambda *_: utterances(toys, tmp_path / "c"), Request(tmp_path / "c"), tmp_path / "out")
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

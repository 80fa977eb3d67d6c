"""prepare_casia.py: the manifests it writes, and every fault of a copy as one sentence."""

import os
import shutil
import struct
import subprocess
import sys

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import RecordingSet, SupervisionSet, validate_recordings_and_supervisions

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import Drops

CATEGORIES = {
    "angry": "anger",
    "fear": "fear",
    "happy": "joy",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}


def manifests(folder, corpus="casia", split="all"):
    recordings = RecordingSet.from_file(folder / f"{corpus}_recordings_{split}.jsonl.gz")
    supervisions = SupervisionSet.from_file(folder / f"{corpus}_supervisions_{split}.jsonl.gz")
    validate_recordings_and_supervisions(recordings, supervisions)
    return recordings, supervisions


@pytest.fixture
def casia(toys, tmp_path):
    return toys.casia(tmp_path / "CASIA")


def test_the_contract_of_the_manifests(prepare, casia, tmp_path):
    assert prepare("casia", casia, tmp_path / "out", "--partial", "true") == 0
    recordings, supervisions = manifests(tmp_path / "out")
    assert len(recordings) == len(supervisions) == 4 * 6 * 2
    for supervision in supervisions:
        custom = supervision.custom
        assert supervision.id == f"casia-{supervision.speaker}-{custom['emotion']}-{custom['text_id']}"
        assert supervision.gender == ("M" if supervision.speaker in ("wangzhe", "zhaozuoxiang") else "F")
        assert supervision.language == "Mandarin"
        assert (custom["corpus"], custom["intensity"], custom["eis"]) == ("casia", None, -1)
        assert custom["esc"] == CATEGORIES[custom["emotion"]]
        assert "split" not in custom and supervision.duration == pytest.approx(0.2)
    card = read_json(tmp_path / "out" / "casia_card.json")
    assert card["counts"]["esc"] == dict.fromkeys(sorted(CATEGORIES.values()), 8)
    assert card["splits"] == ["all"] and card["test_split"] is None and not card["has_transcripts"]


def test_spellings_of_speakers_and_of_neutral(prepare, toys, tmp_path):
    toys.casia(tmp_path / "c", speakers=("Liuchanhong", "WANGZHE"), emotions=("normal",))
    # the speakers' folder itself will do as well
    assert prepare("casia", tmp_path / "c" / "casia", tmp_path / "out", "--partial", "true") == 0
    _, supervisions = manifests(tmp_path / "out")
    assert {s.speaker for s in supervisions} == {"liuchanhg", "wangzhe"}
    assert {s.custom["esc"] for s in supervisions} == {"neutral"}


def test_the_official_count_is_asked_for_unless_the_copy_may_be_partial(refused, casia, prepare, tmp_path):
    sentence = refused("casia", casia)
    assert "48 utterances" in sentence and "1200 (public part)" in sentence and "--partial true" in sentence
    assert prepare("casia", casia, tmp_path / "out", "--partial", "true", "--check-only") == 0
    assert not (tmp_path / "out").exists()


def test_a_whole_copy_needs_no_option(toys, prepare, tmp_path):
    toys.casia(tmp_path / "c", texts=50, seconds=0.03)
    assert prepare("casia", tmp_path / "c", tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "casia_card.json")["utterances"] == 1200


def test_recordings_are_found_from_any_folder(prepare, casia, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare("casia", "CASIA", "out", "--partial", "true") == 0
    recordings, _ = manifests(tmp_path / "out")
    assert all(os.path.isabs(r.sources[0].source) for r in recordings)


def test_what_macos_leaves_behind_is_no_clip(prepare, casia, tmp_path):
    (casia / "casia" / "wangzhe" / "sad" / "._201.wav").write_bytes(b"junk")
    (casia / "casia" / "wangzhe" / ".AppleDouble").mkdir()
    assert prepare("casia", casia, tmp_path / "out", "--partial", "true") == 0
    assert read_json(tmp_path / "out" / "casia_card.json")["utterances"] == 48


def test_it_runs_once_and_again_when_a_clip_or_an_option_changes(prepare, casia, toys, tmp_path, capsys):
    def run(*options):
        assert prepare("casia", casia, tmp_path / "out", "--partial", "true", *options) == 0
        return capsys.readouterr().err

    run()
    assert "skipped" in run() and "skipped" in run("--nj", "2")
    toys.write_wav(casia / "casia" / "wangzhe" / "sad" / "201.wav", seconds=0.3)
    assert "its inputs changed" in run()
    assert "its options changed (seed)" in run("--seed", "2")


def test_hours_take_a_seeded_subset(prepare, casia, tmp_path):
    def chosen(seed, hours="0.001"):
        out = tmp_path / f"{seed} {hours} {len(list(tmp_path.iterdir()))}"
        options = ("--partial", "true", "--hours", hours, "--seed", seed)
        assert prepare("casia", casia, out, *options) == 0
        return {s.id for s in manifests(out)[1]}, read_json(out / "stage.json")

    first, stamp = chosen("1")
    assert len(first) == 18  # 3.6 s in clips of 0.2 s
    assert sum(map(len, stamp["dropped"].values())) == 48 - 18 == stamp["in"] - stamp["out"]
    assert chosen("1")[0] == first != chosen("2")[0]
    assert len(chosen("1", "7")[0]) == 48


# --- Bad input


@pytest.mark.parametrize("name", ["casia", "aishell", "seqd"])
def test_folders_that_are_missing_empty_too_high_too_low_or_no_folder(name, refused, toys, tmp_path):
    around = tmp_path / "around"
    corpus = getattr(toys, name)(around / "corpus")
    inside = {"casia": "casia/wangzhe/sad", "aishell": "data_aishell/wav/train/S0002", "seqd": "wav/F01"}[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "things").mkdir(parents=True)
    clip = next((corpus / inside).glob("*.wav"))
    partial = ("--partial", "true")
    assert "there is no such folder" in refused(name, tmp_path / "missing", *partial)
    assert "the folder is empty" in refused(name, tmp_path / "empty", *partial)
    assert "does not look like" in refused(name, tmp_path / "other", *partial)
    assert "is a file, not a folder" in refused(name, clip, *partial)
    sentence = refused(name, around, *partial)
    assert "one level too high" in sentence and f"give {corpus} instead" in sentence
    while inside:
        if (name, inside) != ("casia", "casia"):
            sentence = refused(name, corpus / inside, *partial)
            assert "too low" in sentence and f"give {corpus}" in sentence
        inside = inside.rpartition("/")[0]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def cut_inside_the_header(path):
    path.write_bytes(path.read_bytes()[:30])


def cut_before_the_samples(path):
    path.write_bytes(path.read_bytes()[:40])


def shorter_than_a_frame(path):
    soundfile.write(path, [0.1] * 399, 16000)


def without_samples(path):
    soundfile.write(path, [], 16000)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (cut_short, "is truncated"),
        (cut_inside_the_header, "is not audio"),
        (cut_before_the_samples, ""),
        (lambda path: path.write_text("no audio at all " * 50), "is not audio"),
        (shorter_than_a_frame, "less than one frame"),
        (without_samples, "less than one frame"),
    ],
)
@pytest.mark.parametrize("name", ["casia", "aishell", "seqd"])
def test_audio_that_cannot_be_used(name, spoil, words, refused, toys, tmp_path):
    corpus = getattr(toys, name)(tmp_path / "corpus")
    clip = sorted(corpus.rglob("*.wav"))[5]
    spoil(clip)
    sentence = refused(name, corpus, "--partial", "true")
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_a_clip_of_just_one_frame_is_taken(prepare, casia, tmp_path):
    soundfile.write(casia / "casia" / "wangzhe" / "sad" / "201.wav", [0.1] * 400, 16000)
    assert prepare("casia", casia, tmp_path / "out", "--partial", "true") == 0


def test_a_wav_whose_length_was_left_open_is_not_truncated(prepare, casia, tmp_path):
    path = casia / "casia" / "wangzhe" / "sad" / "201.wav"
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)  # what writers to pipes leave
    path.write_bytes(content)
    assert prepare("casia", casia, tmp_path / "out", "--partial", "true") == 0


def test_unknown_emotions_and_speakers(refused, casia):
    (casia / "casia" / "wangzhe" / "bored").mkdir()
    sentence = refused("casia", casia, "--partial", "true")
    assert sentence.startswith(f"{casia}/casia/wangzhe/bored: ") and "angry, fear" in sentence
    (casia / "casia" / "wangzhe" / "bored").rmdir()
    (casia / "casia" / "nobody").mkdir()
    assert refused("casia", casia, "--partial", "true").startswith(f"{casia}/casia/nobody: is not a speaker of CASIA")


def test_one_speaker_under_two_spellings_names_both_clips(refused, casia):
    shutil.copytree(casia / "casia" / "liuchanhg", casia / "casia" / "liuchanhong")
    sentence = refused("casia", casia, "--partial", "true")
    assert "second time" in sentence
    assert "liuchanhg/angry/201.wav" in sentence and "liuchanhong/angry/201.wav" in sentence


def test_a_layout_without_a_clip(refused, casia):
    for clip in casia.rglob("*.wav"):
        clip.unlink()
    assert "no utterance was found" in refused("casia", casia, "--partial", "true")
    assert "no utterance was found" in refused("casia", casia, "--partial", "true", "--check-only")


def test_nothing_else_is_ever_replaced(prepare, casia, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for out in (mine, casia, casia / "casia" / "manifests"):
        capsys.readouterr()
        assert prepare("casia", casia, out, "--partial", "true") == 1
        assert str(out) in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert len(list(casia.rglob("*.wav"))) == 48
    assert prepare("casia", casia, mine / "thesis.txt", "--partial", "true") == 1
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, words",
    [
        (("--partial", "yes"), "'yes' is neither true nor false"),
        (("--hours", "-1"), "is not a number above 0"),
        (("--hours", "many"), "many"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_options_that_are_wrong(options, words, refused, casia):
    assert words in refused("casia", casia, *options)


def test_help(prepare, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare("casia", "--help", "")
    assert not ended.value.code and "CORPUS_DIR OUT_DIR" in capsys.readouterr().out


def test_as_a_program(casia, toys, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, toys.root / "local" / "prepare_casia.py", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(toys.root)},
            timeout=60,
        )

    ended = run(tmp_path / "missing", tmp_path / "out")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "Traceback" not in ended.stderr


# --- The real clips


def test_the_real_clips(samples, prepare, tmp_path):
    assert prepare("casia", samples("CASIA"), tmp_path / "out") == 0
    _, supervisions = manifests(tmp_path / "out")
    card = read_json(tmp_path / "out" / "casia_card.json")
    assert len(supervisions) == card["utterances"] == 1200
    assert card["counts"]["speaker"] == dict.fromkeys(["liuchanhg", "wangzhe", "zhaoquanyin", "zhaozuoxiang"], 300)
    assert card["counts"]["esc"] == dict.fromkeys(sorted(CATEGORIES.values()), 200)
    assert card["counts"]["gender"] == {"F": 600, "M": 600}
    assert card["counts"]["eis"] == {"-1.0": 1200}
    assert {s.custom["text_id"] for s in supervisions} == {str(number) for number in range(201, 251)}
    assert 0.6 < card["hours"] < 0.7


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20)


@given(NAMES | st.sampled_from(["WangZhe", "liuchanhong"]), NAMES | st.sampled_from(["Angry", "normal", "sad "]))
@settings(max_examples=150)
def test_no_folder_name_fails_with_anything_but_a_sentence(toys, tmp_path_factory, speaker, emotion):
    """Names only: the audio is read later."""
    script, root = toys.script("casia"), tmp_path_factory.getbasetemp()
    inside = {root: ["zhaoquanyin", speaker], root / "casia": []}
    script.iter_folders = lambda folder: (folder / name for name in inside.get(folder, [emotion]))
    script.iter_clips = lambda folder: iter([folder / "201.wav"])
    try:
        found = list(script.find_utterances(root, True, Drops()))
    except InputError as refused:
        assert str(refused).startswith(str(root)) and str(refused).endswith(".")
    else:
        assert len(found) == 2 and all(u.label in script.CASIA.labels and u.gender in "FM" for u in found)

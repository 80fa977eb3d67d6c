"""Kaldi data folders: read without code, every fault as one sentence; what is exported is read back the same."""

import re
import subprocess
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import SupervisionSet
from lhotse.kaldi import load_kaldi_data_dir
from prepared_manifests import change

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.exchange import export_corpus, import_corpus
from speecheq.corpora.exchange.kaldi import iter_segments
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.corpora.prepared_corpus import load_card

LABELS = "language: English\nlabels: {hap: joy, neu: neutral, bor: boredom, xxx: null}\nlevels: [low, mid, top]\n"


def data_folder(toys, root):
    """Four utterances of two speakers in a data folder two levels below the audio's folder, as in Kaldi's recipes."""
    folder = root / "data" / "train"
    folder.mkdir(parents=True)
    names = ("f1-a", "f1-b", "m1-a", "m1-b")
    for name in names:
        toys.write_wav(root / "corpus" / f"{name}.wav")
    files = {
        "wav.scp": [f"{name} corpus/{name}.wav" for name in names],
        "utt2spk": [f"{name} {name[:2]}" for name in names],
        "spk2gender": ["f1 f", "m1 m"],
        "text": ["f1-a hello there", "f1-b", "m1-a\tyes", "m1-b  no"],
        "utt2emo": ["f1-a hap", "f1-b neu", "m1-a bor", "m1-b hap"],
        "utt2int": ["f1-a top", "m1-b low"],
    }
    for file, lines in files.items():
        (folder / file).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    (folder / "labels.yaml").write_text(LABELS)
    return folder


@pytest.fixture
def folder(toys, tmp_path):
    return data_folder(toys, tmp_path / "lab")


def read(folder, out, name="lab", **options):
    import_corpus(name, PrepareRequest(folder, **options), out)
    return {
        s.id: s
        for split in load_card(out, name)["splits"]
        for s in SupervisionSet.from_file(out / f"{name}_supervisions_{split}.jsonl.gz")
    }


def test_a_folder_becomes_a_corpus(folder, tmp_path):
    found = read(folder, tmp_path / "out")
    assert list(found) == ["lab-f1-a", "lab-f1-b", "lab-m1-a", "lab-m1-b"]
    assert [(s.speaker, s.gender) for s in found.values()] == [("f1", "F")] * 2 + [("m1", "M")] * 2
    assert [s.text for s in found.values()] == ["hello there", "", "yes", "no"]
    assert [s.custom["esc"] for s in found.values()] == ["joy", "neutral", "disgust", "joy"]
    assert [s.custom["eis"] for s in found.values()] == [3.5, 0.0, 1.5, 1.5]
    assert load_card(tmp_path / "out", "lab")["splits"] == ["all"]


def test_segments_and_parts(folder, tmp_path):
    (folder / "segments").write_text("f1-x f1-a 0 0.1\nf1-y f1-a 0.1 -1\nm1-x m1-a 0.05 0.15\n")
    (folder / "utt2spk").write_text("f1-x f1\nf1-y f1\nm1-x m1\n")
    (folder / "utt2emo").write_text("f1-x hap\nf1-y neu\nm1-x bor\n")
    (folder / "utt2split").write_text("f1-x train\nf1-y train\nm1-x test\n")
    (folder / "utt2session").write_text("f1-x 1\n")
    (folder / "utt2int").unlink()
    (folder / "text").unlink()
    found = read(folder, tmp_path / "out")
    assert {name: (s.start, round(s.duration, 6), s.recording_id) for name, s in found.items()} == {
        "lab-f1-x": (0.0, 0.1, "lab-f1-a"),
        "lab-f1-y": (0.1, 0.1, "lab-f1-a"),
        "lab-m1-x": (0.05, 0.1, "lab-m1-a"),
    }
    assert found["lab-f1-x"].custom["session"] == "1" and "session" not in found["lab-m1-x"].custom
    assert load_card(tmp_path / "out", "lab")["test_split"] == "test"


def test_split_words_are_mapped_by_labels_yaml(folder, tmp_path):
    (folder / "utt2split").write_text("f1-a Train\nf1-b Train\nm1-a Eval\nm1-b Extra\n")
    with pytest.raises(InputError, match=r"utt2split, line 1: the split 'Train' is none of .* Eval, Extra, Train\)"):
        read(folder, tmp_path / "out")
    (folder / "labels.yaml").write_text(LABELS + "splits: {Train: train, Eval: test, Extra: null}\n")
    found = read(folder, tmp_path / "out")
    assert [s.custom["split"] for s in found.values()] == ["test", "train", "train"]
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {"labels.yaml leaves the split Extra out": ["m1-b"]}


def with_segments(folder, *ends):
    """The folder with one segment of the recording f1-a (0.2 s) for each of ``ends``."""
    for file in ("text", "utt2int"):
        (folder / file).unlink()
    names = [f"f1-{place}" for place in range(len(ends))]
    (folder / "spk2gender").write_text("f1 f\n")
    for file, rest in (("utt2spk", "f1"), ("utt2emo", "hap")):
        (folder / file).write_text("".join(f"{name} {rest}\n" for name in names))
    (folder / "segments").write_text("".join(f"{name} f1-a 0.1 {end}\n" for name, end in zip(names, ends)))


def test_segments_that_end_little_after_their_recording_are_cut(folder, tmp_path, caplog):
    with_segments(folder, 0.2, 0.22, 0.7)
    found = read(folder, tmp_path / "out")
    assert [round(s.duration, 6) for s in found.values()] == [0.1] * 3
    assert "lab: 2 segments end up to 0.5 s after their recording and are cut to its end" in caplog.text
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {}


def test_segments_far_outside_are_left_out_of_a_partial_copy_and_named(folder, tmp_path, caplog):
    with_segments(folder, 0.2, 0.75, 9)
    with pytest.raises(InputError, match=r"f1-1: the segment from 0.1 to 0.75 s .* \(the first of 2 .*--partial true"):
        read(folder, tmp_path / "out")
    assert list(read(folder, tmp_path / "out", partial=True)) == ["lab-f1-0"]
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {"segment outside its recording": ["lab-f1-1", "lab-f1-2"]}
    assert (stamp["in"], stamp["out"]) == (3, 1)
    assert "utterance f1-1: the segment from 0.1 to 0.75 s" in caplog.text and "utterance f1-2:" in caplog.text


def test_all_segments_outside_are_refused(folder, tmp_path):
    with_segments(folder, 5, 9)
    with pytest.raises(InputError, match="the first of 2 such segments"):
        read(folder, tmp_path / "out", partial=True)


def test_a_corpus_of_transcripts_alone(folder, tmp_path):
    for file in ("utt2emo", "utt2int"):
        (folder / file).unlink()
    (folder / "labels.yaml").write_text("language: English\nlabels: {}\nhas_transcripts: true\n")
    found = read(folder, tmp_path / "out")
    assert len(found) == 4 and found["lab-f1-a"].custom["esc"] is None
    assert load_card(tmp_path / "out", "lab")["has_transcripts"]


def test_what_is_left_out_is_counted(folder, tmp_path):
    change(folder / "utt2spk", "f1-a f1\n", "")
    change(folder / "utt2emo", "f1-b neu\n", "")
    change(folder / "utt2emo", "m1-a bor", "m1-a xxx")
    change(folder / "utt2emo", "f1-a hap\n", "")
    assert list(read(folder, tmp_path / "out")) == ["lab-m1-b"]
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {
        "audio without speaker": ["f1-a"],
        "audio without label": ["f1-b"],
        "labels.yaml leaves the label xxx out": ["m1-a"],
    }


def test_missing_audio(folder, tmp_path):
    (tmp_path / "lab" / "corpus" / "m1-a.wav").unlink()
    with pytest.raises(InputError, match=r"wav.scp, line 3: there is no file .*m1-a.wav; .*--partial true"):
        read(folder, tmp_path / "out")
    assert len(read(folder, tmp_path / "out", partial=True)) == 3
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {"audio missing": ["m1-a"]}


def test_all_audio_missing_is_said_with_the_first_file(folder, tmp_path):
    for clip in (tmp_path / "lab" / "corpus").iterdir():
        clip.unlink()
    with pytest.raises(InputError, match=r"wav.scp: all 4 audio files are missing, the first is .*f1-a.wav"):
        read(folder, tmp_path / "out", partial=True)


@pytest.mark.parametrize("in_scp, on_disk", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_and_leftovers_of_macos(toys, folder, tmp_path, in_scp, on_disk):
    toys.write_wav(tmp_path / "lab" / normalize(on_disk, "Zoë") / normalize(on_disk, "é.wav"))
    change(folder / "wav.scp", "corpus/f1-a.wav", normalize(in_scp, "Zoë/é.wav"))
    change(folder / "wav.scp", "corpus/m1-b.wav", "corpus/._m1-b.wav")
    assert list(read(folder, tmp_path / "out")) == ["lab-f1-a", "lab-f1-b", "lab-m1-a"]
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {"leftover of macOS, no audio": ["m1-b"]}


@pytest.mark.parametrize("in_scp, in_others", [("NFC", "NFD"), ("NFD", "NFC")])
def test_the_files_of_a_folder_in_two_unicode_forms(folder, tmp_path, in_scp, in_others):
    """The names are those of wav.scp; the speakers and labels are composed."""
    for file in folder.iterdir():
        form = in_scp if file.name == "wav.scp" else in_others
        text = file.read_text().replace("f1-a ", "é1-a ").replace("f1-b ", "é1-b ").replace("f1-b\n", "é1-b\n")
        file.write_text(normalize(form, re.sub("( |^)f1( |$)", r"\1Zoë\2", text, flags=re.M).replace("hap", "gâté")))
    change(folder / "utt2spk", normalize(in_others, "é1-b Zoë"), normalize(in_scp, "é1-b Zoë"))
    (folder / "utt2session").write_text(normalize(in_others, "é1-a été\n") + normalize(in_scp, "é1-b été\n"))
    found = read(folder, tmp_path / "out")
    first, second = (normalize(in_scp, f"lab-é1-{clip}") for clip in "ab")
    assert set(found) == {first, second, "lab-m1-a", "lab-m1-b"}
    assert [(found[name].speaker, found[name].gender) for name in (first, second)] == [("Zo\u00eb", "F")] * 2
    assert found[first].custom["emotion"] == "g\u00e2t\u00e9" and found[first].text == "hello there"
    assert found[first].custom["session"] == found[second].custom["session"]
    change(folder / "utt2emo", normalize(in_others, "é1-a gâté"), normalize(in_others, "é1-a glad"))
    with pytest.raises(InputError, match="utt2emo, line 1: the label 'glad'"):
        read(folder, tmp_path / "out")


@pytest.mark.parametrize("in_scp, in_segments", [("NFC", "NFD"), ("NFD", "NFC")])
def test_segments_of_recordings_in_another_unicode_form(folder, tmp_path, in_scp, in_segments):
    change(folder / "wav.scp", "f1-a ", normalize(in_scp, "é "))
    (folder / "segments").write_text(normalize(in_segments, "f1-x é 0 0.1\n"))
    ((name, audio, *_),) = iter_segments(folder)
    assert name == "f1-x" and audio.name == "f1-a.wav"
    for file in ("utt2spk", "utt2emo"):
        (folder / file).write_text("f1-x " + {"utt2spk": "f1", "utt2emo": "hap"}[file] + "\n")
    for file in ("utt2int", "text", "spk2gender"):
        (folder / file).unlink()
    assert list(read(folder, tmp_path / "out")) == ["lab-f1-x"]


def test_names_that_differ_in_their_form_alone_stay_two(toys, folder, tmp_path):
    for place, form in enumerate(("NFC", "NFD")):
        change(folder / "wav.scp", "f1-" + "ab"[place], normalize(form, "é"))
    names = (folder / "wav.scp").read_text().split()[0:4:2]
    (folder / "wav.scp").write_text("".join(f"{name} corpus/f1-a.wav\n" for name in names))
    for file, value in (("utt2spk", "f1"), ("utt2emo", "hap")):
        (folder / file).write_text("".join(f"{name} {value}\n" for name in names))
    for file in ("utt2int", "text", "spk2gender"):
        (folder / file).unlink()
    assert set(read(folder, tmp_path / "out")) == {f"lab-{name}" for name in names}


def test_more_leftovers_of_macos_than_clips(folder, tmp_path):
    """As who lists all files of a folder has them, in wav.scp alone or in all files."""
    with open(folder / "wav.scp", "a") as scp:
        scp.writelines(f"._{name} corpus/._{name}.wav\n" for name in ("f1-a", "f1-b", "m1-a", "m1-b"))
        scp.write("DS_Store corpus/.DS_Store\nx __MACOSX/corpus/f1-a.wav\n")
    with open(folder / "utt2spk", "a") as speakers:
        speakers.write("x f1\n")
    assert len(read(folder, tmp_path / "out")) == 4
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {
        "leftover of macOS, no audio": ["._f1-a", "._f1-b", "._m1-a", "._m1-b", "DS_Store", "x"]
    }


def test_a_corrected_label_is_seen_though_the_file_keeps_its_size(folder, tmp_path, caplog):
    read(folder, tmp_path / "out")
    change(folder / "utt2emo", "f1-a hap", "f1-a neu")
    assert read(folder, tmp_path / "out")["lab-f1-a"].custom["esc"] == "neutral"


# --- Bad input


@pytest.mark.parametrize(
    "file, old, new, words",
    [
        (
            "wav.scp",
            "f1-b corpus",
            "f1-b sox corpus/f1-b.wav -t wav - |\nx corpus",
            "wav.scp, line 2: f1-b is the output of a command, which is not run here; convert",
        ),
        ("wav.scp", "f1-b corpus/f1-b.wav", "f1-b", "wav.scp, line 2: holds one field, 'f1-b', where two are expected"),
        ("wav.scp", "f1-b", "f1-a", "wav.scp, line 2: f1-a occurs a second time, first in"),
        ("utt2spk", "m1-b m1", "m1-b", "utt2spk, line 4: holds one field"),
        ("utt2spk", "m1-b m1", "m1-a m1", "utt2spk, line 4: m1-a occurs a second time"),
        ("utt2spk", "f1-b f1\nm1-a m1\nm1-b m1\n", "", "utt2spk: has no line for 3 of 4 clips"),
        ("spk2gender", "f1 f", "f1 x", "spk2gender, line 1: the gender 'x' is none of"),
        ("spk2gender", "f1 f", "f2 f", "spk2gender, line 1: f2 is not one of the speakers of utt2spk"),
        ("utt2emo", "m1-a bor", "m1-a ang", "utt2emo, line 3: the label 'ang' is not one of labels.yaml's: hap, neu"),
        ("utt2int", "f1-a top", "f1-a max", "utt2int, line 1: the level 'max' is not one of labels.yaml's: low, mid"),
        ("utt2int", "f1-a top", "f9-a top", "utt2int, line 1: f9-a is not one of the utterances"),
        ("text", "m1-b", "m1-c", "text, line 4: m1-c is not one of the utterances"),
        ("labels.yaml", "levels: [low, mid, top]", "", "utt2int, line 1: has the intensity 'top', but labels.yaml"),
        ("labels.yaml", "levels: [low, mid, top]", "scale: [1, 5]", "utt2int, line 1: 'top' is not a number"),
        ("labels.yaml", "levels: [low, mid, top]", "columns: {path: x}", "labels.yaml, line 3: 'columns' is not a key"),
    ],
)
def test_malformed_files(folder, tmp_path, file, old, new, words):
    change(folder / file, old, new)
    with pytest.raises(InputError) as fault:
        read(folder, tmp_path / "out")
    assert words in str(fault.value) and str(fault.value).startswith(str(folder)) and str(fault.value).endswith(".")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line, words",
    [
        ("f1-a f1-a 0", "segments, line 1: expected <utt> <recording> <start> <end>, found 3 fields"),
        ("f1-a f1-a 0 0.1 1", "found 5 fields"),
        ("f1-a f9 0 0.1", "segments, line 1: the recording f9 is not in wav.scp"),
        ("f1-a f1-a 0 end", "segments, line 1: 'end' is not a number"),
        ("f1-a f1-a nan 1", "segments, line 1: 'nan' is not a number"),
        ("f1-a f1-a 0.1 0.1", "segments, line 1: the segment from 0.1 to 0.1 s is empty"),
        ("f1-a f1-a -0.1 0.1", "begins before 0"),
        ("f1-a f1-a 0 7", "segments, utterance f1-a: the segment from 0 to 7 s"),
    ],
)
def test_malformed_segments(folder, tmp_path, line, words):
    (folder / "segments").write_text(line + "\n")
    for file in ("utt2spk", "utt2emo", "text", "utt2int"):
        first = (folder / file).read_text().splitlines()[0]
        (folder / file).write_text(first + "\n")
    (folder / "spk2gender").write_text("f1 f\n")
    with pytest.raises(InputError) as fault:
        read(folder, tmp_path / "out")
    assert words in str(fault.value)


@pytest.mark.parametrize("file", ["wav.scp", "utt2spk", "utt2emo", "labels.yaml"])
def test_a_file_that_is_needed_is_missing_or_in_another_encoding(folder, tmp_path, file):
    content = (folder / file).read_bytes()
    (folder / file).unlink()
    with pytest.raises(InputError, match=rf"{file}"):
        read(folder, tmp_path / "out")
    (folder / file).write_bytes(b"\xff\xfe" + content)
    with pytest.raises(InputError, match=rf"{file}, line 1: is not UTF-8"):
        read(folder, tmp_path / "out")


def test_windows_line_ends_and_a_byte_order_mark(folder, tmp_path):
    for file in ("wav.scp", "utt2spk", "utt2emo", "utt2int", "spk2gender", "text"):
        path = folder / file
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    found = read(folder, tmp_path / "out")
    assert found["lab-f1-a"].text == "hello there" and found["lab-f1-a"].custom["eis"] == 3.5


def test_nothing_else_is_replaced(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    read(folder, tmp_path / "out")
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(InputError, match="is not an empty folder"):
            export_corpus(tmp_path / "out", out)
    with pytest.raises(InputError, match="is inside|lies inside"):
        read(folder, folder / "manifests")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


NEAR_FILES = st.lists(
    st.lists(
        st.sampled_from(
            ["f1-a", "f1-b", "m1-a", "m1-b", "f1", "hap", "xxx", "0", "0.1", "-1", "top", "|", "é", "\ufeff"]
        ),
        max_size=5,
    ).map(" ".join),
    max_size=5,
).map("\n".join)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    file=st.sampled_from(["wav.scp", "utt2spk", "utt2emo", "utt2int", "spk2gender", "text", "segments", "utt2split"]),
    text=st.one_of(st.text(), NEAR_FILES),
)
def test_no_text_fails_with_anything_but_a_sentence(folder, tmp_path, file, text):
    before = (folder / file).read_bytes() if (folder / file).exists() else None
    (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        import_corpus("lab", PrepareRequest(folder), tmp_path / "out", check_only=True)
    except InputError as fault:
        assert str(fault).startswith(str(folder)) and str(fault).endswith(".")
    finally:
        if before is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(before)


# --- There and back


def facts(found):
    return {name: (s.speaker, s.gender, s.text, s.language, s.start, s.duration, s.custom) for name, s in found.items()}


MADE = Corpus(
    "made",
    "The made one",
    "English",
    "DIR/*.wav",
    labels={"hot": "rage", "calm": "neutral", "no": "joy"},
    levels=("low", "high"),
    splits=("train", "test"),
    test_split="test",
    has_transcripts=True,
)


def make(tmp_path, utterances):
    prepare_corpus(MADE, lambda *_: utterances, PrepareRequest(tmp_path / "c"), tmp_path / "manifests")
    return tmp_path / "manifests"


def in_kaldi_order(folder):
    """What Kaldi's own validation asks: one order of utterances and of speakers, in the C locale, no line twice."""
    for file in ("utt2spk", "wav.scp", "spk2utt", "text", "utt2emo", "spk2gender", "segments"):
        if (folder / file).exists():
            subprocess.run(["sort", "-c", "-u", "-k1,1", folder / file], check=True, env={"LC_ALL": "C"})
    subprocess.run(["sort", "-c", "-k2", folder / "utt2spk"], check=True, env={"LC_ALL": "C"})


def test_a_folder_there_and_back(toys, tmp_path):
    clip = toys.write_wav(tmp_path / "c" / "a b.wav")
    manifests = make(
        tmp_path,
        [
            Utterance(f"made-{speaker}-{n}", clip, speaker, sex, f"says {n}", label, level, split=split, text_id=str(n))
            for speaker, sex, split in (("s1", "F", "train"), ("s2", "M", "test"))
            for n, (label, level) in enumerate([("hot", None), ("calm", "low"), ("no", "high")])
        ],
    )
    export_corpus(manifests, tmp_path / "kaldi")
    in_kaldi_order(tmp_path / "kaldi")
    assert not (tmp_path / "kaldi" / "segments").exists()
    back = read(tmp_path / "kaldi", tmp_path / "back", "made")
    before = {
        s.id: s
        for split in ("train", "test")
        for s in SupervisionSet.from_file(manifests / f"made_supervisions_{split}.jsonl.gz")
    }
    assert facts(back) == facts(before)
    assert load_card(tmp_path / "back", "made") == load_card(manifests, "made")
    recordings, supervisions, _ = load_kaldi_data_dir(tmp_path / "kaldi", 16000)
    assert len(recordings) == len(supervisions) == 6
    assert {(s.id, s.speaker, s.text, s.gender) for s in supervisions} == {
        (s.id, s.speaker, s.text, s.gender.lower()) for s in before.values()
    }
    assert {r.duration for r in recordings} == {0.2}


def test_segments_there_and_back(toys, tmp_path):
    long, whole = toys.write_wav(tmp_path / "c" / "long.wav", 0.5), toys.write_wav(tmp_path / "c" / "whole.wav")
    manifests = make(
        tmp_path,
        [
            Utterance(
                "made-s1-1", long, "s1", "F", "one", "hot", split="train", start=0.1, end=0.3, recording="made-long"
            ),
            Utterance("made-s1-2", long, "s1", "F", "two", "calm", split="train", start=0.3, recording="made-long"),
            Utterance("made-s1-3", whole, "s1", "F", "", "no", "low", split="test", session="2"),
        ],
    )
    export_corpus(manifests, tmp_path / "kaldi")
    in_kaldi_order(tmp_path / "kaldi")
    assert (tmp_path / "kaldi" / "segments").read_text().splitlines() == [
        "made-s1-1 made-long 0.100000 0.300000",
        "made-s1-2 made-long 0.300000 0.500000",
        "made-s1-3 made-s1-3 0.000000 0.200000",
    ]
    back = read(tmp_path / "kaldi", tmp_path / "back", "made")
    before = {
        s.id: s
        for split in ("train", "test")
        for s in SupervisionSet.from_file(manifests / f"made_supervisions_{split}.jsonl.gz")
    }
    assert facts(back) == facts(before)
    _, supervisions, _ = load_kaldi_data_dir(tmp_path / "kaldi", 16000)
    assert [(s.id, s.start, s.text) for s in supervisions] == [
        ("made-s1-1", 0.1, "one"),
        ("made-s1-2", 0.3, "two"),
        ("made-s1-3", 0.0, ""),
    ]


@pytest.mark.parametrize(
    "speakers, first",
    [
        (("b", "a"), "a-made-1"),  # the utterances' numbers are in another order than the speakers
        (("a-b", "a"), "a!made-1"),  # "a-b-..." would come before "a-m..."
    ],
)
def test_speakers_come_first_where_kaldi_asks_for_it(toys, tmp_path, caplog, speakers, first):
    clip = toys.write_wav(tmp_path / "c" / "a.wav")
    manifests = make(
        tmp_path,
        [
            Utterance(f"made-{n}", clip, speakers[n], ("F", None)[n], label="hot", split="train", extra={"age": n})
            for n in range(2)
        ],
    )
    export_corpus(manifests, tmp_path / "kaldi")
    in_kaldi_order(tmp_path / "kaldi")
    assert (tmp_path / "kaldi" / "utt2spk").read_text().split()[0] == first
    shown = caplog.text
    assert "utterances are named <speaker>" in shown
    assert f"lacks those of unknown gender: {speakers[1]}" in shown and "not exported: age" in shown
    assert len(read(tmp_path / "kaldi", tmp_path / "back", "made")) == 2


def test_names_that_kaldi_cannot_hold(toys, tmp_path):
    clip = toys.write_wav(tmp_path / "c" / "a.wav")
    manifests = make(tmp_path, [Utterance("made-1", clip, "s 1", None, label="hot", split="train")])
    with pytest.raises(InputError, match="the name 's 1' holds blanks"):
        export_corpus(manifests, tmp_path / "kaldi")
    assert not (tmp_path / "kaldi").exists()


def test_the_real_clips_there_and_back(samples, prepare, tmp_path):
    def labels(found):
        return sorted(
            (
                s.speaker,
                s.gender,
                s.text,
                s.duration,
                s.custom["emotion"],
                str(s.custom["intensity"]),
                s.custom["esc"],
                s.custom["eis"],
                s.custom.get("text_id", ""),
            )
            for s in found
        )

    for name, count in (("casia", 1200), ("ravdess", 1440), ("emodb", 535)):
        assert prepare(name, samples(name.upper()), tmp_path / name) == 0
        export_corpus(tmp_path / name, tmp_path / f"{name}-kaldi")
        in_kaldi_order(tmp_path / f"{name}-kaldi")
        back = read(tmp_path / f"{name}-kaldi", tmp_path / f"{name}-back", name)
        before = SupervisionSet.from_file(tmp_path / name / f"{name}_supervisions_all.jsonl.gz")
        assert len(back) == count and labels(back.values()) == labels(before)
        assert len(load_kaldi_data_dir(tmp_path / f"{name}-kaldi", 16000)[1]) == count

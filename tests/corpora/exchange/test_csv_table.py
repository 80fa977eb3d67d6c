"""Tables: read without code, every fault as one sentence with its line; what is exported is read back the same."""

from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import RecordingSet, SupervisionSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.exchange import export_corpus, import_corpus
from speecheq.corpora.exchange.labels_file import gender, read_labels_file, seconds
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.corpora.prepared_corpus import load_card

LABELS = """\
language: Mandarin
labels: {happy: joy, bored: boredom, calm: neutral, other: null}
levels: [weak, strong]
"""
HEADING = "path,speaker,gender,emotion,intensity"
ROW = "wav/a.wav,s1,f,happy,weak"


def load_recording(out):
    """The only recording of the corpus in ``out``."""
    (recording,) = RecordingSet.from_file(out / "lab_recordings_all.jsonl.gz")
    return recording


@pytest.fixture
def lab(toys, tmp_path):
    """A folder of two clips; ``write`` makes the table and labels.yaml, ``read`` imports them."""

    class Lab:
        root, out = tmp_path / "lab", tmp_path / "out"

        def write(self, *lines, labels=LABELS, table="corpus.csv", encoding="utf-8", ends="\n"):
            for name in ("a", "b"):
                if not (self.root / "wav" / f"{name}.wav").exists():
                    toys.write_wav(self.root / "wav" / f"{name}.wav")
            self.table = self.root / table
            self.table.write_bytes("".join(line + ends for line in lines).encode(encoding))
            (self.root / "labels.yaml").write_text(labels, encoding="utf-8")
            return self

        def read(self, labels=None, check_only=False, **options):
            import_corpus("lab", PrepareRequest(self.table, **options), self.out, labels, check_only)
            if check_only:
                return None
            card = load_card(self.out, "lab")
            return [
                s
                for split in card["splits"]
                for s in SupervisionSet.from_file(self.out / f"lab_supervisions_{split}.jsonl.gz")
            ]

        def refused(self, **options):
            with pytest.raises(InputError) as fault:
                self.read(**options)
            assert not self.out.exists() and str(fault.value).endswith(".")
            return str(fault.value)

    return Lab()


def test_a_line_becomes_a_supervision(lab):
    (found,) = lab.write(HEADING, ROW).read()
    assert (found.id, found.speaker, found.gender, found.language) == ("lab-wav-a", "s1", "F", "Mandarin")
    assert found.custom == {"corpus": "lab", "emotion": "happy", "intensity": "weak", "esc": "joy", "eis": 2.0}


def test_every_column(lab):
    lab.write(
        "utt\tpath\tspeaker\tgender\temotion\tintensity\ttext\tsplit\tsession\ttext_id\tlanguage\tage\troom",
        "one\twav/a.wav\ts1\tFEMALE\thappy\tstrong\tsaid \u3000so\ttrain\t1\t07\tMandarin\t31\t",
        'two\twav/b.wav\ts2\t\tbored\t\t"a ""b"""\ttest\t2\t08\tMandarin\t4.5\t007',
        table="corpus.tsv",
    )
    two, one = lab.read()  # the test part comes first
    assert (one.id, one.gender, one.text) == ("lab-one", "F", "said \u3000so")
    assert one.custom == {
        "corpus": "lab",
        "emotion": "happy",
        "intensity": "strong",
        "esc": "joy",
        "eis": 3.0,
        "split": "train",
        "session": "1",
        "text_id": "07",
        "age": 31,
    }
    assert (two.gender, two.text, two.custom["eis"], two.custom["esc"]) == (None, 'a "b"', 1.5, "disgust")
    assert (two.custom["age"], two.custom["room"]) == (4.5, "007")
    card = load_card(lab.out, "lab")
    assert (card["splits"], card["test_split"], card["language"]) == (["test", "train"], "test", "Mandarin")


@pytest.mark.parametrize("encoding, ends", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-16", "\r\n")])
def test_what_spreadsheets_write(lab, encoding, ends):
    lab.write(HEADING + ",text", ROW + ",你好", ",,,,,", encoding=encoding, ends=ends)
    assert [s.text for s in lab.read()] == ["你好"]


@pytest.mark.parametrize("delimiter, said", [(";", "semicolons"), ("\t", "tabs"), (",", None)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_separators_and_encodings(lab, caplog, delimiter, said, encoding):
    lines = [line.replace(",", delimiter) for line in (HEADING, ROW)]
    (found,) = lab.write(lines[0], lines[1], encoding=encoding, ends="\r\n").read()
    assert (found.id, found.custom["eis"]) == ("lab-wav-a", 2.0)
    assert (f"its fields are separated by {said}" in caplog.text) == (said is not None)
    assert ("no byte order mark" in caplog.text) == (encoding[6:] in ("-le", "-be"))


def test_commas_in_a_table_with_semicolons(lab):
    labels = "language: x\nlabels: {happy: joy}\nscale: [1, 5]\n"
    lines = (
        "sep=;",
        "path;speaker;emotion;text, as said;start;end;intensity",
        "wav/a.wav;s;happy;well, yes, no;0,05;0,15;3,0",
    )
    (found,) = lab.write(*lines, labels=labels).read()
    assert (found.start, found.duration, found.custom["eis"]) == (0.05, pytest.approx(0.1), 2.5)
    assert found.custom["text, as said"] == "well, yes, no"


def test_the_column_file_and_backslashes(lab, caplog):
    (found,) = lab.write("file,speaker,emotion", r"wav\a.wav,s,happy").read()
    assert found.id == "lab-wav-a" and load_recording(lab.out).sources[0].source == str(lab.root / "wav" / "a.wav")
    assert "the column file is taken for path" in caplog.text
    assert "1 paths are written with backslashes" in caplog.text
    lab.write("file,path,speaker,emotion", "x,wav/b.wav,s,happy")
    assert [(s.id, s.custom["file"]) for s in lab.read()] == [("lab-wav-b", "x")]


def test_whole_numbers_as_pandas_writes_them(lab, caplog):
    labels = "language: x\nlabels: {4: joy, 5.0: anger, 06: fear}\nlevels: [1, 2]\n"
    lab.write("path,speaker,emotion,intensity,utt", "wav/a.wav,s,4.0,2.0,1", "wav/a.wav,s,5,1,2", labels=labels)
    assert [(s.custom["emotion"], s.custom["eis"]) for s in lab.read()] == [("4", 3), ("5.0", 2)]
    assert "labels are numbers such as 4.0, read as 4" in caplog.text
    lab.out = lab.root / "new"
    assert "the label '6'" in lab.write("path,speaker,emotion", "wav/a.wav,s,6", labels=labels).refused()


@pytest.mark.parametrize(
    "start, end",
    [("00:00:00.05", "00:00:00.150"), ("0:00:00,050", "0:00:00,15"), ("0 days 00:00:00.05", "0 days 00:00:00.150000")],
)
def test_times_of_the_clock(lab, start, end):
    (found,) = lab.write("path,speaker,emotion,start,end", f'wav/a.wav,s,happy,"{start}","{end}"').read()
    assert (found.start, found.duration) == (0.05, pytest.approx(0.1))


def test_seconds():
    assert seconds("01:02:03.5") == 3723.5 and seconds("2 days 00:00:01") == 172801 and seconds("1e1") == 10
    for text in ("1:30", "00:00:61", "a:b:c", "1,5"):
        with pytest.raises(ValueError, match=text):
            seconds(text)


def test_a_path_made_of_columns_and_an_audio_root(lab, toys):
    toys.write_wav(lab.root / "audio" / "dia0_utt7.wav")
    labels = LABELS + "path_template: dia{Dialogue_ID}_utt{Utterance_ID}.wav\naudio_root: audio\n"
    heading = "Dialogue_ID,Utterance_ID,speaker,emotion"
    (found,) = lab.write(heading, "0,7,s,happy", labels=labels).read()
    assert (found.id, found.custom["Utterance_ID"]) == ("lab-dia0_utt7", 7)
    fault = lab.write(heading, "0,,s,happy", labels=labels).refused
    lab.out = lab.root / "new"
    assert "line 2: the column 'Utterance_ID' is empty" in fault()
    assert (
        "'Dialogue_ID' is not there" in lab.write(heading.replace("Dia", "dia"), "0,7,s,happy", labels=labels).refused()
    )
    (found,) = lab.write(HEADING, ROW.replace("wav/a.wav", "a"), labels=LABELS + "path_template: wav/{path}.wav").read()
    assert found.id == "lab-wav-a"


def test_other_names_of_columns(lab):
    labels = LABELS + "columns: {path: file, emotion: label, speaker: who}\n"
    (found,) = lab.write("label,who,file", "calm,x,wav/b.wav", labels=labels).read()
    assert (found.id, found.speaker, found.custom["esc"], found.custom["eis"]) == ("lab-wav-b", "x", "neutral", 0.0)


def test_labels_are_read_as_they_are_written(lab):
    labels = 'language: x\nlabels: {01: joy, no: anger, 1.0: fear, "null": sadness, ~: null}\nlevels: [1, 2]\n'
    rows = [
        f"wav/a.wav,s,{label},{level},{n}"
        for n, (label, level) in enumerate([("01", "1"), ("no", "2"), ("1.0", "1"), ("null", "2"), ("~", "1")])
    ]
    found = lab.write("path,speaker,emotion,intensity,utt", *rows, labels=labels).read()
    assert [s.custom["esc"] for s in found] == ["joy", "anger", "fear", "sadness"]
    assert [s.custom["eis"] for s in found] == [2, 3, 2, 3]


def test_a_scale(lab):
    labels = "language: English\nlabels: {happy: joy, calm: neutral}\nscale: [1, 5]\n"
    rows = (
        "path,speaker,emotion,intensity,utt",
        "wav/a.wav,s,happy,5,1",
        "wav/a.wav,s,calm,3.0,2",
        "wav/a.wav,s,happy,,3",
    )
    assert [s.custom["eis"] for s in lab.write(*rows, labels=labels).read()] == [4.0, 2.5, -1]
    lab.write(*rows, labels=labels + "neutral_eis: metric\n")
    assert [s.custom["eis"] for s in lab.read()] == [4.0, 0.0, -1]


def test_labels_mapped_to_null_and_missing_ones_are_counted(lab):
    lab.write(HEADING, ROW, "wav/b.wav,s1,f,other,", "wav/b.wav,s1,f,,", "wav/b.wav,s1,f,other,")
    assert len(lab.read()) == 1
    stamp = read_json(lab.out / "stage.json")
    assert (stamp["in"], stamp["out"]) == (4, 1)
    assert stamp["dropped"] == {
        "labels.yaml leaves the label other out": ["lab-wav-b", "lab-wav-b"],
        "no label": ["lab-wav-b"],
    }


SPLIT_TABLE = ("path,speaker,emotion,utt,split", "wav/a.wav,s,happy,1,Train", "wav/a.wav,s,calm,2,Development")
SPLIT_TABLE += ("wav/b.wav,s,happy,3,Test1", "wav/b.wav,s,happy,4,Test2")


def test_split_words_are_mapped_by_labels_yaml(lab):
    labels = LABELS + "splits: {Train: train, Development: dev, Test1: test, Test2: null}\n"
    found = {s.id: s.custom["split"] for s in lab.write(*SPLIT_TABLE, labels=labels).read()}
    assert found == {"lab-1": "train", "lab-2": "dev", "lab-3": "test"}
    card = load_card(lab.out, "lab")
    assert (card["splits"], card["test_split"]) == (["dev", "test", "train"], "test")
    assert read_json(lab.out / "stage.json")["dropped"] == {"labels.yaml leaves the split Test2 out": ["lab-4"]}


def test_other_split_words_are_refused_with_those_seen(lab):
    sentence = lab.write(*SPLIT_TABLE).refused()
    assert "line 2: the split 'Train' is none of train, dev, test" in sentence
    assert "the splits are Development, Test1, Test2, Train" in sentence
    assert "'splits: {Development: dev, Test1: test, Test2: test, Train: train}'" in sentence
    words = lab.write(SPLIT_TABLE[0], "wav/a.wav,s,happy,1,train", "wav/a.wav,s,calm,2,val").refused()
    assert "line 3: the split 'val'" in words and "splits: {val: dev}" in words
    labels = LABELS + "columns: {split: fold}\n"
    words = lab.write("path,speaker,emotion,fold", "wav/a.wav,s,happy,1: a", labels=labels).refused()
    assert 'splits: {"1: a": PART}' in words


def test_missing_audio(lab):
    lab.write(HEADING, ROW, "wav/c.wav,s1,f,happy,")
    assert "line 3: there is no file" in lab.refused() and "--partial true" in lab.refused()
    assert len(lab.read(partial=True)) == 1
    assert read_json(lab.out / "stage.json")["dropped"] == {"audio missing": ["lab-wav-c"]}


def test_all_audio_missing_is_said_with_the_first_file(lab):
    lab.write(HEADING, *(f"wav/{name}.wav,s1,f,happy," for name in "xyz"), "wav/a.wav,s1,f,other,")
    sentence = lab.refused(partial=True)
    assert f"all 3 audio files are missing, the first is {lab.root / 'wav' / 'x.wav'};" in sentence
    assert sentence == lab.refused(partial=True, check_only=True)


def test_all_clips_left_out_is_said_with_the_reasons(lab):
    sentence = lab.write(HEADING, "wav/a.wav,s1,f,other,", "wav/b.wav,s1,f,,").refused()
    assert "all 2 utterances are left out (1 for the reason 'labels.yaml leaves the label other out'" in sentence


def test_leftovers_of_macos_in_a_table_are_counted(lab):
    lab.write(
        HEADING, ROW, "wav/._a.wav,s1,f,happy,", "__MACOSX/wav/b.wav,s1,f,happy,", "wav\\._b.wav,,,,", ".DS_Store,,,x,"
    )
    (lab.root / "wav" / "._a.wav").write_bytes(b"Mac OS X")
    assert len(lab.read()) == 1
    assert read_json(lab.out / "stage.json")["dropped"] == {
        "leftover of macOS, no audio": ["wav/._a.wav", "__MACOSX/wav/b.wav", "wav\\._b.wav", ".DS_Store"]
    }


@pytest.mark.parametrize("in_table, declared", [("NFC", "NFD"), ("NFD", "NFC")])
def test_labels_parts_columns_and_speakers_in_another_unicode_form(lab, in_table, declared):
    """One speaker in two forms would be two, and end up in training and in test."""
    rows = [
        "path,speaker,gender,é,intensity,split",
        "wav/a.wav,Zoë,f,fâché,weak,éval",
        "wav/b.wav,s2,f,fâché,weak,éval",
    ]
    rows = [normalize(in_table, row) for row in rows]
    rows.append(normalize(declared, "wav/a.wav,Zoë,f,fâché,weak,éval").replace("a.wav", "./a.wav"))
    labels = LABELS + "columns: {emotion: é}\nsplits: {éval: test}\n"
    lab.write(*rows, labels=normalize(declared, labels.replace("other: null", "fâché: anger")))
    found = lab.read()
    assert {(s.speaker, s.custom["emotion"], s.custom["split"]) for s in found} == {
        ("Zo\u00eb", "f\u00e2ch\u00e9", "test"),
        ("s2", "f\u00e2ch\u00e9", "test"),
    }
    assert len(found) == 3


@pytest.mark.parametrize("in_table, on_disk", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form_are_found(lab, toys, in_table, on_disk):
    name = "Zoë/é.wav"
    clip = toys.write_wav(lab.root / normalize(on_disk, name))
    (found,) = lab.write(HEADING, ROW.replace("wav/a.wav", normalize(in_table, name))).read()
    assert load_recording(lab.out).sources[0].source == str(clip)
    assert found.id == normalize(in_table, "lab-Zoë-é")


def test_parts_of_a_longer_file(lab):
    lab.write(
        "utt,path,speaker,emotion,start,end",
        "u1,wav/a.wav,s,happy,0,0.1",
        "u2,wav/a.wav,s,calm,0.1,",
        "u3,wav/b.wav,s,calm,,",
    )
    found = {s.id: s for s in lab.read()}
    assert (found["lab-u2"].start, found["lab-u2"].duration) == (0.1, pytest.approx(0.1))
    assert found["lab-u1"].recording_id == found["lab-u2"].recording_id == "lab-wav-a"
    assert found["lab-u3"].recording_id == "lab-u3"


def test_it_is_redone_when_anything_that_it_reads_changed(lab, toys, caplog):
    def again():
        caplog.clear()
        lab.read()
        return "skipped" not in caplog.text

    lab.write(HEADING, ROW)
    assert again() and not again()
    lab.write(HEADING, ROW.replace("happy", "bored"))
    assert again() and not again()
    lab.write(HEADING, ROW.replace("happy", "bored"), labels=LABELS.replace("bored: boredom", "bored: disgust"))
    assert again() and not again()
    toys.write_wav(lab.root / "wav" / "a.wav", 0.3)
    assert again() and not again()


def test_a_check_writes_nothing(lab):
    lab.write(HEADING, ROW)
    import_corpus("lab", PrepareRequest(lab.table), lab.out, check_only=True)
    lab.write(HEADING, ROW, ROW)
    assert "occurs a second time" in lab.refused(check_only=True)


# --- Bad input


@pytest.mark.parametrize(
    "lines, words",
    [
        ((), "line 1: there is no column 'path'"),
        (("path,gender,emotion", "wav/a.wav,f,happy"), "line 1: there is no column 'speaker', which is needed (folds"),
        (("path,speaker", "wav/a.wav,s"), "line 1: there is no column 'emotion', which is needed (labels.yaml names"),
        (("path,speaker,emotion,", "wav/a.wav,s,happy,"), "line 1: the column 4 has no name"),
        (("path,speaker,emotion,path", "wav/a.wav,s,happy,x"), "line 1: the column 'path' occurs a second time"),
        ((HEADING, ROW, "wav/b.wav,s1,f,happy"), "line 3: expected 5 fields, as in the first line, found 4"),
        ((HEADING, ROW + ",x"), "line 2: expected 5 fields, as in the first line, found 6"),
        ((HEADING, "", ROW.replace("happy", "glad")), "line 3: the label 'glad' is not one of labels.yaml's: happy"),
        ((HEADING, ROW.replace("weak", "mild")), "line 2: the level 'mild' is not one of labels.yaml's: weak, strong"),
        ((HEADING, ROW.replace(",f,", ",x,")), "line 2: the gender 'x' is none of F, M"),
        ((HEADING, ROW.replace("s1", " ")), "line 2: the speaker is empty"),
        ((HEADING, ROW.replace("wav/a.wav", "")), "line 2: the path is empty"),
        ((HEADING, ROW, ROW), "line 3: the utterance lab-wav-a occurs a second time, first in"),
        ((HEADING, ROW, "wav/b.wav,s1,m,happy,"), "line 3: the speaker s1 has the gender M, but F in"),
        ((HEADING, '"' + ROW), "line 2: cannot be split into fields"),
        ((HEADING, '"wav/a".wav,s1,f,happy,weak'), "line 2: cannot be split into fields"),
        ((HEADING + ",text", ROW + ',"one', 'two"'), "line 2: cannot be split into fields"),
        ((HEADING, ROW.replace("wav/a.wav", "wav/a\0.wav")), "line 2:"),
        ((HEADING + ",language", ROW + ",English"), "line 2: the language is 'English', in labels.yaml 'Mandarin'"),
        ((HEADING + ",split,utt", ROW + ",train,x", ROW + ",,y"), "line 3: has no split, but others have (train)"),
        ((HEADING + ",start,end", ROW + ",0.2,0.1"), "line 2: the part from 0.2 to 0.1 s is empty"),
        ((HEADING + ",start,end", ROW + ",-1,"), "line 2: the part from -1 s on begins before 0"),
        ((HEADING + ",start,end", ROW + ",x,"), "line 2: 'x' is not a number"),
        ((HEADING + ",start,end", ROW + ",0,9"), "line 2: the segment from 0 to 9 s"),
    ],
)
def test_malformed_tables(lab, lines, words):
    sentence = lab.write(*lines).refused()
    assert str(lab.table) in sentence and words in sentence


@pytest.mark.parametrize(
    "labels, words",
    [
        ("", "line 1: the content of labels.yaml must be written as 'key: value'"),
        ("labels: {}", "line 1: language and labels are needed"),
        ("language: x\nlables: {a: joy}", "line 2: 'lables' is not a key of labels.yaml; they are title, language"),
        ("language: x\nlabels: {happy: glad}", "line 2: 'happy' is mapped to 'glad', which is not an emotion of SEQM"),
        ("language: x\nlabels:\n  happy: joy\n  happy: fear", "line 4: the key 'happy' repeats"),
        ("language: x\nlabels: [happy]", "line 2: labels must be written as 'key: value'"),
        ("language: x\nlabels: {happy: [joy]}", "line 2: what 'happy' means must be one word"),
        ("language: [x]\nlabels: {}", "line 1: language must be one word or one line of text"),
        (LABELS + "scale: [1, 5]", "not by both"),
        (LABELS.replace("[weak, strong]", "weak"), "line 3: levels must be a list"),
        (LABELS.replace("[weak, strong]", "[weak, weak]"), "line 3: a level repeats"),
        (LABELS.replace("[weak, strong]", "[a, b, c, d]"), "line 3: lab: SEQM has gold values for 2 or 3 levels"),
        ("language: x\nlabels: {}\nscale: [1, high]", "line 3: scale must be two numbers"),
        ("language: x\nlabels: {}\nscale: [1, 2, 3]", "line 3: scale must be two numbers"),
        ("language: x\nlabels: {}\nscale: [5, 1]", "line 3: the scale [5.0, 1.0] is not a finite range"),
        (LABELS + "neutral_eis: zero", "line 4: neutral_eis is 'zero', not one of metric, corpus"),
        (LABELS + "has_transcripts: yes", "line 4: has_transcripts is 'yes', not one of true, false"),
        (
            LABELS + "splits: {Train: training}",
            "line 4: the part for the split 'Train' is 'training', not one of train",
        ),
        (LABELS + "splits: [train]", "line 4: splits must be written as 'key: value'"),
        (LABELS + "columns: {emotions: x}", "line 4: 'emotions' is not a column that can be read; they are path"),
        (LABELS + "columns: {path: x, utt: x}", "line 4: the columns path and utt are both named 'x'"),
        (LABELS + "columns: {utt: clip}", "corpus.csv, line 1: there is no column 'clip', which labels.yaml"),
        (LABELS + "columns: {emotion: intensity}", "line 4: the columns emotion and intensity are both named"),
        ("a: b: c", "line 1: is not YAML"),
        ("language: x\nlabels: {a: joy", "is not YAML"),
        ("language: x\n\tlabels: {}", "line 2: is not YAML"),
        ("\0", "line 1: is not YAML"),
        ("[" * 3000, "line 1: is nested too deeply"),
    ],
)
def test_malformed_labels(lab, labels, words):
    sentence = lab.write(HEADING, ROW, labels=labels).refused()
    assert words in sentence and ("labels.yaml, line" in sentence or "corpus.csv, line" in sentence)


def test_files_that_are_not_there_or_no_table(lab, tmp_path):
    lab.write(HEADING, ROW)
    (lab.root / "labels.yaml").unlink()
    assert f"{lab.root / 'labels.yaml'}: there is no such file" in lab.refused()
    assert "nowhere.yaml: there is no such file" in lab.refused(labels=tmp_path / "nowhere.yaml")
    (lab.root / "labels.yaml").write_bytes("language: x\nlabels: {é: joy}".encode("latin-1"))
    assert "labels.yaml, line 2: is not UTF-8" in lab.refused()
    lab.write(HEADING, ROW.replace("s1", "é"), encoding="latin-1")
    assert "corpus.csv, line 2: is not" in lab.refused()
    lab.write(HEADING, ROW, table="corpus.xlsx")
    assert "is neither a .csv" in lab.refused()
    for source, words in ((tmp_path / "none", "there is neither"), (lab.root, "holds no wav.scp")):
        with pytest.raises(InputError, match=words):
            import_corpus("lab", PrepareRequest(source), lab.out)
    for name in ("Lab", "a-b", "", "../x"):
        with pytest.raises(InputError, match="is no name for a corpus"):
            import_corpus(name, PrepareRequest(lab.table), lab.out)


def test_a_column_of_the_metric_is_not_taken_for_the_metric(lab, caplog):
    (found,) = lab.write(HEADING + ",eis,corpus", ROW + ",4,other").read()
    assert (found.custom["eis"], found.custom["corpus"]) == (2.0, "lab")
    assert "the column corpus is not read" in caplog.text


def test_genders():
    assert [gender(text) for text in ("F", "f", "Female", "M", "male", "")] == ["F", "F", "F", "M", "M", None]
    with pytest.raises(ValueError, match="'woman'"):
        gender("woman")


FEW_SHARED = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
NEAR_TABLES = st.lists(
    st.lists(
        st.sampled_from(
            [
                "path",
                "speaker",
                "emotion",
                "gender",
                "wav/a.wav",
                "s1",
                "happy",
                "other",
                "f",
                "weak",
                '"',
                "",
                "start",
                "0.05",
                "utt",
                "\ufeff",
                "x\r",
                "1e999",
            ]
        ),
        max_size=5,
    ).map(",".join),
    max_size=5,
).map("\n".join)


@FEW_SHARED
@given(text=st.one_of(st.text(), NEAR_TABLES, NEAR_TABLES.map(lambda rows: f"{HEADING}\n{rows}")))
def test_no_text_of_a_table_fails_with_anything_but_a_sentence(lab, text):
    lab.write(HEADING, ROW).table.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        import_corpus("lab", PrepareRequest(lab.table), lab.out, check_only=True)
    except InputError as fault:
        assert f"{lab.table}" in str(fault) and (", line " in str(fault) or "no utterance was found" in str(fault))


NEAR_LABELS = st.lists(
    st.sampled_from(
        [
            "language: x",
            "labels:",
            " a: joy",
            "labels: {a: joy}",
            "levels: [a, b]",
            "scale: [1, 5]",
            "scale: 1",
            "columns: {utt: x}",
            "- a",
            "? [x]",
            "*a",
            "&a",
            "<<: {a: b}",
            "neutral_eis: metric",
            "!!python/x y",
            "---",
            "...",
            "labels: {[a]: joy}",
            "title: |\n  a\n  b",
        ]
    ),
    max_size=5,
).map("\n".join)


@FEW_SHARED
@given(text=st.one_of(st.text(), NEAR_LABELS))
def test_no_text_of_labels_fails_with_anything_but_a_sentence(lab, text):
    path = lab.write(HEADING, ROW).root / "labels.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_labels_file(path, "lab", "a layout", ("path", "utt"))
    except InputError as fault:
        assert str(fault).startswith(f"{path}, line ")


# --- There and back


def facts_of(folder, name):
    """What a round trip must keep, by utterance."""
    found = {}
    for split in load_card(folder, name)["splits"]:
        for s in SupervisionSet.from_file(folder / f"{name}_supervisions_{split}.jsonl.gz"):
            found[s.id] = (s.speaker, s.gender, s.text, s.language, s.start, s.duration, s.custom)
    return found


MADE = Corpus(
    "made",
    "The made one",
    "English",
    "DIR/*.wav",
    labels={"hot": "rage", "calm": "neutral", "no": "joy"},
    scale=(0, 10),
    neutral_eis="metric",
    splits=("train", "dev", "test"),
    test_split="test",
    has_transcripts=True,
)


@pytest.fixture
def made(toys, tmp_path):
    whole, long = toys.write_wav(tmp_path / "c" / "a b.wav"), toys.write_wav(tmp_path / "c" / "long.wav", 0.5)
    utterances = [
        Utterance("made-1", whole, "s1", "F", 'says "it",\tso', "hot", intensity=2.5, split="train", extra={"age": 31}),
        Utterance(
            "made-2",
            long,
            "s 2",
            None,
            "",
            "calm",
            intensity=5.0,
            split="dev",
            start=0.1,
            end=0.3,
            recording="made-long",
            session="1",
            text_id="01",
        ),
        Utterance(
            "made-3",
            long,
            "s 2",
            None,
            "你好",
            "no",
            split="test",
            start=0.25,
            recording="made-long",
            extra={"valence": 0.125, "code": "007", "tiny": 1e-7},
        ),
    ]
    prepare_corpus(MADE, lambda *_: utterances, PrepareRequest(tmp_path / "c"), tmp_path / "manifests")
    return tmp_path / "manifests"


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_there_and_back(made, suffix, tmp_path):
    table = tmp_path / "table" / f"made.{suffix}"
    export_corpus(made, table)
    import_corpus("made", PrepareRequest(table), tmp_path / "back")
    before, after = facts_of(made, "made"), facts_of(tmp_path / "back", "made")
    before["made-1"] = (*before["made-1"][:2], 'says "it", so', *before["made-1"][3:])  # texts become one line
    assert before == after
    cards = [load_card(folder, "made") for folder in (made, tmp_path / "back")]
    assert cards[0] == cards[1]
    with pytest.raises(InputError, match="is there already"):
        export_corpus(made, table)


def test_the_real_clips_there_and_back(samples, prepare, tmp_path):
    for name in ("casia", "ravdess", "emodb"):
        assert prepare(name, samples(name.upper()), tmp_path / name) == 0
        export_corpus(tmp_path / name, tmp_path / f"{name}-table" / "corpus.tsv")
        import_corpus(name, PrepareRequest(tmp_path / f"{name}-table" / "corpus.tsv"), tmp_path / f"{name}-back")
        assert facts_of(tmp_path / name, name) == facts_of(tmp_path / f"{name}-back", name)

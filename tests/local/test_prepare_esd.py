"""prepare_esd.py: two corpora from one folder, both layouts, every encoding of the tables, and what it refuses."""

import re
import shutil
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import Drops

FIRST = {"Neutral": 1, "Angry": 351, "Happy": 701, "Sad": 1051, "Surprise": 1401}
SEQM = {"Neutral": "neutral", "Angry": "anger", "Happy": "joy", "Sad": "sadness", "Surprise": "surprise"}
CHINESE = {"Neutral": "中立", "Angry": "生气", "Happy": "快乐", "Sad": "伤心", "Surprise": "惊喜"}
# the last development, the first test and the first training sentence
FOLDER_OF = {20: "evaluation", 21: "test", 51: "train"}
SPLIT_OF = {20: "dev", 21: "test", 51: "train"}
SPEAKERS = ("0001", "0004", "0015", "0020")


def text_of(speaker, sentence):
    return f"今天是第{sentence}天，很好。" if speaker < "0011" else f"It’s day {sentence}, quite fine."


def write_table(folder, speaker, encoding="utf-8", numbers=None, ends="\n"):
    numbers = numbers or [first + sentence - 1 for first in FIRST.values() for sentence in FOLDER_OF]
    lines = []
    for number in numbers:
        label = list(FIRST)[(number - 1) // 350]
        written = CHINESE[label] if speaker < "0011" else label
        lines.append(f"{speaker}_{number:06d}\t{text_of(speaker, (number - 1) % 350 + 1)}\t{written}{ends}")
    (folder / speaker).mkdir(parents=True, exist_ok=True)
    (folder / speaker / f"{speaker}.txt").write_bytes("".join(lines).encode(encoding))


def make_esd(toys, folder, layout="folders", speakers=SPEAKERS):
    """Three clips of each speaker and emotion; ``layout`` is folders, flat or mixed (sentence 51 outside them)."""
    for speaker in speakers:
        for label, first in FIRST.items():
            for sentence, part in FOLDER_OF.items():
                place = folder / speaker / label
                if layout == "folders" or layout == "mixed" and sentence != 51:
                    place = place / part
                toys.write_wav(place / f"{speaker}_{first + sentence - 1:06d}.wav", 0.05)
        write_table(folder, speaker)
    return folder


@pytest.fixture
def esd(toys, tmp_path):
    return make_esd(toys, tmp_path / "ESD")


@pytest.fixture(scope="module")
def script(toys):
    return toys.script("esd")


def supervisions_of(folder, corpus):
    supervisions = []
    for split in ("train", "dev", "test"):
        part = read_manifests(folder, corpus, split).values()
        assert {s.custom["split"] for s in part} == {split}
        supervisions += part
    return supervisions


@pytest.mark.parametrize("layout", ["folders", "flat", "mixed"])
@pytest.mark.parametrize(
    "corpus, language, genders",
    [("esd_zh", "Mandarin", {"0001": "F", "0004": "M"}), ("esd_en", "English", {"0015": "F", "0020": "M"})],
)
def test_the_contract_of_the_manifests(prepare, toys, tmp_path, corpus, language, genders, layout):
    folder = make_esd(toys, tmp_path / "ESD", layout)
    assert prepare(corpus, folder, tmp_path / "out", *PARTIAL) == 0
    supervisions = supervisions_of(tmp_path / "out", corpus)
    assert len(supervisions) == 2 * 5 * 3
    for s in supervisions:
        speaker, number = re.fullmatch(r"esd-(\d{4})_(\d{6})", s.id).groups()
        label = list(FIRST)[(int(number) - 1) // 350]
        sentence = int(number) - FIRST[label] + 1
        assert (s.speaker, s.gender, s.language) == (speaker, genders[speaker], language)
        assert s.text == text_of(speaker, sentence)
        assert (s.custom["corpus"], s.custom["emotion"], s.custom["esc"]) == (corpus, label, SEQM[label])
        assert (s.custom["split"], s.custom["text_id"]) == (SPLIT_OF[sentence], str(sentence))
        assert (s.custom["intensity"], s.custom["eis"]) == (None, -1) and "eis_of_corpus" not in s.custom
    card = read_json(tmp_path / "out" / f"{corpus}_card.json")
    assert card["test_split"] == "test" and card["counts"]["eis"] == {"-1.0": 30} and not card["has_transcripts"]


@pytest.mark.parametrize("part, flat", [("zh", False), ("en", True)])
def test_a_whole_copy_has_the_official_counts(script, tmp_path, part, flat):
    corpus, find = script.PARTS[part]
    for speaker in corpus.count_by["speaker"]:
        for label, first in FIRST.items():
            for name in ("evaluation", "test", "train"):
                (tmp_path / speaker / label / name).mkdir(parents=True)
            for sentence in range(1, 351):
                folder = "" if flat else "evaluation" if sentence < 21 else "test" if sentence < 51 else "train"
                (tmp_path / speaker / label / folder / f"{speaker}_{first + sentence - 1:06d}.wav").touch()
    found = list(find(tmp_path, False, Drops()))
    assert len(found) == corpus.counts["the only release"] == 17500
    assert Counter(utterance.label for utterance in found) == corpus.count_by["label"]
    assert Counter(utterance.split for utterance in found) == corpus.count_by["split"]
    assert Counter(utterance.speaker for utterance in found) == corpus.count_by["speaker"]
    without_surprise = Counter(utterance.split for utterance in found if utterance.label != "Surprise")
    assert without_surprise == {"train": 12000, "dev": 800, "test": 1200}
    assert set(Counter(utterance.text_id for utterance in found).values()) == {50}
    men = {utterance.speaker for utterance in found if utterance.gender == "M"}
    assert men == set(
        ["0004", "0005", "0006", "0008", "0010"] if part == "zh" else ["0011", "0012", "0013", "0014", "0020"]
    )


def test_the_official_count_is_asked_for_unless_the_copy_may_be_partial(refused, esd):
    sentence = refused("esd_zh", esd)
    assert "30 utterances found, ESD (Mandarin) has 17500" in sentence and "--partial true" in sentence


def test_a_copy_of_one_part_serves_that_part_only(prepare, refused, toys, tmp_path):
    folder = make_esd(toys, tmp_path / "ESD", speakers=("0016",))
    assert prepare("esd_en", folder, tmp_path / "out", *PARTIAL) == 0
    assert "no utterance was found" in refused("esd_zh", folder, *PARTIAL)


# --- The tables of texts


@pytest.mark.parametrize(
    "speaker, encoding",
    [
        ("0001", "gb2312"),
        ("0001", "gb18030"),
        ("0001", "utf-16"),
        ("0001", "utf-8"),
        ("0001", "utf-8-sig"),
        ("0015", "gb2312"),
        ("0015", "utf-16"),
        ("0015", "utf-8"),
        ("0015", "utf-8-sig"),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n", " \t\r\n"])
def test_every_encoding_and_line_end(script, tmp_path, speaker, encoding, ends):
    write_table(tmp_path, speaker, encoding, [1, 351, 1750], ends)
    language = "Mandarin" if speaker == "0001" else "English"
    rows = script.read_table(tmp_path / speaker / f"{speaker}.txt", script.ENCODINGS[language])
    assert rows == {
        f"{speaker}_000001": (text_of(speaker, 1), "Neutral"),
        f"{speaker}_000351": (text_of(speaker, 1), "Angry"),
        f"{speaker}_001750": (text_of(speaker, 350), "Surprise"),
    }


def test_latin_1_is_the_last_resort_of_english_tables_alone(script, tmp_path):
    path = tmp_path / "0016.txt"
    path.write_bytes("0016_000001\tThe café is open.\tNeutral\n".encode("latin-1"))
    assert script.read_table(path, script.ENCODINGS["English"])["0016_000001"] == ("The café is open.", "Neutral")
    path.write_bytes("0001_000001\t你好\t中立\n0001_000002\t".encode("gb18030") + b"\xff\xff\t\n")
    with pytest.raises(InputError, match=r"0016\.txt, line 2: is not UTF-16 or UTF-8 or GB18030"):
        script.read_table(path, script.ENCODINGS["Mandarin"])


# Each line checked by hand against the shapes that the tables have.
LINES = [
    ("0001_000001\t今天天气很好，\t中立", "今天天气很好，", "Neutral"),
    ("0001_000351\t今天天气很好，\t生气", "今天天气很好，", "Angry"),
    ("0001_000701\t他说过“明天见”。\t快乐", "他说过“明天见”。", "Happy"),
    ("0001_001051\t我们走吧，哇！太好了。\t伤心", "我们走吧，哇！太好了。", "Sad"),
    ("0001_001401\t真的吗？\t惊喜", "真的吗？", "Surprise"),
    ("0002_001750 真的吗？ 惊喜", "真的吗？", "Surprise"),
    ("0011_000351\tEight are the eggs, I think.\tAngry", "Eight are the eggs, I think.", "Angry"),
    ("0015_000217 Your letter came too late !\tNeutral", "Your letter came too late !", "Neutral"),
    ("0012_001355 The baker and his son see us every day. Sad", "The baker and his son see us every day.", "Sad"),
    ("0013_000914\tWhat about this one, sticky! Happy", "What about this one, sticky!", "Happy"),
    ("0014_001590\tThey were sandy\tand brown all over.\tSurprise ", "They were sandy and brown all over.", "Surprise"),
    ("0017_000700\t Two  blanks inside.\t Angry", "Two blanks inside.", "Angry"),
    ("0019_000002\tHe was not Happy.", "He was not Happy.", ""),
    ("0019_000003\t\tNeutral", "", "Neutral"),
    ("0019_000004\tSlow down.\tCross", "Slow down.", "Cross"),
    ("0019_000005", "", ""),
]


@pytest.mark.parametrize("line, text, label", LINES)
def test_lines_of_every_shape(script, tmp_path, line, text, label):
    path = tmp_path / "table.txt"
    path.write_text(line, encoding="utf-8")
    assert script.read_table(path, ("utf-8",)) == {line[:11]: (text, label)}


@pytest.mark.parametrize(
    "line",
    [
        "0001_351\t你好\t中立",
        "你好\t中立",
        "0001-000351\t你好\t中立",
        "0001_000351你好\t中立",
        "٠٠٠١_٠٠٠٣٥١\t你好\t中立",
        "1,2,3",
    ],
)
def test_lines_without_an_id_name_file_and_line(refused, esd, line):
    table = esd / "0001" / "0001.txt"
    table.write_text(table.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    sentence = refused("esd_zh", esd, *PARTIAL)
    assert sentence.startswith(f"{table}, line 16: expected '<speaker>_<number> <text> <label>'")


TEXTS = st.text() | st.lists(
    st.tuples(
        st.from_regex(r"[0-9]{4}_[0-9]{6}", fullmatch=True),
        st.sampled_from(" \t"),
        st.text(max_size=9),
        st.sampled_from(["\tAngry", " Angry", "\t中立", "", "\t", " \r"]),
    ).map("".join),
    max_size=4,
).map("\n".join)


@settings(max_examples=150)
@given(
    content=st.binary()
    | st.tuples(TEXTS, st.sampled_from(["utf-8", "utf-16", "gb18030"])).map(lambda pair: pair[0].encode(pair[1])),
    language=st.sampled_from(["Mandarin", "English"]),
)
@example(content=b"0000_000000 x\ta\rb", language="English")
def test_no_content_makes_a_table_fail_but_with_a_sentence(script, tmp_path_factory, content, language):
    path = tmp_path_factory.getbasetemp() / "esd-table.txt"
    path.write_bytes(content)
    try:
        rows = script.read_table(path, script.ENCODINGS[language])
    except InputError as error:
        assert re.fullmatch(re.escape(str(path)) + r", line \d+: [^\n\r]+\.", str(error))
    else:
        assert all(script.CLIP.fullmatch(name) for name in rows)
        assert not any(re.search(r"[\t\r\n]", part) for row in rows.values() for part in row)


def test_two_texts_of_one_clip_are_none(script, tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(
        "0011_000001\tOne.\tNeutral\n0011_000001\tTwo.\tNeutral\n0011_000002\tSame.\tSad\n0011_000002 Same. Sad\n"
    )
    assert script.read_table(path, ("utf-8",)) == {"0011_000001": ("", "Neutral"), "0011_000002": ("Same.", "Sad")}


def test_what_is_odd_in_a_table_is_counted_and_changes_no_label(prepare, esd, tmp_path, capsys):
    table = esd / "0015" / "0015.txt"
    lines = table.read_text(encoding="utf-8").splitlines(True)
    lines[0] = lines[0].replace("Neutral", "Angry")  # 0015_000020
    lines[1] = lines[1].rpartition("\t")[0] + "\n"  # 0015_000021
    lines[2] = lines[2].replace("000051", "000052")  # a line without a clip, a clip without a line
    table.write_text("".join(lines), encoding="utf-8")
    (esd / "0020" / "0020.txt").unlink()
    assert prepare("esd_en", esd, tmp_path / "out", *PARTIAL) == 0
    shown = capsys.readouterr().err
    for words in (
        "16 clips without a text in their speaker's table (0015_000051, 0020_000370, 0020_000371, ...)",
        "2 clips with another label or none in the table: their folder's is taken (0015_000020, 0015_000021)",
        "1 lines of the tables without a clip (0015_000052)",
    ):
        assert f"ESD (English): {words}" in shown
    supervisions = {s.id: s for s in supervisions_of(tmp_path / "out", "esd_en")}
    assert len(supervisions) == 30
    assert supervisions["esd-0015_000020"].custom["emotion"] == "Neutral"
    assert supervisions["esd-0015_000021"].text == text_of("0015", 21)
    assert supervisions["esd-0015_000051"].text == supervisions["esd-0020_000020"].text == ""


def test_a_whole_table_says_nothing(prepare, esd, tmp_path, capsys):
    assert prepare("esd_zh", esd, tmp_path / "out", *PARTIAL) == 0
    assert "without a" not in capsys.readouterr().err


# --- Folders and names


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("0001/Sad/train/0001_001101", "0001/Sad/train/0001_1101", "is not named <speaker>_<number"),
        ("0001/Sad/train/0001_001101", "0001/Sad/train/take 2", "is not named <speaker>_<number"),
        ("0001/Sad/train/0001_001101", "0001/Sad/train/0002_001101", "is named after another speaker than 0001"),
        ("0001/Sad/train/0001_001101", "0001/Angry/train/0001_001101", "is no clip of Angry, which are 351 to 700"),
        ("0001/Sad/train/0001_001101", "0001/Sad/train/0001_001401", "is no clip of Sad, which are 1051 to 1400"),
        ("0001/Sad/train/0001_001101", "0001/Sad/train/0001_001050", "is no clip of Sad"),
        ("0001/Neutral/train/0001_000051", "0001/Neutral/train/0001_000000", "is no clip of Neutral"),
        ("0001/Surprise/train/0001_001451", "0001/Surprise/train/0001_001751", "is no clip of Surprise"),
        ("0001/Sad/train/0001_001101", "0001/Sad/test/0001_001101", "belongs by its number to train"),
        ("0001/Sad/test/0001_001071", "0001/Sad/evaluation/0001_001071", "belongs by its number to test"),
        ("0001/Sad/evaluation/0001_001070", "0001/Sad/train/0001_001070", "belongs by its number to evaluation"),
    ],
)
def test_clips_out_of_place(refused, esd, old, new, words):
    clip = esd / f"{new}.wav"
    (esd / f"{old}.wav").rename(clip)
    sentence = refused("esd_zh", esd, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_a_clip_in_both_layouts_names_both(refused, esd):
    clip = esd / "0001" / "Sad" / "train" / "0001_001101.wav"
    shutil.copy(clip, clip.parent.parent)
    sentence = refused("esd_zh", esd, *PARTIAL)
    assert "second time" in sentence and str(clip) in sentence and str(clip.parent.parent / clip.name) in sentence


@pytest.mark.parametrize(
    "folder, words",
    [
        ("0021", "is not a speaker of ESD"),
        ("0001/Bored", "is not an emotion of ESD (Neutral, Angry"),
        ("0001/Sad/dev", "is none of evaluation, test, train"),
    ],
)
def test_folders_that_are_no_part_of_it(refused, esd, folder, words):
    (esd / folder).mkdir()
    sentence = refused("esd_zh", esd, *PARTIAL)
    assert sentence.startswith(f"{esd / folder}: ") and words in sentence


def test_folders_that_are_missing_empty_too_high_too_low_or_no_folder(refused, esd, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "0001").mkdir(parents=True)
    assert "there is no such folder" in refused("esd_en", tmp_path / "missing", *PARTIAL)
    assert "the folder is empty" in refused("esd_en", tmp_path / "empty", *PARTIAL)
    assert "does not look like ESD (English)" in refused("esd_en", tmp_path / "other", *PARTIAL)
    assert "is a file" in refused("esd_en", esd / "0001" / "0001.txt", *PARTIAL)
    sentence = refused("esd_en", tmp_path, *PARTIAL)
    assert "one level too high" in sentence and f"give {esd} instead" in sentence
    for inside in ("0001", "0001/Sad", "0001/Sad/train"):
        sentence = refused("esd_en", esd / inside, *PARTIAL)
        assert "too low" in sentence and f"give {esd} instead" in sentence


def test_audio_that_cannot_be_used(refused, esd):
    clip = esd / "0001" / "Sad" / "train" / "0001_001101.wav"
    for content, words in (
        (b"", "the file is empty"),
        (b"RIFF and so on" * 9, "is not audio"),
        (clip.read_bytes()[:-100], "is truncated"),
    ):
        clip.write_bytes(content)
        sentence = refused("esd_zh", esd, *PARTIAL)
        assert sentence.startswith(f"{clip}: ") and words in sentence


def test_a_part_has_to_be_named(script, esd, tmp_path, capsys):
    from speecheq.corpora.prep_script import main

    for given_options in ((), ("--part", "fr")):
        capsys.readouterr()
        assert main(script.PARTS, [str(esd), str(tmp_path / "out"), *given_options]) == 1
        assert "--part" in capsys.readouterr().err

"""The layouts of the mini corpora, written out by hand from the official descriptions."""

import csv
import itertools
import re
from collections import Counter, defaultdict

import pytest
import soundfile

from speecheq.corpora.synthetic import SIZES
from speecheq.corpora.synthetic.mandarin import CASIA_SPEAKERS
from speecheq.seqm import CATEGORIES, EMOTIONS, LEVELS


def clips(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".wav", ".flac")}


@pytest.fixture(params=SIZES)
def folder_of(request, nano, mini):
    """``folder_of(corpus)`` in either size."""
    return lambda corpus: (nano[corpus] if request.param == "nano" else mini(corpus))[0]


def test_casia_layout(nano):
    folder, counts = nano["casia"]
    wanted = {
        f"casia/{speaker}/{emotion}/{number}.wav"
        for speaker in ("liuchanhg", "wangzhe", "zhaoquanyin", "ZhaoZuoxiang")
        for emotion in ("angry", "fear", "happy", "neutral", "sad", "surprise")
        for number in (201, 202, 203)
    }
    assert clips(folder) == wanted
    assert counts == {"speakers": 4, "emotions": 6, "texts": 3, "clips": 72}
    assert {speaker.name for speaker in CASIA_SPEAKERS if speaker.gender == "M"} == {"wangzhe", "ZhaoZuoxiang"}


def test_aishell_layout(nano):
    folder, counts = nano["aishell"]
    assert counts == {"speakers": 5, "train": 18, "dev": 4, "test": 4, "clips": 26}
    lines = (folder / "data_aishell/transcript/aishell_transcript_v0.8.txt").read_text(encoding="utf-8").splitlines()
    texts = dict(line.split(" ", 1) for line in lines)
    assert len(texts) == len(lines) == len(set(texts.values())) == 26
    for words in texts.values():
        assert len(words.split(" ")) == 4
        assert all("\u4e00" <= character <= "\u9fff" for word in words.split(" ") for character in word)
    parts = Counter()
    for name in clips(folder):
        data, wav, part, speaker, file = name.split("/")
        assert (data, wav) == ("data_aishell", "wav")
        assert file[:-4] in texts and file.startswith(f"BAC009{speaker}W") and len(file) == len("BAC009S0002W0122.wav")
        parts[part] += 1
    assert parts == {"train": 18, "dev": 4, "test": 4}
    info = (folder / "resource_aishell/speaker.info").read_text().splitlines()
    assert info == ["0002 F", "0003 M", "0004 F", "0724 F", "0764 M"]


@pytest.mark.parametrize("size", SIZES)
def test_seqd_layout(nano, mini, size):
    folder = mini("seqd")[0] if size == "mini" else nano["seqd"][0]
    with open(folder / "labels.tsv", encoding="utf-8") as labels:
        rows = list(csv.DictReader(labels, delimiter="\t"))
    assert list(rows[0]) == ["utt", "speaker", "gender", "emotion", "category", "level", "split", "text"]
    assert clips(folder) == {f"wav/{row['speaker']}/{row['utt']}.wav" for row in rows}
    assert Counter(row["emotion"] for row in rows) == dict.fromkeys(EMOTIONS, 8 if size == "mini" else 3)
    for row in rows:
        emotion = EMOTIONS[row["emotion"]]
        assert (row["category"], row["level"]) == (emotion.category, emotion.level or "-")
    assert Counter(gender for _, gender in {(row["speaker"], row["gender"]) for row in rows}) == {"F": 2, "M": 2}
    test = [row for row in rows if row["split"] == "test"]
    assert {row["split"] for row in rows} == {"train", "test"} and 0.10 <= len(test) / len(rows) <= 0.15
    assert {row["category"] for row in test} == set(CATEGORIES)
    assert {row["level"] for row in test} == {"-", *LEVELS}
    assert {row["emotion"] for row in rows if row["split"] == "train"} == set(EMOTIONS)
    assert {row["gender"] for row in test} == {"F", "M"}


# --- ESD

ESD_ENCODINGS = {  # of the release
    "0001": "gb2312", "0003": "utf-16", "0004": "gb2312", "0006": "utf-16",
    "0011": "utf-8", "0012": "utf-16", "0015": "utf-8", "0016": "latin-1",
}  # fmt: skip
ESD_FIRST_IDS = {"Neutral": 1, "Angry": 351, "Happy": 701, "Sad": 1051, "Surprise": 1401}
ESD_MANDARIN = {"Neutral": "中立", "Angry": "生气", "Happy": "快乐", "Sad": "伤心", "Surprise": "惊喜"}


def test_esd_ids_lie_in_the_ranges_of_their_emotion_and_part(folder_of):
    folder, found, both_layouts = folder_of("esd"), defaultdict(set), set()
    for name in clips(folder):
        speaker, emotion, *part, file = name.split("/")
        assert file[:5] == f"{speaker}_" and re.fullmatch(r"[0-9]{6}\.wav", file[5:])
        number = int(file[5:-4]) - ESD_FIRST_IDS[emotion] + 1
        derived = "evaluation" if 1 <= number <= 20 else "test" if 21 <= number <= 50 else "train"
        assert 1 <= number <= 350 and part in ([], [derived])
        both_layouts.add((speaker > "0010", bool(part)))
        found[speaker, emotion].add(derived)
    assert both_layouts == set(itertools.product((False, True), (False, True)))
    assert set(found) == set(itertools.product(ESD_ENCODINGS, ESD_FIRST_IDS))
    assert all(parts == {"evaluation", "test", "train"} for parts in found.values())


def test_esd_tables_have_four_encodings_and_two_separators(folder_of):
    folder, separators, texts = folder_of("esd"), set(), defaultdict(set)
    for speaker, encoding in ESD_ENCODINGS.items():
        table = (folder / speaker / f"{speaker}.txt").read_bytes()
        assert (table[:2] in (b"\xff\xfe", b"\xfe\xff")) == (encoding == "utf-16")
        if encoding in ("gb2312", "latin-1"):
            with pytest.raises(UnicodeDecodeError):
                table.decode()
        ids = []
        for line in table.decode(encoding).splitlines():
            separator = "\t" if "\t" in line else "  "
            separators.add(separator)
            utterance, text, label = line.split(separator)
            number, order = int(utterance[5:]) % 350, (int(utterance[5:]) - 1) // 350
            emotion = list(ESD_FIRST_IDS)[order]
            assert label == (ESD_MANDARIN[emotion] if speaker <= "0010" else emotion)
            texts[speaker > "0010", number].add(text)
            ids.append(utterance)
        assert ids == sorted(ids)
        assert set(ids) == {name[-15:-4] for name in clips(folder / speaker)}
    assert separators == {"\t", "  "}
    assert all(len(same) == 1 for same in texts.values()), "parallel"
    assert sum(english for english, _ in texts) >= 5 <= sum(not english for english, _ in texts), "for disjoint texts"


# --- RAVDESS, CREMA-D, EMODB


def test_ravdess_names_have_all_fields(folder_of):
    folder, by_actor, stereo = folder_of("ravdess"), defaultdict(Counter), []
    for name in clips(folder):
        audio, actor_folder, file = name.split("/")
        assert audio == "Audio_Speech_Actors_01-24"
        assert re.fullmatch(r"03-01-0[1-8]-0[12]-0[12]-0[12]-[0-2][0-9]\.wav", file)
        emotion, intensity, actor = file[6:8], file[9:11], file[18:20]
        assert actor_folder == f"Actor_{actor}"
        assert emotion != "01" or intensity == "01", "neutral has no strong intensity"
        by_actor[actor][emotion, intensity] += 1
        info = soundfile.info(str(folder / name))
        assert info.samplerate == 48000
        stereo += [name] * (info.channels == 2)
    kinds = {("01", "01")} | set(itertools.product(("02", "03", "04", "05", "06", "07", "08"), ("01", "02")))
    assert all(set(counts) == kinds for counts in by_actor.values())
    assert sum(int(actor) % 2 for actor in by_actor) >= 2 <= sum(int(actor) % 2 == 0 for actor in by_actor)
    assert len(stereo) == 1 and "Actor_01" in stereo[0]


def test_crema_d_grades_the_sentence_ieo_alone(folder_of):
    folder, levels, sentences = folder_of("crema_d"), defaultdict(set), set()
    with open(folder / "VideoDemographics.csv", encoding="utf-8") as table:
        actors = {row["ActorID"]: row for row in csv.DictReader(table)}
    assert Counter(row["Sex"] for row in actors.values()).keys() == {"Male", "Female"}
    assert min(Counter(row["Sex"] for row in actors.values()).values()) >= 2
    assert all(row["Age"].isdigit() for row in actors.values())
    for name in clips(folder):
        audio, file = name.split("/")
        actor, sentence, emotion, level = file[:-4].split("_")
        assert audio == "AudioWAV" and actor in actors and emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
        assert level in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
        levels[emotion].add(level)
        sentences.add(sentence)
    assert all(levels[emotion] == ({"XX"} if emotion == "NEU" else {"LO", "MD", "HI", "XX"}) for emotion in levels)
    assert len(levels) == 6 and len(sentences) >= 5
    assert sentences <= {"IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI"}


def test_emodb_names_hold_official_speakers_sentences_and_letters(folder_of):
    folder, letters, sentences = folder_of("emodb"), defaultdict(set), set()
    for name in clips(folder):
        speaker, sentence, letter = re.fullmatch(r"wav/([0-9]{2})([ab][0-9]{2})([WLEAFTN])a\.wav", name).groups()
        letters[speaker].add(letter)
        sentences.add(sentence)
    assert sum(speaker in ("03", "10", "11", "12", "15") for speaker in letters) >= 2
    assert sum(speaker in ("08", "09", "13", "14", "16") for speaker in letters) >= 2
    assert all(of_speaker == set("WLEAFTN") for of_speaker in letters.values())
    assert len(sentences) >= 5 and sentences <= {"a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10"}


# --- IEMOCAP, MSP-IMPROV


def test_iemocap_evaluations_transcriptions_and_clips_agree(folder_of):
    folder, labels, odd = folder_of("iemocap"), defaultdict(set), Counter()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {f"Session{n}" for n in range(1, 6)}
    for session in range(1, 6):
        dialogs = folder / f"Session{session}" / "dialog"
        evaluated, spoken, speakers_of_dialog = set(), set(), defaultdict(set)
        for path in dialogs.glob("EmoEvaluation/Ses*.txt"):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert lines[0] == "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]" and lines[1] == ""
            kinds = Counter(line[:2] for line in lines)
            assert kinds["C-"] == 2 * kinds["A-"] > 0
            for line in (line for line in lines if line.startswith("[")):
                time, utterance, label, values = line.split("\t")
                assert re.fullmatch(r"\[[0-9]+\.[0-9]{4} - [0-9]+\.[0-9]{4}\]", time)
                assert re.fullmatch(rf"{path.stem}_[FM][0-9]{{3}}", utterance)
                assert re.fullmatch(r"\[[0-9.]{6}(, [0-9.]{6}){1,2}\]", values)
                values = [float(value) for value in values[1:-1].split(", ")]
                odd[label] += label in ("xxx", "fru")
                odd["missing"] += len(values) == 2
                odd["outside"] += len(values) == 3 and not 1 <= values[2] <= 5
                assert len(values) == 2 or values[2] == 0.5 or 1 <= values[2] <= 5
                evaluated.add(f"sentences/wav/{path.stem}/{utterance}.wav")
                labels[session, utterance[-4]].add({"hap": "joy", "exc": "joy"}.get(label, label))
                speakers_of_dialog[path.stem].add(utterance[-4])
            for line in (dialogs / "transcriptions" / path.name).read_text(encoding="utf-8").splitlines():
                match = re.fullmatch(rf"({path.stem}_[FM][0-9]{{3}}) \[[0-9.]{{8}}-[0-9.]{{8}}\]: [A-Z].+\.", line)
                odd["no time"] += match is None
                spoken |= {f"sentences/wav/{path.stem}/{match[1]}.wav"} if match else set()
        assert evaluated == spoken == clips(folder / f"Session{session}")
        assert set(speakers_of_dialog) == {f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"}
        assert all(speakers == {"F", "M"} for speakers in speakers_of_dialog.values()), "both talk in either"
    assert set(labels) == set(itertools.product(range(1, 6), "FM"))
    assert all({"ang", "joy", "neu", "sad"} <= of_speaker for of_speaker in labels.values())
    assert odd["missing"] == odd["outside"] == odd["no time"] == 1 and odd["xxx"] == odd["fru"] == 5


def test_msp_improv_turns_have_a_line_and_a_place(folder_of):
    folder, labels, heard_otherwise, sentences = folder_of("msp_improv"), defaultdict(set), 0, set()
    values = r"A:[0-9.]+; V:[0-9.]+; D:(?:[0-9.]+|NaN) ; N:[0-9.]+;"
    judged = set()
    for line in (folder / "Evaluation.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("UTD-IMPROV-"):
            continue
        name, label = re.fullmatch(
            rf"UTD-IMPROV-(S[0-9]{{2}}[AHNS]-[FM]0[1-6]-[PRST]-[FM]{{2}}[0-9]{{2}})\.avi; "
            rf"([AHNSOX]); {values}",
            line,
        ).groups()
        scenario, actor, condition, turn = name.split("-")
        judged.add(f"session{actor[2]}/{scenario}/{condition}/MSP-IMPROV-{name}.wav")
        labels[actor].add(label)
        heard_otherwise += scenario[3] != label and label in "AHNS"
        sentences.add(scenario[:3])
    assert judged == clips(folder)
    assert all({"A", "H", "N", "S"} <= of_actor for of_actor in labels.values())
    assert {"O", "X"} <= labels["F01"] and heard_otherwise == len(labels) and len(sentences) >= 5
    assert len(labels) >= 6 and sum(actor[0] == "F" for actor in labels) == len(labels) / 2


# --- LibriSpeech


def test_librispeech_transcripts_speakers_and_flac(folder_of):
    folder = folder_of("librispeech") / "LibriSpeech"
    genders, subsets = {}, defaultdict(set)
    for line in (folder / "SPEAKERS.TXT").read_text(encoding="utf-8").splitlines():
        if not line.startswith(";"):
            speaker, sex, subset, minutes, name = (field.strip() for field in line.split("|"))
            genders[speaker], subsets[subset] = sex, subsets[subset] | {sex}
            assert (folder / subset / speaker).is_dir() and float(minutes) and name
    assert subsets == dict.fromkeys(("train-clean-100", "dev-clean", "test-clean"), {"F", "M"})
    transcribed, invented = set(), 0
    for table in folder.rglob("*.trans.txt"):
        subset, speaker, chapter = table.relative_to(folder).parts[:3]
        assert table.name == f"{speaker}-{chapter}.trans.txt" and speaker in genders
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines()):
            utterance, text = line.split(" ", 1)
            assert utterance == f"{speaker}-{chapter}-{number:04d}" and re.fullmatch(r"[A-Z' ]+", text)
            transcribed.add(f"{subset}/{speaker}/{chapter}/{utterance}.flac")
            invented += bool({"BRINDLEWICK", "TORVANE", "OSKERBY"} & set(text.split()))
    assert transcribed == clips(folder) and invented > 0

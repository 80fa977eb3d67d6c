"""prepare_crema_d.py: names, levels, demographics, the silent clip, git-LFS pointers, and what it refuses."""

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

HEADING = '"ActorID","Age","Sex","Race","Ethnicity"'
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "SAD")
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 72862\n"
# name, category, EIS
CHECKED_BY_HAND = [
    ("1001_IEO_NEU_XX", "neutral", 0.0),
    ("1001_IEO_HAP_LO", "joy", 1.5),
    ("1001_IEO_HAP_MD", "joy", 2.5),
    ("1001_IEO_HAP_HI", "joy", 3.5),
    ("1002_IEO_ANG_HI", "anger", 3.5),
    ("1002_TIE_DIS_XX", "disgust", -1.0),
    ("1002_WSI_NEU_XX", "neutral", 0.0),
    ("1040_ITH_SAD_X", "sadness", -1.0),
    ("1091_DFA_FEA_XX", "fear", -1.0),
    ("1091_IEO_FEA_LO", "fear", 1.5),
]
AGES = {"1001": (51, "M"), "1002": (21, "F"), "1040": (42, "M"), "1076": (25, "F"), "1091": (29, "F")}


def write_demographics(folder, ages=AGES, end="\n"):
    sexes = {"F": "Female", "M": "Male"}
    lines = [f'{actor},{age},"{sexes[sex]}","Asian","Not Hispanic"' for actor, (age, sex) in ages.items()]
    path = folder / "VideoDemographics.csv"
    path.write_bytes(end.join([HEADING, *lines, ""]).encode())
    return path


@pytest.fixture
def crema_d(toys, tmp_path):
    for name, *_ in CHECKED_BY_HAND:
        toys.write_wav(tmp_path / "CREMA-D" / "AudioWAV" / f"{name}.wav")
    write_demographics(tmp_path / "CREMA-D")
    return tmp_path / "CREMA-D"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_contract_of_the_manifests(prepare, crema_d, tmp_path, end, mark):
    table = write_demographics(crema_d, end=end)
    table.write_bytes(mark + table.read_bytes())
    assert prepare("crema_d", crema_d, tmp_path / "out", *PARTIAL) == 0
    supervisions = read_manifests(tmp_path / "out", "crema_d")
    assert len(supervisions) == len(CHECKED_BY_HAND)
    for name, category, eis in CHECKED_BY_HAND:
        supervision = supervisions[f"crema_d-{name}"]
        actor, sentence, emotion, level = name.split("_")
        custom = supervision.custom
        assert (custom["age"], supervision.gender) == AGES[actor]
        assert (supervision.speaker, custom["text_id"], custom["emotion"]) == (actor, sentence, emotion)
        assert custom["intensity"] == (None if level in ("XX", "X") else level)
        assert (custom["esc"], custom["eis"]) == (category, eis)
        assert supervision.language == "English"


def test_the_silent_clip_is_counted_and_left_out(prepare, crema_d, toys, tmp_path):
    toys.write_wav(crema_d / "AudioWAV" / "1076_MTI_SAD_XX.wav")
    assert prepare("crema_d", crema_d, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {"silent in the release": ["1076_MTI_SAD_XX"]}
    assert "crema_d-1076_MTI_SAD_XX" not in read_manifests(tmp_path / "out", "crema_d")


def all_names():
    """As many clips of each emotion as the release has: 20 of the 91 x 82 were never recorded."""
    absent = {f"{actor}_TIE_{emotion}_XX" for emotion in EMOTIONS for actor in (1003, 1004, 1005)}
    absent |= {f"{actor}_TIE_NEU_XX" for actor in range(1003, 1008)}
    for actor, sentence in itertools.product(range(1001, 1092), SENTENCES):
        yield from {f"{actor}_{sentence}_NEU_XX"} - absent
        levels = ("LO", "MD", "HI") if sentence == "IEO" else ("XX",)
        yield from {f"{actor}_{sentence}_{e}_{level}" for e in EMOTIONS for level in levels} - absent


def test_a_whole_copy_needs_no_option_and_a_partial_one_is_told_what_it_lacks(prepare, refused, toys, tmp_path):
    corpus = tmp_path / "whole"
    content = toys.write_wav(corpus / "AudioWAV" / "1001_IEO_NEU_XX.wav", seconds=0.03).read_bytes()
    names = list(all_names())
    assert len(names) == 7442
    for name in names:
        (corpus / "AudioWAV" / f"{name}.wav").write_bytes(content)
    write_demographics(corpus, {str(actor): (30, "FM"[actor % 2]) for actor in range(1001, 1092)})
    assert prepare("crema_d", corpus, tmp_path / "out") == 0
    card = read_json(tmp_path / "out" / "crema_d_card.json")
    assert card["utterances"] == 7441 and len(card["counts"]["speaker"]) == 91
    assert card["counts"]["eis"] == {"-1.0": 4989, "0.0": 1087, "1.5": 455, "2.5": 455, "3.5": 455}
    (corpus / "AudioWAV" / "1044_IOM_FEA_XX.wav").unlink()
    sentence = refused("crema_d", corpus)
    assert "7440 utterances found, 1 left out (silent in the release), CREMA-D has 7441" in sentence
    assert "1270 of 1271 with the label FEA" in sentence


@pytest.mark.parametrize("pointers", [["1001_IEO_NEU_XX"], [name for name, *_ in CHECKED_BY_HAND]])
def test_pointers_of_git_lfs_are_named_as_such(refused, crema_d, pointers):
    for name in pointers:
        (crema_d / "AudioWAV" / f"{name}.wav").write_text(POINTER)
    sentence = refused("crema_d", crema_d, *PARTIAL)
    assert sentence.startswith(f"{crema_d}/AudioWAV/1001_IEO_") and f"{len(pointers)} of 10 clips" in sentence
    assert "git-LFS pointer" in sentence and "git lfs pull" in sentence


def test_without_demographics_a_partial_copy_has_no_genders(prepare, refused, crema_d, tmp_path, capsys):
    table = crema_d / "VideoDemographics.csv"
    table.unlink()
    assert refused("crema_d", crema_d).startswith(f"{table}: there is no such file")
    assert prepare("crema_d", crema_d, tmp_path / "out", *PARTIAL) == 0
    assert "no gender and no age is known" in capsys.readouterr().err
    supervisions = read_manifests(tmp_path / "out", "crema_d").values()
    assert {s.gender for s in supervisions} == {None} and not any("age" in s.custom for s in supervisions)


# --- The votes of listeners

VOTES_HEADING = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"'
VOTES = [
    '"100001",1,0,0,8,1,0,"1001_IEO_HAP_LO",10,0.8,"H"',
    '"100002",0,0,0,0,5,5,"1001_IEO_NEU_XX",10,0.5,"N:S"',
    '"200001",9,0,0,0,0,1,"1001_IEO_HAP_LO",10,0.9,"A"',  # by the face
]


def write_votes(corpus, lines=VOTES):
    table = corpus / "processedResults" / "tabulatedVotes.csv"
    table.parent.mkdir()
    table.write_text("\n".join([VOTES_HEADING, *lines, ""]))
    return table


def test_votes_of_those_who_heard_the_voice_alone(prepare, crema_d, tmp_path, capsys):
    write_votes(crema_d)
    assert prepare("crema_d_votes", crema_d, tmp_path / "out", *PARTIAL) == 0
    assert "8 clips have no votes, so their acted emotion counts" in capsys.readouterr().err
    found = read_manifests(tmp_path / "out", "crema_d")
    assert found["crema_d-1001_IEO_HAP_LO"].custom["votes"] == {"anger": 1, "joy": 8, "neutral": 1}
    assert found["crema_d-1001_IEO_HAP_LO"].custom["esc"] == "joy"
    assert found["crema_d-1001_IEO_NEU_XX"].custom["votes"] == {"neutral": 5, "sadness": 5}
    assert "votes" not in found["crema_d-1001_IEO_HAP_HI"].custom
    before = read_json(tmp_path / "out" / "stage.json")["key"]
    assert prepare("crema_d", crema_d, tmp_path / "out", *PARTIAL) == 0
    assert read_json(tmp_path / "out" / "stage.json")["key"] != before
    assert not any("votes" in each.custom for each in read_manifests(tmp_path / "out", "crema_d").values())


@pytest.mark.parametrize(
    "lines, words",
    [
        ([VOTES[0].replace(",8,", ",eight,")], ", line 2: expected numbers of votes, found 'eight'"),
        ([VOTES[0], VOTES[0]], ", line 3: the clip 1001_IEO_HAP_LO occurs a second time"),
        ([VOTES[0].rpartition(",")[0]], ", line 2: expected 11 columns, as in line 1, found 10"),
        (VOTES[2:], ": has no votes for any clip"),
    ],
)
def test_votes_that_are_wrong(refused, crema_d, lines, words):
    table = write_votes(crema_d, lines)
    assert refused("crema_d_votes", crema_d, *PARTIAL).startswith(f"{table}{words}")


def test_votes_that_are_not_there(refused, crema_d):
    assert "tabulatedVotes.csv: there is no such file" in refused("crema_d_votes", crema_d, *PARTIAL)


# --- Bad input


@pytest.mark.parametrize(
    "name, words",
    [
        ("1001_IEO_ANG", "is not named like 1001_IEO_ANG_HI"),
        ("1001_IEO_ANG_HI_2", "is not named like 1001_IEO_ANG_HI"),
        ("1001_ieo_ang_hi", "is not named like 1001_IEO_ANG_HI"),
        ("1001-IEO-ANG-HI", "is not named like 1001_IEO_ANG_HI"),
        ("١٠٠١_IEO_ANG_HI", "is not named like 1001_IEO_ANG_HI"),
        ("1092_IEO_ANG_HI", "the actor 1092 is not one of 1001 to 1091"),
        ("1000_IEO_ANG_HI", "the actor 1000 is not one of 1001 to 1091"),
        ("1001_IEE_ANG_HI", "the sentence IEE is not one of IEO, TIE"),
        ("1001_IEO_SUR_HI", "the emotion SUR is not one of ANG, DIS, FEA, HAP, NEU, SAD"),
        ("1001_IEO_ANG_ME", "the level ME is not one of LO, MD, HI, XX, X"),
    ],
)
def test_names_that_are_wrong(refused, crema_d, toys, name, words):
    clip = toys.write_wav(crema_d / "AudioWAV" / f"{name}.wav")
    sentence = refused("crema_d", crema_d, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


@pytest.mark.parametrize(
    "line, words",
    [
        ('1001,51,"Male","Asian"', "line 2: expected 5 columns, as in line 1, found 4"),
        ('1001,51,"Male","Asian","Hispanic",', "line 2: expected 5 columns, as in line 1, found 6"),
        ("1001;51;Male;Asian;Hispanic", "line 2: expected 5 columns, as in line 1, found 1"),
        ('1101,51,"Male","Asian","Hispanic"', "line 2: '1101' is not an actor of CREMA-D"),
        ('1001,old,"Male","Asian","Hispanic"', "line 2: expected an age in years and Female or Male, found 'old'"),
        ('1001,²,"Male","Asian","Hispanic"', "line 2: expected an age in years"),
        ('1001,51,"M","Asian","Hispanic"', "line 2: expected an age in years and Female or Male, found '51' and 'M'"),
        ('1002,51,"Male","Asian","Hispanic"', "line 3: the actor 1002 occurs a second time"),
    ],
)
def test_lines_of_the_demographics_that_are_wrong(refused, crema_d, line, words):
    table = crema_d / "VideoDemographics.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], line, *lines[2:]]), encoding="utf-8")
    assert refused("crema_d", crema_d, *PARTIAL).startswith(f"{table}, {words}")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "line 1: expected the columns ActorID, Age, Sex first"),
        (b"1001,51,Male,Asian,Hispanic\n", "line 1: expected the columns ActorID, Age, Sex first"),
        (HEADING.encode() + b'\n1001,51,"Male","\xe9","Hispanic"\n', "line 2: is not UTF-8"),
        (HEADING.encode("utf-16"), "line 1: is not UTF-8"),
    ],
)
def test_demographics_that_are_no_such_table(refused, crema_d, content, words):
    table = crema_d / "VideoDemographics.csv"
    table.write_bytes(content)
    assert refused("crema_d", crema_d, *PARTIAL).startswith(f"{table}, {words}")


def test_demographics_that_lack_an_actor(refused, crema_d):
    table = write_demographics(crema_d, {actor: AGES[actor] for actor in ("1001", "1040", "1091")})
    sentence = refused("crema_d", crema_d, *PARTIAL)
    assert sentence.startswith(f"{table}: has no line for the actor 1002") and "1002_IEO_ANG_HI.wav" in sentence


LINES = st.lists(
    st.one_of(
        st.text(alphabet='10,"FMalew\x00\r ', max_size=30),
        st.from_regex(r'100[0-9],[0-9]{0,3},"?(Female|Male|)"?(,[A-Z]*){0,3}', fullmatch=True),
    )
)


@given(st.one_of(st.binary(), LINES.map(lambda lines: "\n".join([HEADING, *lines]).encode())))
@example(HEADING.encode() + b"\n1001," + "٣".encode() + b",Male,,")
def test_any_demographics_are_read_or_refused_in_one_sentence(toys, tmp_path_factory, content):
    table = tmp_path_factory.getbasetemp() / "demographics.csv"
    table.write_bytes(content)
    try:
        actors = toys.script("crema_d").read_demographics(table)
    except InputError as error:
        assert str(error).startswith(f"{table}, line ") and str(error).endswith(".")
    else:
        assert all(1001 <= int(actor) <= 1091 and sex in "FM" for actor, (sex, _) in actors.items())


@given(st.one_of(st.text(), st.from_regex(r"10[0-9]{2}_[A-Z]{3}_[A-Z]{3}_[A-Z]{1,2}")))
def test_any_name_is_parsed_or_refused_in_one_sentence(toys, stem):
    clip = Path("AudioWAV") / f"{stem.replace('/', '')}.wav"
    try:
        parts = toys.script("crema_d").parse_name(clip)
    except InputError as error:
        assert str(error).startswith(f"{clip}: ") and str(error).endswith(".")
    else:
        assert "_".join(parts) == clip.stem


def test_folders_that_are_missing_empty_too_high_or_too_low(refused, crema_d, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no such folder" in refused("crema_d", tmp_path / "missing")
    assert "the folder is empty" in refused("crema_d", tmp_path / "empty")
    assert f"too high, give {crema_d} instead" in refused("crema_d", tmp_path)
    assert f"too low inside the corpus, give {crema_d}" in refused("crema_d", crema_d / "AudioWAV")
    for clip in (crema_d / "AudioWAV").iterdir():
        clip.unlink()
    assert "no utterance was found" in refused("crema_d", crema_d)


@pytest.mark.parametrize("content, words", [(b"", "the file is empty"), (b"no audio at all", "is not audio")])
def test_audio_that_cannot_be_used(refused, crema_d, content, words):
    clip = crema_d / "AudioWAV" / "1001_IEO_HAP_LO.wav"
    clip.write_bytes(content)
    sentence = refused("crema_d", crema_d, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence

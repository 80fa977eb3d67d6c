"""prepare_seqd.py: 25 emotions in three levels, the fixed test set, and every fault of labels.tsv."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.seqm import EMOTIONS


@pytest.fixture
def seqd(toys, tmp_path):
    return toys.seqd(tmp_path / "SEQD")


def test_the_contract_of_the_manifests(prepare, seqd, tmp_path):
    assert prepare("seqd", seqd, tmp_path / "out", *PARTIAL) == 0
    gold = {None: 0.0, "low": 1.5, "medium": 2.5, "high": 3.5}
    for split in ("train", "test"):
        supervisions = read_manifests(tmp_path / "out", "seqd", split).values()
        assert {s.custom["emotion"] for s in supervisions} == set(EMOTIONS)
        for supervision in supervisions:
            custom, emotion = supervision.custom, EMOTIONS[supervision.custom["emotion"]]
            assert supervision.id.startswith(f"seqd-{supervision.speaker}_")
            assert (custom["corpus"], custom["split"]) == ("seqd", split)
            assert (custom["esc"], custom["intensity"]) == (emotion.category, emotion.level)
            assert custom["eis"] == gold[emotion.level]
            assert supervision.gender == supervision.speaker[0] and supervision.text
    card = read_json(tmp_path / "out" / "seqd_card.json")
    assert card["levels"] == ["low", "medium", "high"] and card["test_split"] == "test"
    assert card["counts"]["eis"] == {"0.0": 2, "1.5": 16, "2.5": 16, "3.5": 16}


def test_the_official_count(refused, prepare, toys, tmp_path, seqd):
    assert "50 utterances found, SEQD has 1648" in refused("seqd", seqd)
    declared = toys.script("seqd").SEQD
    assert dict(declared.counts) == {"as in the paper": 1648} and len(declared.labels) == 25
    by = declared.count_by
    assert sum(by["label"].values()) == sum(by["split"].values()) == 1648 and by["split"]["test"] == 155
    assert (by["label"]["serenity"], by["label"]["rage"], by["label"]["fear"], by["label"]["neutral"]) == (
        59,
        71,
        63,
        73,
    )


def test_a_holders_copy_with_the_papers_counts_needs_no_option(prepare, toys, tmp_path):
    """1,648 labelled clips, 155 of them in the test part; one clip in the wrong part is named."""
    declared = toys.script("seqd").SEQD
    rows, tested = [], 0
    for name, count in declared.count_by["label"].items():
        for number in range(count):
            emotion, split = EMOTIONS[name], "test" if number < 6 or (tested < 155 - 150 and number < 7) else "train"
            tested += number == 6 and split == "test"
            rows.append([f"F01_{name}_{number}", "F01", "F", name, emotion.category, emotion.level or "-", split, "好"])
    folder = tmp_path / "SEQD"
    first = toys.write_wav(folder / "wav" / "F01" / f"{rows[0][0]}.wav", 0.05)
    for row in rows[1:]:
        os.link(first, folder / "wav" / "F01" / f"{row[0]}.wav")
    table = "\n".join("\t".join(row) for row in [toys.columns, *rows]) + "\n"
    (folder / "labels.tsv").write_text(table, encoding="utf-8")
    assert prepare("seqd", folder, tmp_path / "out") == 0
    assert read_json(tmp_path / "out" / "seqd_card.json")["counts"]["split"] == {"test": 155, "train": 1493}
    (folder / "labels.tsv").write_text(table.replace("\ttest\t", "\ttrain\t", 1), encoding="utf-8")
    assert prepare("seqd", folder, tmp_path / "other") == 1


@given(st.text() | st.text(alphabet='F01\tneutral-\n\r train好"', max_size=80))
@settings(max_examples=150)
def test_no_text_makes_the_table_fail_with_anything_but_a_sentence(toys, tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    for content in (text, "\t".join(toys.columns) + "\n" + text):
        (folder / "labels.tsv").write_text(content, encoding="utf-8", newline="")
        try:
            toys.script("seqd").read_labels(folder / "labels.tsv", folder)
        except InputError as refused:
            assert str(refused).startswith(f"{folder / 'labels.tsv'}, line ") and str(refused).endswith(".")


ROW = "F01_neutral_0\tF01\tF\tneutral\tneutral\t-\ttrain\t今天天气很好"


@pytest.mark.parametrize(
    "line, words",
    [
        (ROW.replace("\t", " "), "line 2: expected 8 columns separated by tabs, found 1"),
        (ROW + "\tmore", "line 2: expected 8 columns separated by tabs, found 9"),
        (ROW.replace("neutral\tneutral", "cheer\tjoy"), "line 2: 'cheer' is not one of the 25 emotions"),
        (ROW.replace("neutral\tneutral", "neutral\tjoy"), "line 2: neutral is neutral at level -, not joy at level -"),
        (ROW.replace("\t-\t", "\tlow\t"), "line 2: neutral is neutral at level -, not neutral at level low"),
        (ROW.replace("neutral\tneutral", "joy\tjoy"), "line 2: joy is joy at level medium, not joy at level -"),
        (ROW.replace("\tF\t", "\tfemale\t"), "line 2: the gender 'female' is neither F nor M"),
        (ROW.replace("train", "eval"), "line 2: the split 'eval' is not one of train, test"),
        (ROW.replace("\tF01\t", "\t\t"), "line 2: the utterance or the speaker is empty"),
        (ROW.replace("\tF\t", "\tM\t"), "the speaker F01 has the gender"),
        (ROW + "\n" + ROW, "line 3: the utterance F01_neutral_0 occurs a second time"),
    ],
)
def test_lines_that_are_wrong(refused, seqd, line, words):
    table = seqd / "labels.tsv"
    text = table.read_text(encoding="utf-8")
    old = next(row for row in text.splitlines() if row.startswith("F01_neutral_0\t"))
    table.write_text(text.replace(old, line), encoding="utf-8")
    sentence = refused("seqd", seqd, *PARTIAL)
    assert sentence.startswith(f"{table}, line ") and words in sentence


def test_the_heading(refused, seqd):
    table = seqd / "labels.tsv"
    table.write_text(table.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    assert refused("seqd", seqd, *PARTIAL).startswith(f"{table}, line 1: expected the columns utt speaker gender")
    table.write_text("")
    assert refused("seqd", seqd, *PARTIAL).startswith(f"{table}, line 1: expected the columns")


def test_a_table_that_is_not_utf8(refused, seqd):
    table = seqd / "labels.tsv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("gb18030"))
    assert refused("seqd", seqd, *PARTIAL).startswith(f"{table}, line 2: is not UTF-8")


def test_labels_and_clips_without_counterpart(prepare, refused, toys, seqd, tmp_path):
    toys.write_wav(seqd / "wav" / "F01" / "unlabelled.wav")
    gone = sorted((seqd / "wav" / "M01").glob("*.wav"))
    gone[0].unlink()
    assert prepare("seqd", seqd, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        "audio without label": ["F01/unlabelled"],
        "label without audio": [f"M01/{gone[0].stem}"],
    }
    assert (stamp["in"], stamp["out"]) == (51, 49)
    sentence = refused("seqd", seqd)
    assert "1 left out (audio without label), 1 left out (label without audio)" in sentence
    for number in range(60):
        toys.write_wav(seqd / "wav" / "F01" / f"unlabelled{number}.wav")
    assert "has no line for 61 of 110 clips" in refused("seqd", seqd, *PARTIAL)
    for clip in (seqd / "wav").rglob("*.wav"):
        clip.unlink()
    assert "holds no clip" in refused("seqd", seqd, *PARTIAL)


def test_most_labels_without_audio(refused, prepare, seqd, tmp_path):
    for clip in sorted((seqd / "wav").rglob("*.wav"))[:26]:
        clip.unlink()
    assert "has no audio for 26 of 50 lines" in refused("seqd", seqd)
    assert prepare("seqd", seqd, tmp_path / "out", *PARTIAL) == 0


def test_a_corrected_label_is_not_overlooked(prepare, seqd, tmp_path, capsys):
    assert prepare("seqd", seqd, tmp_path / "out", *PARTIAL) == 0
    table = seqd / "labels.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("散步", "跑步"), encoding="utf-8")  # the same size
    assert prepare("seqd", seqd, tmp_path / "out", *PARTIAL) == 0
    assert "its inputs changed" in capsys.readouterr().err


def test_the_synthesised_mini_corpus_is_prepared(prepare, tmp_path):
    pytest.importorskip("espeakng_loader", reason="espeakng_loader is absent: install the extra `demo`")
    pytest.importorskip("scipy", reason="scipy is absent: install the extra `demo`")
    from speecheq.corpora.synthetic import synthesise

    for name in ("casia", "aishell", "seqd"):
        counts = synthesise(name, tmp_path / name, "nano")
        assert prepare(name, tmp_path / name, tmp_path / "out" / name, *PARTIAL) == 0
        assert read_json(tmp_path / "out" / name / f"{name}_card.json")["utterances"] == counts["clips"]

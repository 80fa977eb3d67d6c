"""Corpora that a recipe has no option for, but a prep script, as targets of egs/iemocap; and CREMA-D's listeners."""

import gzip
import json

import pytest

MELD_HEADING = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"
PODCAST_HEADING = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


@pytest.fixture(scope="module")
def english(recipe, warm_venv):
    return recipe("iemocap", warm_venv)


def make_savee(toys, folder):
    for speaker in ("DC", "JE", "JK", "KL"):
        for emotion in ("a", "sa", "n"):
            for number in (1, 2):
                toys.write_wav(folder / speaker / f"{emotion}{number:02d}.wav", 0.4)
    return folder


def make_emov_db(toys, folder):
    for speaker in ("bea", "jenie", "josh"):
        for style, word in (("Amused", "amused"), ("Neutral", "neutral"), ("Sleepy", "sleepiness")):
            for number in (1, 2):
                toys.write_wav(folder / f"{speaker}_{style}" / f"{word}_1-28_{number:04d}.wav", 0.4)
    return folder


def make_mead(toys, folder):
    for actor in ("M003", "M005", "W009", "W011", "W014", "M007"):
        for emotion in ("angry", "contempt", "neutral"):
            for number in (1, 2):
                toys.write_wav(folder / actor / "audio" / emotion / "level_1" / f"{number:03d}.wav", 0.4)
    return folder


def make_meld(toys, folder):
    for part, clips in FOLDERS.items():
        lines = [MELD_HEADING]
        for number in range(8):
            emotion = ("anger", "neutral")[number % 2]
            lines.append(f"{number},Hey!,{('Ross', 'Rachel')[number // 2 % 2]},{emotion},negative,0,{number}")
            toys.write_wav(folder / clips / f"dia0_utt{number}.wav", 0.4)
        (folder / f"{part}_sent_emo.csv").write_text("\n".join(lines))
    return folder


def make_msp_podcast(toys, folder):
    lines = [PODCAST_HEADING]
    for part in ("Train", "Development", "Test1", "Test2"):
        for number in range(8):
            name = f"MSP-PODCAST_{len(lines):04d}_0001.wav"
            lines.append(f"{name},{'AN'[number % 2]},2.0,3.0,{1 + number % 6}.5,{part}{number},Male,{part}")
            toys.write_wav(folder / "Audios" / name, 0.4)
    (folder / "Labels").mkdir()
    (folder / "Labels/labels_consensus.csv").write_text("\n".join(lines))
    return folder


def make_crema_d(toys, folder):
    (folder / "processedResults").mkdir(parents=True)
    votes, people = ['"","A","D","F","H","N","S","fileName"'], ["ActorID,Age,Sex"]
    for actor in range(1001, 1005):
        people.append(f"{actor},30,{('Male', 'Female')[actor % 2]}")
        for sentence in ("TIE", "IOM"):
            for emotion in ("ANG", "HAP", "NEU"):
                name = f"{actor}_{sentence}_{emotion}_XX"
                votes.append(f'"{100000 + len(votes)}",2,1,0,4,3,0,"{name}"')
                toys.write_wav(folder / "AudioWAV" / f"{name}.wav", 0.4)
    (folder / "VideoDemographics.csv").write_text("\n".join(people))
    (folder / "processedResults/tabulatedVotes.csv").write_text("\n".join(votes))
    return folder


MAKE = {
    "savee": (make_savee, "speaker", 4, 6),
    "emov_db": (make_emov_db, "speaker", 3, 4),
    "mead": (make_mead, "speaker5", 5, 12),
    "meld": (make_meld, "official", 1, 8),
    "msp_podcast": (make_msp_podcast, "official", 1, 8),
}


@pytest.mark.parametrize("name", MAKE)
def test_stages_0_to_3_of_a_further_target(english, toys, tmp_path, name):
    make, protocol, folds, clips = MAKE[name]
    given = ["--corpus", f"{name}={make(toys, tmp_path / 'corpus')}", "--partial", "true", "--target", name]
    if name == "msp_podcast":
        given += ["--corpus", f"msp_podcast_test2={tmp_path / 'corpus'}"]
    english.run(*given, *english.where(tmp_path), "--systems", "wo_mtl", "--speech-activity", "none", "--stop-stage", 3)
    note = json.loads((tmp_path / f"data/msud/{name}.{protocol}/fold1/msud.json").read_text())
    assert (note["folds"], note["sets"]["test"]["clips"]) == (folds, clips)
    if name == "msp_podcast":
        assert note["tests"] == ["test", "test_msp_podcast_test2"]
        assert note["sets"]["test_msp_podcast_test2"]["clips"] == 8


def test_votes_of_listeners_from_corpus_to_scores(english, toys, tmp_path):
    corpus = make_crema_d(toys, tmp_path / "corpus")
    given = ["--crema-d", corpus, "--target", "crema_d", "--soft-labels", "true", "--partial", "true", "--folds", 1]
    english.run(*given, *english.where(tmp_path), "--systems", "wo_mtl", "--speech-activity", "none")
    with gzip.open(tmp_path / "data/msud/crema_d.speaker/fold1/emotion.jsonl.gz", "rt") as lines:
        shares = [json.loads(line)["supervisions"][0]["custom"]["class_shares"] for line in lines]
    # neutral, trust, joy, anticipation, anger, disgust, sadness, surprise, fear
    assert {tuple(share) for share in shares} == {(0.3, 0.0, 0.4, 0.0, 0.2, 0.1, 0.0, 0.0, 0.0)}
    assert (tmp_path / "exp/nano-wo_mtl/crema_d.speaker/metrics.json").is_file()
    refused = english.refused("--corpus", f"savee={corpus}", "--target", "savee", "--soft-labels", "true")
    assert "--soft-labels true needs crema_d, whose listeners' votes it takes" in refused


def test_soft_labels_without_votes(english, toys, tmp_path):
    given = ["--crema-d", make_crema_d(toys, tmp_path / "corpus"), "--target", "crema_d", "--partial", "true"]
    run = [*english.where(tmp_path), "--target", "crema_d", "--folds", 1, "--systems", "wo_mtl"]
    english.run(*given, *run, "--speech-activity", "none", "--stop-stage", 3)
    refused = english.refused(*run, "--stage", 4, "--set", "loss.soft_labels=true")
    assert "no training clip has listeners' votes; give CREMA-D with --soft-labels true" in refused

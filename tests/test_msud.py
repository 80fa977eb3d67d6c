"""What goes where in MsUD: folds, other corpora, genders, phonemes; and what makes stage 3 run again."""

from collections import Counter

import pytest
from lhotse import CutSet

from speecheq.corpus import Corpus, Request, Utterance
from speecheq.corpus import prepare as prepare_corpus
from speecheq.errors import InputError
from speecheq.features import compute_features
from speecheq.files import read_json
from speecheq.msud import hold_out, load_fold, made_folds, phonemes, unify
from speecheq.phones.mandarin import TABLE, text_to_phones
from speecheq.progress import set_up_logging
from speecheq.stages import STAMP

LABELS = {"mad": "anger", "calm": "neutral"}
TARGET = Corpus("target", "the target", "Mandarin", "DIR/*.wav", labels=LABELS)
OTHER = Corpus("other", "the other", "Mandarin", "DIR/*.wav", labels=LABELS, levels=("a", "b"),
               splits=("train", "dev", "test"), test_split="test")
READ = Corpus("read", "read speech", "Mandarin", "DIR/*.wav", splits=("train", "dev", "test"), test_split="test",
              has_transcripts=True)


class Data:
    """Stages 1 and 2 of toy corpora in one folder, all on one clip of noise."""

    def __init__(self, folder, toys):
        self.root, self.clip = folder, toys.write_wav(folder / "audio" / "a.wav", 0.05)

    def add(self, corpus, utterances, partial=False):
        manifests = self.root / "manifests" / corpus.name
        labels = self.root / "corpora" / corpus.name / "labels.txt"  # what changes when the utterances do
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(repr(utterances))
        prepare_corpus(corpus, lambda *_: utterances, Request(labels.parent, partial), manifests)
        compute_features(corpus.name, manifests, self.root / "fbank" / corpus.name)

    def unify(self, target="target", protocol="speaker", folds="all", corpora=("target", "other"), **more):
        return unify(target, protocol, folds, list(corpora), self.root / "manifests", self.root / "fbank",
                     self.root / "msud", **more)

    def sets(self, fold=1, name="target.speaker"):
        folder = self.root / "msud" / name / f"fold{fold}"
        return {p.name.split(".")[0]: list(CutSet.from_file(p)) for p in folder.glob("*.jsonl.gz")}

    def phonemes(self, corpus="read"):
        phonemes(corpus, self.root / "manifests", self.root / "fbank", self.root / "phonemes" / corpus)
        folder = self.root / "phonemes" / corpus
        return {p.name.split(".")[0]: list(CutSet.from_file(p)) for p in folder.glob("*.jsonl.gz")}


@pytest.fixture
def data(toys, tmp_path, capsys):
    set_up_logging()
    made = Data(tmp_path, toys)
    made.add(TARGET, [
        Utterance(f"t-{s}-{label}-{n}", made.clip, s, "F" if s == "s1" else None if s == "s3" else "M", label=label,
                  text_id=str(n))
        for s in ("s1", "s2", "s3") for label in LABELS for n in range(10)
    ])
    made.add(OTHER, [  # its speakers and texts are in its training and test parts, under the target's names
        Utterance(f"o-{split}-{n}", made.clip, "s1", "F", label="mad" if n % 2 else "calm",
                  level="a" if n % 2 else None, split=split, text_id=str(n))
        for split in OTHER.splits for n in range(4)
    ])
    return made


def ids(cuts):
    return {cut.id for cut in cuts}


@pytest.mark.parametrize("protocol, folds", [("speaker", 3), ("text", 5), ("random10", 10)])
def test_every_clip_goes_to_its_place(data, protocol, folds):
    assert data.unify(protocol=protocol) == list(range(1, folds + 1))
    tested = []
    for fold in range(1, folds + 1):
        sets = data.sets(fold, f"target.{protocol}")
        own = {name: {i for i in ids(cuts) if i.startswith("t-")} for name, cuts in sets.items()}
        assert own["emotion"] | own["dev"] | own["test"] == {
            f"t-{s}-{label}-{n}" for s in ("s1", "s2", "s3") for label in LABELS for n in range(10)
        }
        assert len(own["emotion"]) + len(own["dev"]) + len(own["test"]) == 60 and own["dev"]
        tested += own["test"]
        # of the other corpus: its training part trains, its test part is a test of its own, its dev part is left out
        assert ids(sets["emotion"]) - own["emotion"] == {f"o-train-{n}" for n in range(4)}
        assert ids(sets["test_other"]) == {f"o-test-{n}" for n in range(4)}
        assert ids(sets["dev"]) == own["dev"] and ids(sets["test"]) == own["test"]
        # the gender set is the emotion set where the gender is known
        assert ids(sets["gender"]) == {cut.id for cut in sets["emotion"] if cut.supervisions[0].gender}
        assert not any(i.startswith("t-s3") for i in ids(sets["gender"]))
        note = load_fold(data.root / "msud" / f"target.{protocol}", fold)
        assert note["tests"] == ["test", "test_other"] and note["folds"] == folds
        assert note["sets"]["emotion"]["clips"] == len(sets["emotion"])
        assert note["sets"]["emotion"]["eis"] == {"specified": 4, "unspecified": len(own["emotion"])}
        stamp = read_json(data.root / "msud" / f"target.{protocol}" / f"fold{fold}" / STAMP)
        assert (stamp["in"], stamp["out"]) == (72, 68)
        assert stamp["dropped"] == {"the dev part of other, not used": [f"o-dev-{n}" for n in range(4)]}
    assert sorted(tested) == sorted(set(tested)) and len(tested) == 60


def test_a_corpus_with_a_fixed_test_set_as_the_target(data):
    assert data.unify("other", "official") == [1]
    sets = data.sets(1, "other.official")
    assert ids(sets["test"]) == {f"o-test-{n}" for n in range(4)}
    assert len([i for i in ids(sets["emotion"]) if i.startswith("t-")]) == 60, "no official parts: all of it trains"


def test_features_come_with_the_cuts(data):
    data.unify(folds="2")
    assert all(cut.load_features().shape == (5, 80) for cut in data.sets(2)["emotion"])


def test_a_dev_speaker_is_asked_for_in_vain_of_three(data):
    with pytest.raises(InputError, match="at least 4 training speakers, there are 2"):
        data.unify(dev="speaker")


def test_a_stage_that_is_done_is_skipped_and_redone_when_something_changes(data, toys, capsys):
    def run(**options):
        capsys.readouterr()
        data.unify(folds="1", **options)
        return capsys.readouterr().err

    run()
    assert "skipped" in run()
    assert "its options changed (seed)" in run(seed=1)
    assert "its options changed (corpora)" in run(corpora=())
    run()
    data.add(OTHER, [Utterance("o-1", data.clip, "s1", "F", label="mad", split="train")])
    assert "what it reads changed" in run()
    assert [i for i in ids(data.sets()["emotion"]) if i.startswith("o-")] == ["o-1"]
    (data.root / "msud" / "target.speaker" / "fold1" / "dev.jsonl.gz").write_bytes(b"")
    assert "is not whole any more" in run()


def test_folds_made_from_features_that_were_made_anew_are_out_of_date(data):
    data.unify(folds="1")
    load_fold(data.root / "msud" / "target.speaker", 1)
    data.add(OTHER, [Utterance("o-1", data.clip, "s1", "F", label="mad", split="train")])
    with pytest.raises(InputError, match=r"fold1: is out of date.*run stage 3 \(unify\) again"):
        load_fold(data.root / "msud" / "target.speaker", 1)


def test_folds_and_corpora_that_are_not_there(data):
    with pytest.raises(InputError, match="fold 4 does not exist; there are folds 1 to 3"):
        data.unify(folds="4")
    assert not (data.root / "msud").exists()
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run"):
        data.unify(corpora=("target", "absent"))
    with pytest.raises(InputError, match=r"target.speaker: stage 3 \(unify\) has not been run"):
        made_folds(data.root / "msud" / "target.speaker", "1")
    data.unify(folds="2")
    assert made_folds(data.root / "msud" / "target.speaker", "2") == [2]
    with pytest.raises(InputError, match=r"fold1: stage 3 \(unify\) has not been run"):
        made_folds(data.root / "msud" / "target.speaker", "all")
    with pytest.raises(InputError, match="fold 4 does not exist"):
        made_folds(data.root / "msud" / "target.speaker", "4")


TEXTS = ["你好", "今天天气", "卡拉OK", "第3天", "（笑）好", "我们走吧"]


def read_speech(data, splits, each=20):
    return [Utterance(f"{split}-{s}-{n:02d}", data.clip, s, text=TEXTS[n % len(TEXTS)], split=split)
            for split in splits for s in ("s1", "s2") for n in range(each)]


def test_phonemes_of_a_whole_corpus(data):
    data.add(READ, read_speech(data, ("train", "dev", "test"), 6))
    sets = data.phonemes()
    assert {name: len(cuts) for name, cuts in sets.items()} == {"train": 6, "dev": 6, "test": 6}
    for cut in sets["train"] + sets["test"]:
        phones = cut.supervisions[0].custom["phones"]
        assert TABLE.decode(phones) == text_to_phones(cut.supervisions[0].text)
    folder = data.root / "phonemes" / "read"
    assert len((folder / "phones.txt").read_text(encoding="utf-8").splitlines()) == 202
    note, stamp = read_json(folder / "phonemes.json"), read_json(folder / STAMP)
    assert note["test"] == "test" and note["clips"] == {"train": 6, "dev": 6, "test": 6}
    reasons = ("brackets", "digits", "letters that are not Han")
    assert note["dropped"] == {f"no phones: {reason}": 6 for reason in reasons}
    assert (stamp["in"], stamp["out"]) == (36, 18)
    assert "train-s1-02 'OK'" in stamp["dropped"]["no phones: letters that are not Han"]


def test_without_a_test_part_the_last_tenth_of_each_speaker_is_held_out(data, capsys):
    texts = [u for u in read_speech(data, ("train",)) if u.text in ("你好", "今天天气", "我们走吧")]
    data.add(READ, texts + [Utterance("train-s3-00", data.clip, "s3", text="你好", split="train")], partial=True)
    sets = data.phonemes()
    assert "heldout" in capsys.readouterr().err
    assert set(sets) == {"train", "heldout"}
    assert ids(sets["heldout"]) == {"train-s1-19", "train-s2-19"}  # of 11 usable utterances each
    assert ids(sets["train"]) | ids(sets["heldout"]) == {u.id for u in texts} | {"train-s3-00"}
    assert not ids(sets["train"]) & ids(sets["heldout"])
    note = read_json(data.root / "phonemes" / "read" / "phonemes.json")
    assert note["test"] == "heldout" and note["partial"]


def test_a_tenth_is_held_out_of_every_speaker():
    class Fake:
        def __init__(self, name, speaker):
            self.id, self.supervisions = name, [type("S", (), {"speaker": speaker})]

    cuts = [Fake(f"{speaker}-{n:03d}", speaker) for speaker, count in (("a", 300), ("b", 20), ("c", 2), ("d", 1))
            for n in reversed(range(count))]
    held = hold_out(cuts)
    assert Counter(cut.id[0] for cut in held) == {"a": 30, "b": 2, "c": 1}
    assert {cut.id for cut in held if cut.id[0] == "a"} == {f"a-{n:03d}" for n in range(270, 300)}


def test_phoneme_corpora_that_are_refused(data):
    with pytest.raises(InputError, match="target: has no transcripts"):
        data.phonemes("target")
    data.add(READ, [Utterance("x", data.clip, "s", text="OK", split="train")])
    with pytest.raises(InputError, match="read: no training utterance could be turned into phones"):
        data.phonemes()
    with pytest.raises(InputError, match="read: has no emotion labels"):
        data.unify(corpora=("read",))


def test_the_real_aishell(samples, toys, tmp_path, monkeypatch):
    """Stages 1 and 3 on the sample; its features are not needed for phones."""
    script = toys.script("aishell")
    manifests = tmp_path / "manifests" / "aishell"
    prepare_corpus(script.AISHELL, script.find_utterances, Request(samples("AISHELL-1"), partial=True), manifests)
    from speecheq.features import corpus_cuts

    monkeypatch.setattr("speecheq.msud.load_cuts", lambda folder: corpus_cuts(manifests, "aishell", ["dev", "train"]))
    (tmp_path / "fbank" / "aishell").mkdir(parents=True)
    phonemes("aishell", tmp_path / "manifests", tmp_path / "fbank", tmp_path / "phonemes")
    note, stamp = read_json(tmp_path / "phonemes" / "phonemes.json"), read_json(tmp_path / "phonemes" / STAMP)
    assert sum(note["dropped"].values()) == 57 and (stamp["in"], stamp["out"]) == (601, 544)
    assert note["test"] == "heldout" and note["clips"]["heldout"] >= 50
    assert sum(note["clips"].values()) == 544
    held = CutSet.from_file(tmp_path / "phonemes" / "heldout.jsonl.gz")
    assert {cut.supervisions[0].speaker for cut in held} == {"S0150", "S0252"}
    assert all(cut.supervisions[0].custom["phones"] for cut in held)

"""What goes where in MsUD: folds, other corpora, genders, classes; and what makes stage 3 run again."""

import os
from dataclasses import replace

import pytest
from lhotse import CutSet
from toy_corpora import ToyCorpora

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.log import set_up_logging
from speecheq.common.stages import STAMP
from speecheq.corpora import Corpus, Utterance
from speecheq.dataset.classes import class_table
from speecheq.dataset.msud import load_fold, made_folds, unify
from speecheq.dataset.msud_recipe import Recipe, experiment_name, parse_use

LABELS = {"mad": "anger", "calm": "neutral"}
TARGET = Corpus("target", "the target", "Mandarin", "DIR/*.wav", labels=LABELS)
OTHER = Corpus(
    "other",
    "the other",
    "Mandarin",
    "DIR/*.wav",
    labels=LABELS,
    levels=("a", "b"),
    splits=("train", "dev", "test"),
    test_split="test",
)
READ = Corpus(
    "read",
    "read speech",
    "Mandarin",
    "DIR/*.wav",
    splits=("train", "dev", "test"),
    test_split="test",
    has_transcripts=True,
)


class Data(ToyCorpora):
    """Toy corpora and stage 3; each utterance is a file of its own, all links to one noise."""

    def with_audio(self, utterances):
        return [replace(u, audio=self.audio_of(u)) if u.audio == self.clip else u for u in utterances]

    def audio_of(self, utterance):
        path = self.clip.with_name(f"{utterance.id}.wav")
        if not path.exists():
            os.link(self.clip, path)
        return path

    def unify(self, target="target", protocol="speaker", folds="all", corpora=("target", "other"), **more):
        recipe = Recipe(target, protocol, corpora, **more)
        return unify(recipe, folds, self.root / "manifests", self.root / "fbank", self.root / "msud")

    def sets(self, fold=1, name="target.speaker"):
        folder = self.root / "msud" / name / f"fold{fold}"
        return {p.name.split(".")[0]: list(CutSet.from_file(p)) for p in folder.glob("*.jsonl.gz")}


@pytest.fixture
def data(toys, tmp_path, capsys):
    set_up_logging()
    made = Data(tmp_path, toys)
    made.add(
        TARGET,
        [
            Utterance(
                f"t-{s}-{label}-{n}",
                made.clip,
                s,
                "F" if s == "s1" else None if s == "s3" else "M",
                label=label,
                text_id=str(n),
            )
            for s in ("s1", "s2", "s3")
            for label in LABELS
            for n in range(10)
        ],
    )
    made.add(
        OTHER,
        [  # its speakers and texts are in its training and test parts, under the target's names
            Utterance(
                f"o-{split}-{n}",
                made.clip,
                "s1",
                "F",
                label="mad" if n % 2 else "calm",
                level="a" if n % 2 else None,
                split=split,
                text_id=str(n),
            )
            for split in OTHER.splits
            for n in range(4)
        ],
    )
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
    assert "its options changed (corpora, seed)" in run(corpora=())
    run()
    data.add(OTHER, [Utterance("o-1", data.clip, "s1", "F", label="mad", split="train")])
    assert "its inputs changed" in run()
    assert [i for i in ids(data.sets()["emotion"]) if i.startswith("o-")] == ["o-1"]
    (data.root / "msud" / "target.speaker" / "fold1" / "dev.jsonl.gz").write_bytes(b"")
    assert "is missing or has changed" in run()


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


def test_a_corpus_without_emotions_is_refused(data):
    data.add(READ, [Utterance("x", data.clip, "s", text="你好", split="train")])
    with pytest.raises(InputError, match="read: has no emotion labels"):
        data.unify(corpora=("read",))


NEUTRALS = Corpus(
    "neutrals",
    "a corpus with two kinds of neutral",
    "English",
    "DIR/*.wav",
    labels={"neutral": "neutral", "calm": "neutral", "happy": "joy", "bored": "boredom", "loath": "disgust"},
    levels=("normal", "strong"),
)
SCALED = Corpus(
    "scaled",
    "a corpus with dominance",
    "English",
    "DIR/*.wav",
    labels={"neu": "neutral", "hap": "joy"},
    scale=(1.0, 5.0),
    splits=("train", "dev", "test"),
    test_split="test",
)


@pytest.fixture
def rich(data):
    """Two more corpora: own classes and levels; a continuous scale, sessions and official parts."""
    data.add(
        NEUTRALS,
        [
            Utterance(
                f"n-{s}-{label}-{n}", data.clip, s, "F", label=label, level=None if label == "bored" else "normal"
            )
            for s in ("a", "b")
            for label in NEUTRALS.labels
            for n in range(5)
        ],
    )
    data.add(
        SCALED,
        [
            Utterance(
                f"c-{split}-{label}-{n}",
                data.clip,
                f"Ses{n % 2}",
                "M",
                label=label,
                intensity=2.0 + n % 3,
                split=split,
                session=str(n % 2),
            )
            for split in SCALED.splits
            for label in SCALED.labels
            for n in range(10)
        ],
    )
    return data


def eis_of(cuts, label):
    return {cut.supervisions[0].custom["eis"] for cut in cuts if cut.supervisions[0].custom["emotion"] == label}


@pytest.mark.parametrize(
    "rule, with_levels, scaled, unspecified",
    [
        ("declared", {0.0}, {1.75, 2.5, 3.25}, {-1.0}),
        ("metric", {0.0}, {0.0}, {0.0}),
        ("corpus", {2.0}, {1.75, 2.5, 3.25}, {-1.0}),
    ],
)
def test_the_eis_of_neutral_clips_is_a_switch(rich, rule, with_levels, scaled, unspecified):
    rich.unify("neutrals", "speaker", "1", ("scaled", "target"), neutral_eis=rule)
    cuts = rich.sets(1, experiment_name("neutrals", "speaker", neutral_eis=rule))["emotion"]
    of = {
        name: [c for c in cuts if c.supervisions[0].custom["corpus"] == name]
        for name in ("neutrals", "scaled", "target")
    }
    assert eis_of(of["neutrals"], "neutral") == eis_of(of["neutrals"], "calm") == with_levels
    assert eis_of(of["scaled"], "neu") == scaled and eis_of(of["target"], "calm") == unspecified
    # the others are not touched: the level, the place of boredom on the wheel, the rescaled value, nothing
    assert eis_of(of["neutrals"], "happy") == {2.0} and eis_of(of["neutrals"], "bored") == {1.5}
    assert eis_of(of["scaled"], "hap") == {1.75, 2.5, 3.25} and eis_of(of["target"], "mad") == {-1.0}


def test_classes_are_those_of_seqm_or_the_targets_own(rich):
    rich.unify("neutrals", "speaker", "1", ("scaled", "target"))
    note = load_fold(rich.root / "msud" / "neutrals.speaker", 1)
    assert class_table(note).names == seqm.CATEGORIES
    for cut in rich.sets(1, "neutrals.speaker")["emotion"]:
        custom = cut.supervisions[0].custom
        assert custom["class"] == seqm.esc_index(custom["esc"])

    rich.unify("neutrals", "speaker", "1", ("scaled", "target"), classes="corpus")
    name = experiment_name("neutrals", "speaker", "corpus")
    assert name == "neutrals.speaker.corpus_classes"
    table = class_table(load_fold(rich.root / "msud" / name, 1))
    assert table.names == ("bored", "calm", "happy", "loath", "neutral")
    assert table.categories == ("disgust", "neutral", "joy", "disgust", "neutral")
    sets = rich.sets(1, name)
    for cut in sets["emotion"] + sets["test"] + sets["dev"]:
        custom = cut.supervisions[0].custom
        # clips of others: neutral is the label of that name, disgust the plain one; anger has no class here
        expected = (
            custom["emotion"]
            if custom["corpus"] == "neutrals"
            else {"neutral": "neutral", "joy": "happy"}[custom["esc"]]
        )
        assert table.names[custom["class"]] == expected
    dropped = read_json(rich.root / "msud" / name / "fold1" / STAMP)["dropped"]
    assert len(dropped["anger of target, which is no single class of neutrals"]) == 30


def test_votes_become_soft_labels(data):
    votes = {"happy": {"joy": 3, "neutral": 1}, "bored": {"fear": 2}, "neutral": {"fear": 1, "neutral": 1}}
    clips = [
        Utterance(
            f"v-{s}-{label}-{n}", data.clip, s, label=label, extra={"votes": votes[label]} if label in votes else {}
        )
        for s in ("a", "b")
        for label in NEUTRALS.labels
        for n in range(5)
    ]
    data.add(NEUTRALS, clips)

    def shares_of(**options):
        data.unify("neutrals", "speaker", "1", ("target",), **options)
        classes = options.get("classes", "seqm")
        table = class_table(load_fold(data.root / "msud" / experiment_name("neutrals", "speaker", classes), 1))
        return {
            cut.supervisions[0].custom["emotion"]: shares and dict(zip(table.names, shares))
            for cut in data.sets(1, experiment_name("neutrals", "speaker", classes))["emotion"]
            for shares in [cut.supervisions[0].custom.get("class_shares")]
        }

    found = shares_of()
    assert found["happy"] == {**dict.fromkeys(seqm.CATEGORIES, 0.0), "joy": 0.75, "neutral": 0.25}
    assert found["bored"]["fear"] == 1.0 and found["calm"] is None and found["mad"] is None
    # votes for what is not in use do not count
    found = shares_of(use=parse_use(["neutral,joy,disgust"]))
    assert found["neutral"]["neutral"] == 1.0 and found["bored"] is None
    # no class of the target is fear
    found = shares_of(classes="corpus")
    assert found["happy"] == {"bored": 0, "calm": 0, "happy": 0.75, "loath": 0, "neutral": 0.25}
    assert found["bored"] is None


def test_a_corpus_can_be_restricted_to_some_categories(rich):
    rich.unify("scaled", "official", "1", ("neutrals", "target"), use=parse_use(["neutral,joy", "target=anger"]))
    sets = rich.sets(1, "scaled.official")
    corpora = {}
    for cut in sets["emotion"]:
        custom = cut.supervisions[0].custom
        corpora.setdefault(custom["corpus"], set()).add(custom["esc"])
    assert corpora == {"scaled": {"neutral", "joy"}, "neutrals": {"neutral", "joy"}, "target": {"anger"}}
    stamp = read_json(rich.root / "msud" / "scaled.official" / "fold1" / STAMP)
    assert len(stamp["dropped"]["disgust of neutrals, not in use"]) == 20
    assert stamp["in"] == stamp["out"] + sum(map(len, stamp["dropped"].values())) == 60 + 50 + 60
    with pytest.raises(InputError, match="'happiness' is not one of SEQM's categories"):
        rich.unify("scaled", "official", use=parse_use(["happiness"]))
    with pytest.raises(InputError, match="names no category"):
        parse_use(["target="])


def test_the_official_dev_part_of_the_target_is_its_dev_part(rich):
    rich.unify("scaled", "official", "1", ())
    sets = rich.sets(1, "scaled.official")
    assert ids(sets["dev"]) == {f"c-dev-{label}-{n}" for label in SCALED.labels for n in range(10)}
    assert {i.split("-")[1] for i in ids(sets["emotion"])} == {"train"}
    rich.unify("scaled", "official", "1", (), dev="clips")
    assert {i.split("-")[1] for i in ids(rich.sets(1, "scaled.official")["emotion"])} == {"train", "dev"}
    # another protocol deals all clips out, whatever official part they are in; a random one would train on the test
    rich.unify("scaled", "session", "all", ())
    assert {i.split("-")[1] for i in ids(rich.sets(1, "scaled.session")["test"])} == {"train", "dev", "test"}
    with pytest.raises(InputError, match="has a fixed test part"):
        rich.unify("scaled", "random5")
    with pytest.raises(InputError, match="has no official dev part"):
        rich.unify("target", "speaker", dev="official")


def test_cross_corpus_tests_on_an_unseen_corpus_in_the_classes_in_common(rich):
    assert rich.unify("target", "cross", "all", ("target", "neutrals", "scaled")) == [1]
    sets = rich.sets(1, "target.cross")
    corpora = {name: {cut.supervisions[0].custom["corpus"] for cut in cuts} for name, cuts in sets.items()}
    assert corpora["test"] == {"target"} and corpora["emotion"] == {"neutrals", "scaled"}
    assert corpora["dev"] <= {"neutrals", "scaled"} and corpora["gender"] == {"neutrals", "scaled"}
    # target has anger and neutral, the others joy, disgust and neutral
    assert {c.supervisions[0].custom["esc"] for cuts in sets.values() for c in cuts} == {"neutral"}
    assert len(sets["test"]) == 30
    note = load_fold(rich.root / "msud" / "target.cross", 1)
    assert note["corpora"] == ["neutrals", "scaled"] and note["test_speakers_in_training"] == 0
    stamp = read_json(rich.root / "msud" / "target.cross" / "fold1" / STAMP)
    assert len(stamp["dropped"]["anger of target, which the other corpora lack"]) == 30
    with pytest.raises(InputError, match=r"has no class in common with neutrals \(disgust, joy\)"):
        rich.unify("target", "cross", "all", ("neutrals",), use=parse_use(["target=anger", "neutrals=joy,disgust"]))
    with pytest.raises(InputError, match="compares corpora in SEQM's classes"):
        rich.unify("target", "cross", "all", ("neutrals",), classes="corpus")


def test_published_folds(rich, tmp_path):
    table = tmp_path / "folds.tsv"
    lines = [f"t-{s}-{label}-{n}\t{1 + n % 2}" for s in ("s1", "s2", "s3") for label in LABELS for n in range(10)]
    table.write_text("clip\ttest_fold\n" + "\n".join(lines) + "\n")
    assert rich.unify("target", "published", folds_file=table) == [1, 2]
    assert ids(rich.sets(1, "target.published")["test"]) == {
        line.split("\t")[0] for line in lines if line.endswith("1")
    }
    note = load_fold(rich.root / "msud" / "target.published", 1)
    assert note["folds_file"] == "folds.tsv" and note["test_speakers_in_training"] == 3
    # clips that the list does not name are dropped, by count; lines that name no clip are refused
    table.write_text("clip\ttest_fold\n" + "\n".join(lines[:-1]) + "\n")
    rich.unify("target", "published", folds_file=table)
    stamp = read_json(rich.root / "msud" / "target.published" / "fold1" / STAMP)
    assert stamp["dropped"]["target outside the list of folds"] == [lines[-1].split("\t")[0]]
    table.write_text("clip\ttest_fold\n" + "\n".join(lines) + "\nt-s9-mad-1\t1\n")
    with pytest.raises(InputError, match="line 62: names the clip t-s9-mad-1, which the corpus does not have"):
        rich.unify("target", "published", folds_file=table)
    with pytest.raises(InputError, match="there is no protocol 'published'.*--folds-file"):
        rich.unify("target", "published")


def test_corpora_of_the_recipe_that_are_not_given_are_named(rich):
    rich.unify("target", "speaker", "1", ("scaled",), recipe_corpora=("target", "scaled", "neutrals", "absent"))
    assert load_fold(rich.root / "msud" / "target.speaker", 1)["left_out"] == ["neutrals", "absent"]


def test_a_list_of_folds_is_held_against_all_clips_also_those_not_in_use(rich, tmp_path):
    table = tmp_path / "folds.tsv"
    lines = [f"t-{s}-{label}-{n}\t{1 + n % 2}" for s in ("s1", "s2", "s3") for label in LABELS for n in range(10)]
    table.write_text("clip\ttest_fold\n" + "\n".join(lines) + "\n")
    rich.unify("target", "published", folds_file=table, use=parse_use(["anger"]))
    test = ids(rich.sets(1, "target.published")["test"])
    assert test == {line.split("\t")[0] for line in lines if line.endswith("1") and "mad" in line}
    table.write_text("clip\ttest_fold\n" + "\n".join(lines) + "\nt-s9-mad-1\t1\n")
    with pytest.raises(InputError, match="line 62: names the clip t-s9-mad-1"):
        rich.unify("target", "published", folds_file=table, use=parse_use(["anger"]))


def test_a_partial_copy_may_lack_clips_of_the_list_and_says_how_many(rich, tmp_path, capsys):
    rich.add(
        SCALED,
        [Utterance(f"c-{n}", rich.clip, f"s{n % 2}", "F", label="hap", split="train") for n in range(8)],
        partial=True,
    )
    table = tmp_path / "folds.tsv"
    table.write_text("clip\ttest_fold\n" + "".join(f"c-{n}\t{1 + n % 2}\n" for n in range(10)))
    capsys.readouterr()
    rich.unify("scaled", "published", folds_file=table, corpora=())
    assert "2 lines name clips that are missing in this copy of scaled" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["cross", "random5", "random10", "official"])
def test_a_list_of_folds_under_the_name_of_another_protocol(protocol, tmp_path):
    with pytest.raises(InputError, match="makes its own"):
        Recipe("target", protocol, (), folds_file=tmp_path / "folds.tsv")


@pytest.mark.parametrize("protocol", ["a/b", "../x", "", "a b", "-x"])
def test_a_protocol_whose_name_is_no_folder(protocol):
    with pytest.raises(InputError, match="letters, digits"):
        experiment_name("target", protocol)


def test_folds_of_another_partition_are_told_apart(rich, tmp_path):
    """What would make a mean over folds meaningless changes the partition; which folds are asked for does not."""

    def partition(fold, **options):
        rich.unify("target", "published", str(fold), ("neutrals",), folds_file=table, **options)
        return load_fold(rich.root / "msud" / "target.published", fold)["partition"]

    table = tmp_path / "folds.tsv"
    names = [f"t-{s}-{label}-{n}" for s in ("s1", "s2", "s3") for label in LABELS for n in range(10)]
    table.write_text("clip\ttest_fold\n" + "".join(f"{name}\t{1 + k % 4}\n" for k, name in enumerate(names)))
    first = partition(1)
    assert partition(2) == first != partition(2, seed=1)
    table.write_text("clip\ttest_fold\n" + "".join(f"{name}\t{1 + k % 5}\n" for k, name in enumerate(names)))
    assert partition(5) != first, "a list of five folds after one of four: the old note must not stand in the way"
    assert made_folds(rich.root / "msud" / "target.published", "5") == [5]


def test_the_recipes_restriction_stays_beside_the_users(rich):
    assert parse_use(["*=joy", "ravdess=all"]) == {"*": ["joy"], "ravdess": None}
    assert parse_use(["joy,neutral", "esd_zh=joy", "esd_zh=anger"]) == {"*": ["joy", "neutral"], "esd_zh": ["anger"]}
    assert parse_use(["joy", "all"]) == parse_use(["all"]) == {}
    with pytest.raises(InputError, match="there is no corpus tarrget in this run"):
        rich.unify("target", "speaker", use=parse_use(["tarrget=joy"]))
    Recipe("target", "speaker", (), use=parse_use(["absent=joy"]), recipe_corpora=("absent",))


def test_the_same_audio_under_two_names_is_a_leak(rich):
    twice = [
        Utterance(f"n-{n}", rich.clip.with_name(f"t-s1-mad-{n}.wav"), "x", "F", label="happy", level="normal")
        for n in range(3)
    ]
    rich.add(NEUTRALS, twice)
    with pytest.raises(InputError, match="leak: the test clip t-s1-mad-0 of target is the audio of n-0 of neutrals"):
        rich.unify("target", "speaker", "1", ("neutrals",))
    rich.unify("target", "speaker", "2", ("neutrals",))


def test_cross_corpus_counts_what_is_trained_on(rich):
    """A class that only the other corpora's test part has is no class in common."""
    rich.add(
        SCALED,
        [
            Utterance(
                f"c-{part}-{n}", rich.clip, f"s{n % 2}", "F", label="hap" if part == "test" else "neu", split=part
            )
            for part in ("train", "test")
            for n in range(8)
        ],
    )
    rich.unify("neutrals", "cross", "1", ("scaled",))
    assert {c.supervisions[0].custom["esc"] for c in rich.sets(1, "neutrals.cross")["test"]} == {"neutral"}
    with pytest.raises(InputError, match="trains on other corpora than target: give some"):
        rich.unify("target", "cross", "1", ())


def test_an_utterance_in_two_corpora(rich):
    rich.add(NEUTRALS, [Utterance("t-s1-mad-0", rich.clip, "x", "F", label="happy", level="normal")])
    with pytest.raises(InputError, match="the utterance t-s1-mad-0 is in target and in neutrals"):
        rich.unify("target", "speaker", "1", ("neutrals",))


@pytest.mark.parametrize("option", [dict(classes="own"), dict(neutral_eis="zero"), dict(dev="none")])
def test_switches_take_their_values_only(option):
    with pytest.raises(InputError, match="is not one of"):
        Recipe("target", "speaker", (), **option)


def test_the_dev_part_of_best_test_is_the_test_clips(data):
    data.unify(protocol="random5", folds="1", corpora=("target",), as_published=("best_test",))
    sets = data.sets(name="target.random5.as_published-best_test")
    assert {cut.id for cut in sets["dev"]} == {cut.id for cut in sets["test"]} != set()
    assert not {cut.id for cut in sets["dev"]} & {cut.id for cut in sets["emotion"]}
    note = load_fold(data.root / "msud" / "target.random5.as_published-best_test", 1)
    assert (note["dev"], note["as_published"]) == ("test", ["best_test"])
    assert note["sets"]["dev"] == note["sets"]["test"]

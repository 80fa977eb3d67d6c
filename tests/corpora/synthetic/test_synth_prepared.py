"""Every mini corpus, in both sizes, is accepted by its prep script and comes out with the labels that were spoken."""

import pytest
from lhotse import SupervisionSet

from speecheq.common.files import read_json
from speecheq.corpora.synthetic import CORPORA, SIZES
from speecheq.dataset.protocols import FoldClip, check_leaks, dev_part, make_folds

# prepared corpus -> (mini corpus, clips that the prep leaves out in nano and in mini)
PREPARED = {
    "casia": ("casia", 0, 0),
    "aishell": ("aishell", 0, 0),
    "seqd": ("seqd", 0, 0),
    "esd_zh": ("esd", 60, 160),  # those of the other part
    "esd_en": ("esd", 60, 160),
    "ravdess": ("ravdess", 0, 0),
    "crema_d": ("crema_d", 0, 0),
    "iemocap": ("iemocap", 10, 10),  # frustration and no agreement
    "emodb": ("emodb", 0, 0),
    "msp_improv": ("msp_improv", 2, 2),  # other, and no agreement
    "librispeech": ("librispeech", 0, 0),
}
# the gold values of the intensity that each corpus declares; None: a continuous scale
EIS = {
    "seqd": {0.0, 1.5, 2.5, 3.5}, "ravdess": {0.0, 2.0, 3.0}, "crema_d": {-1.0, 0.0, 1.5, 2.5, 3.5},
    "emodb": {-1.0, 1.5},  # boredom is disgust at its low level
    "iemocap": None, "msp_improv": None,
}  # fmt: skip
# besides random folds and leaving one speaker out
PROTOCOLS = {
    "seqd": ("official",),
    "esd_zh": ("text", "official"),
    "esd_en": ("text", "official"),
    "crema_d": ("text",),
    "emodb": ("text",),
    "iemocap": ("session",),
    "msp_improv": ("session", "text"),
}


def test_every_mini_corpus_is_prepared_below():
    assert {corpus for corpus, *_ in PREPARED.values()} == set(CORPORA)


@pytest.fixture(scope="module")
def prepared(prepare, nano, mini, tmp_path_factory):
    """``prepared(name, size)``: the supervisions and the card."""
    root = tmp_path_factory.mktemp("manifests")

    def run(name, size):
        corpus = PREPARED[name][0]
        folder, counts = nano[corpus] if size == "nano" else mini(corpus)
        out = root / size / name
        assert prepare(name, folder, out, "--partial", "true") == 0
        parts = [SupervisionSet.from_file(path) for path in sorted(out.glob("*_supervisions_*.jsonl.gz"))]
        return [supervision for part in parts for supervision in part], read_json(out / f"{name}_card.json"), counts

    return run


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PREPARED)
def test_its_prep_script_takes_it(prepared, name, size):
    supervisions, card, counts = prepared(name, size)
    left_out = PREPARED[name][1 if size == "nano" else 2]
    assert len(supervisions) == card["utterances"] == counts["clips"] - left_out
    genders = {}
    for supervision in supervisions:
        genders.setdefault(supervision.gender, set()).add(supervision.speaker)
    assert set(genders) == {"F", "M"} and min(map(len, genders.values())) >= 2
    values = {supervision.custom["eis"] for supervision in supervisions}
    wanted = EIS.get(name, {-1.0})
    if wanted is not None:
        assert values == wanted
    else:
        assert -1.0 in values and all(1 <= value <= 4 for value in values - {-1.0}) and len(values) >= 5


@pytest.mark.parametrize("name", ["iemocap", "msp_improv", "esd_en", "crema_d", "ravdess"])
def test_the_four_classes_of_experiment_2_are_in_every_speaker(prepared, name):
    supervisions, *_ = prepared(name, "nano")
    by_speaker = {}
    for supervision in supervisions:
        by_speaker.setdefault(supervision.speaker, set()).add(supervision.custom["esc"])
    assert all({"anger", "joy", "neutral", "sadness"} <= classes for classes in by_speaker.values())


def test_the_label_is_the_listeners_and_not_the_name_of_the_scenario(prepared):
    supervisions, *_ = prepared("msp_improv", "nano")
    angry = [s for s in supervisions if s.custom["emotion"] == "angry"]
    assert any(s.id.split("-")[1].endswith("N") for s in angry)


def test_texts_of_every_encoding_are_read(prepared):
    for name, wanted in (("esd_zh", "哥哥找到钥匙。"), ("esd_en", "The café is closed today.")):
        supervisions, *_ = prepared(name, "mini")
        assert {s.text for s in supervisions if s.custom["text_id"] == "1"} == {wanted}
        assert len({s.speaker for s in supervisions if s.custom["text_id"] == "1"}) == 4


def test_official_parts_are_found_in_both_layouts(prepared):
    for name in ("esd_zh", "esd_en"):
        _, card, _ = prepared(name, "mini")
        assert card["counts"]["split"] == {"dev": 20, "test": 40, "train": 100}


@pytest.mark.parametrize("name", [name for name in PREPARED if name not in ("aishell", "librispeech")])
def test_nano_is_enough_for_every_protocol_with_a_dev_part(prepared, name):
    """All classes are trained on and are in the dev part, in every fold."""
    supervisions, *_ = prepared(name, "nano")
    clips = [
        FoldClip(
            s.id,
            s.speaker,
            s.custom["esc"],
            s.custom.get("text_id"),
            s.custom.get("split"),
            name,
            s.custom.get("session"),
        )
        for s in supervisions
    ]
    classes = {clip.label for clip in clips}
    for protocol in ("random10", "random5", "speaker", *PROTOCOLS.get(name, ())):
        for test in make_folds(protocol, clips):
            left = [clip for clip in clips if clip.id not in test]
            dev = dev_part(left)
            training = [clip for clip in left if clip.id not in dev]
            assert {clip.label for clip in training} == classes
            assert {clip.label for clip in left if clip.id in dev} == classes
            of_dev, of_test = ([clip for clip in clips if clip.id in ids] for ids in (dev, test))
            check_leaks(protocol, training, of_dev, of_test)

"""Other corpora: which clips and classes are tested, what is refused, what adaptation learns from."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_json
from speecheq.config.schema import Config, ModelConfig
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.dataset.classes import ClassMap, class_table
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.evaluation.predictions import ClipPrediction, predict_emotions
from speecheq.evaluation.robustness.conditions import Condition
from speecheq.evaluation.robustness.cross_corpus_trial import (
    CorpusTrial,
    adapt,
    check_corpus_not_trained_on,
    choose_adaptation_clips,
    learned_classes,
    match_level,
    restrict_predictions,
    select_common_clips,
)
from speecheq.evaluation.robustness.training_history import TrainingRecord
from speecheq.evaluation.score import BestModel
from speecheq.features.storage import compute_features, load_cuts, load_features
from speecheq.models import checkpoint
from speecheq.seqm import CATEGORIES

HOME = {"mad": "anger", "glad": "joy", "plain": "neutral", "sad": "sadness"}
ABROAD = {"wuetend": "anger", "froh": "joy", "angst": "fear", "ruhig": "neutral"}


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Two prepared corpora, home (its folds too) and abroad, of other labels."""
    folder = tmp_path_factory.mktemp("two")
    for name, labels in (("home", HOME), ("abroad", ABROAD)):
        found = [
            Utterance(
                f"{name}-{label}-{take}",
                toys.write_wav(folder / name / f"{label}{take}.wav", 0.4 + 0.05 * take),
                f"{name}{take % 2}",
                "FM"[take % 2],
                label=label,
            )
            for label in labels
            for take in range(6)
        ]
        prepare_corpus(
            Corpus(name, name, "German", "DIR/*.wav", labels=labels),
            lambda *_: found,
            PrepareRequest(folder / name),
            folder / "manifests" / name,
        )
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify(Recipe("home", "speaker", ["home"]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    return folder


@pytest.fixture(scope="module")
def note(data):
    return read_json(data / "msud/home.speaker/fold1/msud.json")


@pytest.fixture(scope="module")
def history(note):
    """A training on home alone."""
    return [
        TrainingRecord(Path("exp/fold1/seed1"), {"system": "wo_mtl", "phonemes": None, "msud": note}, (), ("home",))
    ]


@pytest.fixture(scope="module")
def trained():
    config = Config()
    config.data.cmvn, config.data.max_seconds, config.data.batch_size = "utterance", 0.5, 4
    config.model = ModelConfig(channels=8, mfa_channels=8, scale=2, bottleneck=4, embedding_dim=8)
    torch.manual_seed(0)
    return BestModel(checkpoint.new_model(config).eval(), config, {}, torch.device("cpu"))


def trial(data, **options):
    return CorpusTrial(("abroad",), data / "manifests", data / "fbank", **options)


def esc(cut):
    return cut.supervisions[0].custom["esc"]


COMMON = [CATEGORIES.index(name) for name in ("neutral", "joy", "anger")]


def common_cuts(data):
    """The cuts of abroad whose class home has."""
    cuts = [cut for cut in load_cuts(data / "fbank/abroad") if esc(cut) != "fear"]
    for cut in cuts:
        cut.supervisions[0].custom["class"] = 0
    return cuts


def test_the_classes_that_both_have_are_tested(data, history, note, trained):
    predictions, facts = trial(data).predict(history, note, trained)
    assert list(predictions) == [Condition("abroad")]
    clips = predictions[Condition("abroad")]
    assert {clip.gold_esc for clip in clips} == set(COMMON) and len(clips) == 18
    assert facts["notes"] == ["abroad: 18 clips, the answers are among neutral, joy, anger; 6 clips left out: fear"]
    alone = {clip.id: clip for clip in predict_emotions(trained.model, common_cuts(data), 4, trained.device)}
    for clip in clips:
        assert clip.predicted_esc == alone[clip.id].predicted_among(COMMON)
        assert sum(clip.posterior) == pytest.approx(1) and not any(
            value for number, value in enumerate(clip.posterior) if number not in COMMON
        )


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.sets(st.integers(0, 3), min_size=1))
def test_answers_among_some_classes(posterior, classes):
    clip = ClipPrediction("u", "c", "s", 0, posterior, -1.0, 2.0, None, "F")
    (made,) = restrict_predictions([clip], sorted(classes))
    assert made.predicted_esc in classes and sum(made.posterior) == pytest.approx(1)
    assert max(posterior[k] for k in classes) == pytest.approx(posterior[made.predicted_esc], abs=2e-12)


def test_what_was_learned_are_the_classes_of_the_training_clips(note):
    names = class_table(note).names
    wide = {
        **note,
        "sets": {
            "emotion": {"class": {**note["sets"]["emotion"]["class"], "disgust": 3}},
            "test": note["sets"]["test"],
        },
    }
    assert learned_classes(wide, "all") == [name for name in names if name in {*HOME.values(), "disgust"}]
    assert learned_classes(wide, "target") == [name for name in names if name in HOME.values()]


@pytest.mark.parametrize(
    "corpora, phonemes, words",
    [(("abroad", "home"), False, "was trained on it"), (("home",), True, "learned phonemes from it")],
)
def test_a_corpus_that_was_learned_from_tells_nothing(history, corpora, phonemes, words, tmp_path):
    check_corpus_not_trained_on("abroad", history)
    with pytest.raises(InputError, match="home: is the target"):
        check_corpus_not_trained_on("home", history)
    write_json(tmp_path / "phonemes.json", {"corpus": "abroad"})
    run = {**history[0].run, "phonemes": str(tmp_path) if phonemes else None}
    learned = history[0]._replace(corpora=corpora, run=run)
    with pytest.raises(InputError, match=f"abroad: wo_mtl {words}; name a corpus"):
        check_corpus_not_trained_on("abroad", [learned])
    before = learned._replace(folder=Path("exp-before"))
    with pytest.raises(InputError, match=rf"abroad: wo_mtl started from weights that {words} \(exp-before\)"):
        check_corpus_not_trained_on("abroad", [history[0], history[0], before])


def test_no_class_in_common(data, note):
    classes = ClassMap(Recipe("home", "speaker", ()), {})
    with pytest.raises(
        InputError,
        match=r"abroad \(anger, fear, joy, neutral\) has no class in common with what home "
        r"taught \(disgust\)",
    ):
        select_common_clips("abroad", list(load_cuts(data / "fbank/abroad")), classes, ["disgust"])


def test_clips_that_adapt_are_not_tested(data, history, note, trained):
    predictions, facts = trial(data, shots=(3, 1)).predict(history, note, trained)
    assert [(condition.curve, condition.level) for condition in predictions] == [
        ("abroad", 0.0),
        ("abroad", 1.0),
        ("abroad", 3.0),
    ]
    tested = [{clip.id for clip in clips} for clips in predictions.values()]
    assert tested[0] == tested[1] == tested[2] and len(tested[0]) == 9
    plain = [clip.posterior for clip in predictions[Condition("abroad, 0 clips a class", "abroad", 0.0)]]
    adapted = [clip.posterior for clip in predictions[Condition("abroad, 3 clips a class", "abroad", 3.0)]]
    assert plain != adapted and "adapted models: all weights" in facts["notes"][-1]
    again, _ = trial(data, shots=(3, 1)).predict(history, note, trained)
    assert again == predictions, "all is drawn with a seed"


def normalised_globally(trained, mean, deviation=2.0):
    """The same with statistics of a training."""
    config = copy.deepcopy(trained.config)
    config.data.cmvn = "global"
    model = copy.deepcopy(trained.model)
    model.cmvn.mode = "global"
    model.cmvn.mean, model.cmvn.deviation = mean, torch.full_like(mean, deviation)
    return trained._replace(model=model, config=config)


@pytest.mark.parametrize("shots", [(), (1,)])
def test_a_corpus_of_another_level_is_also_tried_at_that_of_the_training(data, history, note, trained, shots):
    """As the clips would answer that were recorded as much louder as the training's were."""
    cuts = common_cuts(data)
    level = torch.cat([load_features(cut) for cut in cuts]).mean()
    mean = torch.linspace(-1, 1, 80) + level + 3.5
    predictions, facts = trial(data, shots=shots).predict(history, note, normalised_globally(trained, mean))
    names = [condition.name for condition in predictions]
    assert names[:2] == [
        f"abroad{end}"
        for end in (("", ", level matched") if not shots else (", 0 clips a class", ", level matched, 0 clips a class"))
    ]
    assert [(condition.curve, condition.level) for condition in predictions][:2] == (
        [("", None)] * 2 if not shots else [("abroad", 0.0), ("abroad, level matched", 0.0)]
    )
    assert facts["notes"][-2 if shots else -1].startswith("level matched: one gain for all clips of the corpus")
    as_it_is, matched = list(predictions.values())[:2]
    tested = {clip.id for clip in matched}
    level = torch.cat([load_features(cut) for cut in cuts if cut.id in tested]).mean()
    louder = normalised_globally(trained, mean - (mean.mean() - level))
    wanted = {clip.id: clip for clip in predict_emotions(louder.model, cuts, 4, trained.device)}
    for clip, other in zip(matched, as_it_is):
        posterior = torch.tensor(wanted[clip.id].posterior)[COMMON]
        assert torch.tensor(clip.posterior)[COMMON].tolist() == pytest.approx(
            (posterior / posterior.sum()).tolist(), rel=1e-3
        )
        assert clip.posterior != other.posterior


def test_of_a_training_of_the_same_level_matching_changes_nothing(data, trained):
    cuts = common_cuts(data)
    mean = torch.linspace(-1, 1, 80)
    mean += torch.cat([load_features(cut) for cut in cuts]).mean() - mean.mean()
    model = normalised_globally(trained, mean)
    assert torch.allclose(match_level(model, cuts).model.cmvn.mean, mean, atol=1e-4)
    assert match_level(normalised_globally(trained, mean + 5), cuts).model.cmvn.mean.tolist() == pytest.approx(
        mean.tolist(), abs=1e-3
    )


def test_a_model_that_normalises_each_clip_knows_no_level(data, history, note, trained):
    predictions, facts = trial(data).predict(history, note, trained)
    assert list(predictions) == [Condition("abroad")] and not any("level" in one for one in facts["notes"])


def test_more_clips_hold_the_fewer(data):
    cuts = list(load_cuts(data / "fbank/abroad"))
    for cut in cuts:
        cut.supervisions[0].custom["class"] = CATEGORIES.index(esc(cut))
    few, more = choose_adaptation_clips("abroad", cuts, 2), choose_adaptation_clips("abroad", cuts[::-1], 4)
    assert sorted(few) == sorted(more) == sorted({CATEGORIES.index(name) for name in ABROAD.values()})
    for number, clips in few.items():
        assert [cut.id for cut in more[number][:2]] == [cut.id for cut in clips] and len(more[number]) == 4
    with pytest.raises(InputError, match="has only 6 clips of .*, so 6 to adapt to leave none to test"):
        choose_adaptation_clips("abroad", cuts, 6)


def test_adaptation_learns_its_clips_and_leaves_the_model_alone(data, trained):
    cuts = [cut for cut in load_cuts(data / "fbank/abroad") if esc(cut) in ("anger", "joy")][:8:3]
    for place, cut in enumerate(cuts):
        cut.supervisions[0].custom["class"] = (1, 2)[place % 2]
    before = [value.clone() for value in trained.model.state_dict().values()]

    def loss(model):
        clips = restrict_predictions(predict_emotions(model, cuts, 4, trained.device), [1, 2])
        return -sum(torch.tensor(clip.posterior[clip.gold_esc]).log() for clip in clips)

    learned = adapt(trained, cuts, [1, 2])
    assert loss(learned.model) < 0.8 * loss(trained.model)
    assert all(torch.equal(*pair) for pair in zip(before, trained.model.state_dict().values()))
    buffers = dict(learned.model.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in trained.model.named_buffers()), (
        "statistics are fixed"
    )


def test_a_corpus_that_is_not_prepared_names_its_stage(data, tmp_path):
    from speecheq.common.stages import Stage
    from speecheq.evaluation.robustness.run_trials import run_trial

    folder = tmp_path / "fold1/seed1"
    folder.mkdir(parents=True)
    Stage("train", "a training", folder, {}, [], 1).finish(folder, 1, 1, outputs=[])
    with pytest.raises(InputError, match=r"elsewhere.* stage 2 \(features\)"):
        run_trial(
            folder, data / "msud/home.speaker", 1, CorpusTrial(("elsewhere",), data / "manifests", data / "fbank")
        )


def test_unlabelled_speech_of_the_other_corpus_is_refused(data, history, note, trained):
    from speecheq.corpora.audio_folder import prepare as prepare_audio

    prepare_audio("unlabelled", "speech", PrepareRequest(data / "abroad"), data / "unlabelled", speech=True)
    sounds = {"unlabelled": {"manifests": str(data / "unlabelled")}}
    learned = history[0]._replace(run={**history[0].run, "sounds": sounds})
    for records in ([learned], [history[0], learned]):
        with pytest.raises(InputError, match="is unlabelled speech"):
            trial(data).predict(records, note, trained)

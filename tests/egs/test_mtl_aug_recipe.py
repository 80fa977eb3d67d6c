"""The recipe of MTL-AUG on nano corpora: every stage, its systems, and the settings in which they are tried."""

import csv
import json

import pytest

SYSTEMS = ("emotion", "mtl_aug_unlabelled", "mtl_aug_unlabelled_cnn_blstm")


@pytest.fixture(scope="module")
def mtl_aug(recipe, warm_venv):
    return recipe("mtl_aug", warm_venv)


@pytest.fixture(scope="module")
def given(nano, toys, tmp_path_factory):
    """Corpora, noises, and unlabelled speech of which a file is damaged."""
    corpora, folder = nano("ravdess", "casia", "librispeech"), tmp_path_factory.mktemp("sounds")
    for number in range(2):
        toys.write_wav(folder / "noise" / f"{number}.wav", 1.0)
    (folder / "speech").mkdir()
    for path in sorted((corpora / "librispeech").rglob("*.flac"))[:12]:
        (folder / "speech" / path.name).write_bytes(path.read_bytes())
    (folder / "speech" / "broken.flac").write_bytes(b"fLaC")
    return [
        "--ravdess",
        corpora / "ravdess",
        "--casia",
        corpora / "casia",
        "--noise",
        folder / "noise",
        "--unlabelled",
        folder / "speech",
        "--partial",
        "true",
    ]


@pytest.fixture(scope="module")
def walked(recipe, given, tmp_path_factory):
    """A folder that all stages have walked through, each alone in a fresh shell, and what each printed."""
    folder, printed, mtl_aug = tmp_path_factory.mktemp("walk"), [], recipe("mtl_aug")
    # the nano configuration, with what all systems of this recipe have in common
    conf = mtl_aug.folder / "conf" / "mtl_aug.yaml"
    where = [str(folder / "nano.yaml") if str(part).endswith("nano.yaml") else part for part in mtl_aug.where(folder)]
    nano = mtl_aug.where(folder)[mtl_aug.where(folder).index("--config") + 1]
    (folder / "nano.yaml").write_text(f"base: [{nano}, {conf}]\n")
    options = [*where, "--target", "ravdess", "--systems", " ".join(SYSTEMS)]
    for stage in range(6):
        printed.append(mtl_aug.run(*(given if stage < 2 else []), *options, "--stage", stage, "--stop-stage", stage))
    return folder, options, printed


def test_from_corpora_to_a_table(walked):
    folder, _, printed = walked
    assert "1 dropped: unreadable or too short (broken.flac)" in printed[1].stderr
    for system in SYSTEMS:
        place = folder / f"exp/nano-{system}/ravdess.speaker/fold1/seed1"
        run, metrics = (json.loads((place / name).read_text()) for name in ("run.json", "metrics.json"))
        kinds = {"noise", "unlabelled"} if "unlabelled" in system else {"noise"}
        assert set(run["sounds"]) == set(metrics["run"]["sounds"]) == kinds
        assert metrics["run"]["corpora"] == ["ravdess"], "the target's clips only"
        assert metrics["test.ua"] is not None
        assert metrics["test.eis_mse"] is None and metrics["test.gender"] is None, "they are not learned"
        log = (place / "train.log").read_text()
        assert ("unlabelled_reconstruction" in log) == ("unlabelled" in system)
    page = (folder / "RESULTS.md").read_text()
    assert "also trained with noises (2 files" in page and "unlabelled speech (12 files" in page
    assert "- Of the paper (MTL-AUG) only the abstract was at hand" in page
    assert page.strip() in printed[5].stdout


def test_the_systems_are_tried_on_another_corpus(mtl_aug, walked):
    folder, options, _ = walked
    done = mtl_aug.run(*options, "--stage", 5, "--robustness", "corpora", "--shots", 2, "--systems", "emotion")
    page = (folder / "RESULTS.md").read_text()
    assert "## ravdess, speaker: other corpora" in page and page.strip() in done.stdout
    heading = next(line for line in page.splitlines() if "| 0 clips | 2 clips |" in line)
    line = next(line for line in page.splitlines() if line.startswith("| emotion | nano") and "| casia |" in line)
    assert line.count("|") == heading.count("|")
    assert " clips, the answers are among neutral, " in page
    assert "ravdess: is the target" in mtl_aug.refused(
        *options, "--stage", 5, "--robustness", "corpora", "--other-corpora", "ravdess", "--systems", "emotion"
    )
    assert "must be some of corpora, noise, telephone and attack" in mtl_aug.refused("--robustness", "rain")


def test_noises_are_added_to_what_is_prepared_and_the_page_tells_what_a_part_is_worth(mtl_aug, walked, toys, tmp_path):
    folder, options, _ = walked
    before = (folder / "data/manifests/ravdess/stage.json").read_bytes()
    toys.write_wav(tmp_path / "street" / "car.wav", 1.3)
    done = mtl_aug.run(*options, "--test-noise", tmp_path / "street", "--stage", 1, "--stop-stage", 1)
    assert "noise: 1 files in, 1 out" in done.stderr and "using those in" in done.stderr
    assert (folder / "data/manifests/ravdess/stage.json").read_bytes() == before
    mtl_aug.run(*options, "--stage", 5, "--robustness", "noise", "--systems", "emotion mtl_aug_unlabelled")
    page = (folder / "RESULTS.md").read_text()
    assert "## ravdess, speaker: noisy speech" in page and "## ravdess, speaker: ablation effects" in page
    with open(folder / "exp/tables/ravdess.speaker.test.parts.csv", encoding="utf-8", newline="") as stream:
        rows = {row["condition"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 7, "its own clips, five SNRs, reverberation"
    heading = "both auxiliary tasks, also on unlabelled speech"
    own = [
        json.loads((folder / f"exp/nano-{system}/ravdess.speaker/metrics.json").read_text())["pooled.test.ua"]
        for system in ("mtl_aug_unlabelled", "emotion")
    ]
    assert float(rows["unmodified test clips"][heading]) == pytest.approx(100 * (own[0] - own[1]), abs=0.01)


def test_the_systems_are_one_thing_apart(mtl_aug):
    from speecheq.config.layers import read_systems, resolve

    systems = mtl_aug.folder / "conf/systems.yaml"
    for size in ("from_scratch", "small", "mini"):
        configs = {name: resolve(mtl_aug.folder / f"conf/{size}.yaml", systems, name) for name in read_systems(systems)}
        for name, config in configs.items():
            assert config.data.unlabelled == ("unlabelled" in name)
            assert ("augmentation" in config.label_free_tasks()) == name.startswith(("augmentation", "mtl_aug"))
            assert ("reconstruction" in config.label_free_tasks()) == name.startswith(("reconstruction", "mtl_aug"))
            assert config.model.kind == ("cnn_blstm" if "cnn_blstm" in name else "speecheq")
            assert config.augment.active == (name != "emotion_plain")
            assert config.tasks()[0] == "emotion" and not {"gender", "phoneme"} & set(config.tasks())


def test_a_system_that_learns_from_unlabelled_speech_wants_some(mtl_aug, given, walked, tmp_path):
    folder, options, _ = walked
    manifests = folder / "data/manifests/unlabelled"
    manifests.rename(folder / "kept")
    try:
        words = mtl_aug.refused(*options, "--stage", 4)
    finally:
        (folder / "kept").rename(manifests)
    assert "mtl_aug_unlabelled learns from unlabelled speech" in words and "--unlabelled DIR" in words
    assert "--unlabelled-hours is given without --unlabelled DIR" in mtl_aug.refused("--unlabelled-hours", 1)


def test_test_clips_as_unlabelled_speech_are_refused(mtl_aug, nano, given, walked):
    folder, options, _ = walked
    corpora = nano("ravdess")
    other = ["--unlabelled", corpora / "ravdess", "--ravdess", corpora / "ravdess", "--partial", "true"]
    data = ["--data", folder / "other", "--exp", folder / "other-exp"]
    words = mtl_aug.refused(*options, *data, *other, "--systems", "mtl_aug_unlabelled", "--stage", 1, "--stop-stage", 4)
    assert "is unlabelled speech, but" in words and "of the dev or test part" in words

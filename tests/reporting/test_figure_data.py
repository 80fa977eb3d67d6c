"""The data of the figures are what the score files and the events of the training say."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_data import eis_clip, some_clips
from sklearn.manifold import trustworthiness
from sklearn.metrics import recall_score
from torch.utils.tensorboard import SummaryWriter

from speecheq.evaluation.significance import PooledPredictions
from speecheq.reporting import figure_data
from speecheq.seqm import CATEGORIES, SEQM_CLASSES


@pytest.mark.parametrize(
    "esc, eis, intensity",
    [
        ("joy", -1.0, "unspecified"),
        ("neutral", -1.0, "unspecified"),
        ("neutral", 0.0, "neutral"),
        ("neutral", 2.5, "neutral"),
        ("joy", 1.5, "low"),
        ("joy", 2.0, "medium"),
        ("joy", 2.5, "medium"),
        ("joy", 3.0, "high"),
        ("joy", 3.5, "high"),
    ],
)
def test_the_gold_level_of_a_clip(esc, eis, intensity):
    assert figure_data.intensity(eis_clip(1, CATEGORIES.index(esc), eis), SEQM_CLASSES) == intensity


@given(some_clips)
def test_every_clip_is_in_one_group_and_one_bar(clips):
    groups = figure_data.group_by_intensity(clips, SEQM_CLASSES)
    assert sum(map(len, groups.values())) == len(clips) and all(groups.values())
    assert list(groups) == [name for name in figure_data.INTENSITIES if name in groups]
    for group in groups.values():
        shares = figure_data.eis_shares(group)
        expected = Counter(min(int(made.predicted_eis / 0.25), 15) for made in group)
        assert shares.tolist() == [expected[place] / len(group) for place in range(16)]


@given(st.lists(st.floats(-1e3, 1e3), max_size=300), st.integers(1, 50))
def test_windows_keep_the_mean_and_the_order(values, most):
    curve = figure_data.window_means(list(enumerate(values, 1)), most)
    assert len(curve) == min(most, len(values))
    steps = [step for step, _ in curve]
    assert steps == sorted(steps)
    sizes = [len(part) for part in np.array_split(np.arange(len(values)), max(1, len(curve)))]
    assert sum(size * value for size, (_, value) in zip(sizes, curve)) == pytest.approx(sum(values), abs=1e-6)


def test_values_that_are_not_finite_have_no_point():
    assert figure_data.window_means([(1, float("nan")), (2, 3.0), (3, float("inf"))]) == [(2.0, 3.0)]
    assert figure_data.window_means([(1, float("nan"))]) == []


def test_curves_are_those_of_the_events_and_a_step_that_was_done_again_counts_once(tmp_path):
    with SummaryWriter(str(tmp_path / "tensorboard")) as curves:
        for step in (1, 2, 3):
            curves.add_scalar("train/total", float(step), step)
    with SummaryWriter(str(tmp_path / "tensorboard"), purge_step=3) as curves:
        for step in (3, 4):
            curves.add_scalar("train/total", 10.0 * step, step)
    assert figure_data.read_curves(tmp_path) == {"train/total": [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0)]}
    assert figure_data.read_curves(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("shift", [-5000, 0, 5000])
def test_curves_of_a_training_that_was_broken_off_while_the_clock_was_set(tmp_path, monkeypatch, shift):
    real = time.time
    for number, (first, steps) in enumerate([(1, range(1, 7)), (5, range(5, 7)), (5, range(5, 9)), (7, range(7, 10))]):
        monkeypatch.setattr(time, "time", lambda: real() + number * shift)
        with SummaryWriter(str(tmp_path / "tensorboard"), purge_step=first) as curves:
            for step in steps:
                curves.add_scalar("train/total", 10 * number + step, step)
            if number == 0:
                curves.add_scalar("dev/ua", 0.5, 6)  # not scored again yet
    assert figure_data.read_curves(tmp_path) == {
        "train/total": [(1, 1), (2, 2), (3, 3), (4, 4), (5, 25), (6, 26), (7, 37), (8, 38), (9, 39)]
    }


def test_what_is_near_stays_near():
    random = np.random.default_rng(0)
    vectors = (10 * np.eye(9, 20)[np.arange(60) % 9] + random.normal(size=(60, 20))).astype(np.float32)
    places = figure_data.embed_in_plane(vectors)
    assert places.shape == (60, 2) and trustworthiness(vectors, places) > 0.9
    assert (figure_data.embed_in_plane(vectors) == places).all()


def test_the_ua_of_a_speaker_is_the_mean_recall_of_the_own_classes():
    random = np.random.default_rng(0)
    rows = [
        (
            1,
            1,
            f"clip-{number:03d}",
            f"s{number % 5}",
            int(random.integers(0, 1 + number % 5 + 2)),
            int(random.integers(0, 6)),
        )
        for number in range(200)
    ]
    found = figure_data.speaker_scores(PooledPredictions.from_rows(rows))
    assert [found_one.ua for found_one in found] == sorted(found_one.ua for found_one in found)
    for speaker, ua, clips in found:
        own = [row for row in rows if row[3] == speaker]
        gold, predicted = [row[4] for row in own], [row[5] for row in own]
        expected = recall_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
        assert ua == pytest.approx(expected) and clips == len(own) == 40
    assert len(found) == 5


def test_a_clip_of_several_seeds_counts_once():
    rows = [(seed, 1, name, "s", 0, answer) for seed, answer in ((1, 0), (2, 1)) for name in ("a", "b")]
    assert figure_data.speaker_scores(PooledPredictions.from_rows(rows)) == [figure_data.SpeakerScore("s", 0.5, 2)]

"""The predicted EIS by corpus: groups, means, and the line from predicted to declared EIS."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_data import FACTS, eis_clip, make, predictions, some_clips, summarised

from speecheq import seqm
from speecheq.common.stages import Stage
from speecheq.evaluation.robustness import conditions
from speecheq.evaluation.robustness.conditions import OTHER_CORPORA, Condition
from speecheq.reporting import report
from speecheq.reporting.intensity_tables import intensity_section, line_of

pytestmark = pytest.mark.usefixtures("no_pictures")

EMOTIONAL_EIS = st.floats(1.5, 3.5)


@given(st.lists(EMOTIONAL_EIS, min_size=2, max_size=30).filter(lambda found: max(found) - min(found) > 0.1))
def test_a_line_of_clips_without_noise_is_found(predicted):
    clips = [eis_clip(number, 1, 0.5 + 0.8 * eis, eis) for number, eis in enumerate(predicted)]
    neutral = [eis_clip(100, 0, 0.0, 3.0), eis_clip(101, 1, seqm.UNSPECIFIED, 1.0)]  # neither is on it
    assert line_of(clips + neutral) == pytest.approx((0.5, 0.8), abs=1e-6)


@given(some_clips)
def test_one_level_has_no_line(clips):
    one = [replace(clip, gold_eis=2.0 if clip.gold_eis > seqm.NEUTRAL_MAX else clip.gold_eis) for clip in clips]
    assert line_of(one) is None
    assert line_of([replace(clip, predicted_eis=1.0) for clip in clips]) is None


def other_corpus(folder, levels):
    """Test the fold on clips with a predicted EIS half a point below the declared one, or 3 where none is declared."""
    clips = [
        replace(clip, gold_eis=level, predicted_eis=3.0 if level < 0 else level - 0.5, corpus="other")
        for clip, level in zip(predictions(1, 1, 0.5, 8), levels)
    ]
    stage = Stage("score", "other corpora", folder / OTHER_CORPORA.folder, {}, [folder], OTHER_CORPORA.format)
    conditions.write(stage, OTHER_CORPORA, 1, 1, FACTS, {Condition("other"): clips}, seqm.SEQM_CLASSES)
    experiment = folder.parents[1]
    return replace(summarised(experiment), conditions=conditions.read(experiment)[0])


def test_each_corpus_and_level_has_a_row(tmp_path):
    folder = make(tmp_path, folds=(1,)) / "fold1/seed1"
    section = intensity_section(other_corpus(folder, [1.5, 2.5, 3.5, seqm.UNSPECIFIED] * 6))[0]
    rows = [row[:5] for row in section.tables[0].texts()]
    toy = [["toy", "neutral", "0.0"], ["toy", "emotional", "1.5"], ["toy", "emotional", "2.5"]]
    assert [row[:3] for row in rows[:3]] == toy
    emotional = {row[2]: row[3:] for row in rows[3:] if row[1] == "emotional"}
    assert emotional["2.5"][1] == "2.00" and emotional["none"][1] == "3.00"
    assert sum(int(row[3]) for row in rows[3:]) == 24
    assert section.sentences[-1].startswith("other: declared EIS = 0.50 + 1.00 x predicted EIS")
    assert section.sentences[-1].endswith("a predicted EIS of 2.5 is 3.00 there.")


def test_continuous_intensities_are_rounded_to_halves(tmp_path):
    folder = make(tmp_path, folds=(1,)) / "fold1/seed1"
    rows = intensity_section(other_corpus(folder, [1.6 + 0.04 * number for number in range(24)]))[0].tables[0].texts()
    assert {row[2] for row in rows if row[0] == "other"} == {"1.5", "2.0", "2.5"}


def test_the_table_is_in_the_report_and_only_where_intensities_are_declared(tmp_path):
    experiment = make(tmp_path)
    report.report(tmp_path, "a test", tmp_path / "page.md")
    assert "Intensity by corpus" in (experiment / "RESULTS.md").read_text()
    unlabelled = summarised(experiment)
    for fold in unlabelled.scored:
        fold.sets["test"] = [replace(clip, gold_eis=seqm.UNSPECIFIED) for clip in fold.sets["test"]]
    assert intensity_section(unlabelled) == []

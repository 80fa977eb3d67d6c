"""Strict and as published side by side: which systems are paired, and what the headings say."""

from report_data import make, summarised

from speecheq.reporting.as_published import as_published_sections
from speecheq.reporting.report_text import experiment_facts, group_heading

STRICT = dict(name="toy.speaker", protocol="speaker", test_speakers_in_training=0)
PUBLISHED = dict(
    name="toy.random5.as_published-drop_short-best_test",
    protocol="random5",
    dev="test",
    as_published=["drop_short", "best_test"],
)


def test_the_same_system_stands_side_by_side_under_both(tmp_path):
    strict = summarised(make(tmp_path, "hgfm", 0.5, **STRICT))
    random = summarised(make(tmp_path, "hgfm", 0.6))  # not as published, but test speakers are trained on
    published = summarised(make(tmp_path, "hgfm", 0.9, **PUBLISHED))
    other = summarised(make(tmp_path, "head_fusion", 0.9, **PUBLISHED))  # without its strict twin
    assert as_published_sections([strict, random]) == []
    (section,) = as_published_sections([strict, random, published, other])
    ((name, target, how, wa, _, theirs, their_wa, _, gain, _),) = section.tables[0].texts()
    assert (name, target, how) == ("small-hgfm", "toy", "speaker, folds 1 2 of 2")
    assert theirs == (
        "random5, folds 1 2 of 2, clips of 2 s or less are left out, of the test too, the epoch is chosen on the test "
        "clips"
    )
    assert float(wa) < float(their_wa) and abs(float(their_wa) - float(wa) - float(gain)) < 0.011


def test_headings_and_facts_say_what_is_not_strict(tmp_path):
    published = summarised(make(tmp_path, "hgfm", **PUBLISHED))
    heading = group_heading(published.run)
    assert (
        heading.startswith("toy, random5, as published, not strict (clips of 2 s or less") and "test clips" in heading
    )
    assert any("the epoch was chosen on the test clips" in fact for fact in experiment_facts(published.summary))
    context = summarised(make(tmp_path / "c", "hgfm_dialogue", context="dialogue"))
    assert group_heading(context.run) == "toy, random10, with the other utterances of the dialogue"
    signal = summarised(make(tmp_path / "s", "hgfm", features="hgfm33", signal="librosa:hgfm33"))
    assert "features: librosa:hgfm33" in experiment_facts(signal.summary)

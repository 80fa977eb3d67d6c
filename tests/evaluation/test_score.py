"""Scoring: the classes of a test set. The stage itself is tested with training, on trained folds."""

from speecheq.evaluation import score
from speecheq.seqm import SEQM_CLASSES


def test_the_labels_of_a_test_set():
    note = {
        "classes": list(SEQM_CLASSES.names),
        "class_esc": list(SEQM_CLASSES.categories),
        "protocol": "random10",
        "target": "toy",
        "target_esc": ["anger", "joy", "surprise"],
        "use": {},
        "sets": {"test": {"class": {"joy": 2}}, "test_other": {"class": {"fear": 1, "joy": 1}}},
    }
    assert score.label_set(note, "test") == ["joy", "anger", "surprise"], "also those that this fold's test clips lack"
    assert score.label_set({**note, "use": {"*": ["joy", "fear"]}}, "test") == ["joy"]
    assert score.label_set({**note, "use": {"toy": None, "*": ["joy"]}}, "test") == ["joy", "anger", "surprise"]
    assert score.label_set(note, "test_other") == ["joy", "fear"]
    assert score.label_set({**note, "protocol": "cross"}, "test") == ["joy"]

"""The classes of a model: the categories of SEQM, or the target corpus' own labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from speecheq import seqm
from speecheq.dataset.msud_recipe import DEV, TEST, TRAINING, Recipe

# A class with at most so many clips in a fold is warned of.
RARE = 2


class ClassMap:
    """Maps a clip's labels to its class; ``table`` names the classes."""

    def __init__(self, recipe: Recipe, card: Mapping[str, Any]):
        """``card`` is that of the recipe's target."""
        self.target = recipe.target
        self.uses_corpus_labels = recipe.classes == "corpus"
        if not self.uses_corpus_labels:
            self.table = seqm.SEQM_CLASSES
            return
        categories = card["labels"]
        labels = sorted(label for label in categories if card["counts"]["emotion"].get(label))
        self.table = seqm.ClassTable(tuple(labels), tuple(categories[label] for label in labels))
        self.index = {label: number for number, label in enumerate(labels)}
        # A clip of another corpus gets the label of its category. If there are several, it gets the one with the
        # category's name.
        self.category_label: dict[str, str] = {}
        for category in dict.fromkeys(self.table.categories):
            plain = [label for label in labels if categories[label] == category and label in card["plain_labels"]]
            chosen = [label for label in plain if label.lower() == category] or plain
            if len(chosen) == 1:
                self.category_label[category] = chosen[0]

    def class_number(self, custom: Mapping[str, Any]) -> int | None:
        """The class number of an utterance, from its supervision's custom fields; None where it has no class."""
        if not self.uses_corpus_labels:
            return seqm.esc_index(custom["esc"])
        label = custom["emotion"] if custom["corpus"] == self.target else self.category_label.get(custom["esc"])
        return None if label is None else self.index[label]

    def class_shares(self, custom: Mapping[str, Any], used: Sequence[str] | None) -> list[float] | None:
        """The soft label of an utterance, by class: the shares of listeners' votes in ``used`` categories (None: all).

        None where it was prepared without votes, or all of them are for categories that have no class here.
        """
        shares = [0.0] * len(self.table.names)
        for category, votes in custom.get("votes", {}).items():
            if used is not None and category not in used:
                continue
            label = self.category_label.get(category) if self.uses_corpus_labels else category
            if label is not None:
                shares[self.table.names.index(label)] += votes
        total = sum(shares)
        return [share / total for share in shares] if total else None


def class_table(note: Mapping[str, Any]) -> seqm.ClassTable:
    """The classes that ``msud.json`` names."""
    return seqm.ClassTable(tuple(note["classes"]), tuple(note["class_esc"]))


def class_warnings(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with the classes of a fold, whose ``sets`` are those of ``msud.json``: one class, or rare ones."""
    used = [counted for name, counted in sets.items() if name in (TRAINING, DEV) or name.startswith(TEST)]
    counts = sum((Counter(counted["class"]) for counted in used), Counter[str]())
    rare = [f"{name} ({count})" for name, count in counts.items() if count <= RARE]
    trained = list(sets[TRAINING]["class"])
    warnings = []
    if len(trained) == 1:
        warnings.append(
            f"all training clips are of one class, {trained[0]}: the model cannot learn to tell emotions apart"
        )
    if rare:
        warnings.append(f"too few clips to learn or to test: {', '.join(rare)}")
    if len(sets[TEST]["class"]) == 1:
        warnings.append(f"all test clips are of one class, {next(iter(sets[TEST]['class']))}: UA and WA say little")
    return warnings

"""The same systems under a strict protocol and under that of a paper, side by side: what a protocol is worth."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from speecheq.dataset.msud_recipe import AS_PUBLISHED
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import Section, build_table, format_score, join_numbers

NOTE = (
    "strict: no test speaker is trained on, all clips are tested, and the epoch is chosen on a dev part. as published: "
    "what the protocols of papers do, so that figures can be set beside theirs; such a score says little of unheard "
    "speakers"
)


class _Pair(NamedTuple):
    """A system under both kinds of protocols."""

    strict: Experiment
    published: Experiment


def _is_strict(experiment: Experiment) -> bool:
    return not experiment.run["as_published"] and experiment.run["test_speakers_in_training"] == [0]


def _key(experiment: Experiment) -> tuple:
    """What both must have in common: system, configuration, corpus and classes."""
    run = experiment.run
    return experiment.name, run["target"], run["classes_of"], run["neutral_eis"], run["by_speaker"]


def _protocol(experiment: Experiment) -> str:
    run = experiment.run
    switches = "".join(f", {AS_PUBLISHED[name]}" for name in run["as_published"])
    return f"{run['protocol']}, folds {join_numbers(run['folds'])} of {run['of_folds']}{switches}"


def as_published_sections(experiments: Sequence[Experiment]) -> list[Section]:
    """A section with the systems that were run under both kinds of protocols; none without any."""
    strict: dict[tuple, list[Experiment]] = defaultdict(list)
    for experiment in filter(_is_strict, experiments):
        strict[_key(experiment)].append(experiment)
    pairs = [
        _Pair(other, experiment)
        for experiment in sorted(experiments, key=lambda experiment: (experiment.run["target"], experiment.name))
        if experiment.run["as_published"]
        for other in strict[_key(experiment)]
    ]
    if not pairs:
        return []

    def score(which: str, name: str):
        return lambda pair: format_score(getattr(pair, which).summary[f"test.{name}"], name)

    def difference(name: str):
        return lambda pair: format_score(
            pair.published.summary[f"test.{name}"] - pair.strict.summary[f"test.{name}"], name
        )

    table = build_table(
        "strict_and_as_published",
        "strict and as published",
        pairs,
        {
            "system": lambda pair: pair.strict.name,
            "target": lambda pair: pair.strict.run["target"],
            "strict": lambda pair: _protocol(pair.strict),
            "strict WA %": score("strict", "wa"),
            "strict UA %": score("strict", "ua"),
            "as published": lambda pair: _protocol(pair.published),
            "as-published WA %": score("published", "wa"),
            "as-published UA %": score("published", "ua"),
            "WA, as published - strict": difference("wa"),
            "UA, as published - strict": difference("ua"),
        },
    )
    return [Section("Strict and as published", [table], [NOTE])]

"""The sentences of result pages, and the pages in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from speecheq.dataset.msud_recipe import DECLARED, EVERY_CORPUS, TEST
from speecheq.evaluation.metrics import CALIBRATION_BINS
from speecheq.evaluation.significance import FEW_SPEAKERS, RESAMPLES
from speecheq.reporting.experiment import Experiment, config_name, describe_audio_folders
from speecheq.reporting.figures import Picture
from speecheq.reporting.tables import (
    NOT_AVAILABLE,
    Section,
    bullet_list,
    format_score,
    interval_text,
    join_numbers,
    section_markdown,
)

PICTURES = "pictures"  # the folder of SVG and PDF below an experiment
NOT_COMPARABLE = "Systems of different tables have another target, protocol or classes: they are not comparable."
INTRODUCTION = "Written by the program from score files.\n"
NOTES = (
    "WA (overall accuracy), UA (mean recall of the classes), UAI (that of neutral, joy, anger and sadness) and macro "
    "F1 are of the most probable of all classes of the model; the restricted scores are of the most probable of those "
    "classes that the test clips' corpus has.",
    f"ECE: expected calibration error of the posterior of the predicted class, in {CALIBRATION_BINS} bins of equal "
    "width.",
    f"EIS scores are over clips with an intensity label ({NOT_AVAILABLE}: there are none).",
    "Checkpoints are chosen on a dev part of the training folds. ± is the standard deviation over all folds and seeds.",
    "Pooled scores are taken once over the clips of all folds, a seed at a time, then averaged over seeds. Their 95 % "
    f"intervals are percentiles of {RESAMPLES:,} bootstrap samples: each draws as many test speakers as there are, "
    "with replacement, and takes all clips of a drawn speaker. The fewer speakers, the farther out the percentiles are "
    f"taken, as Student's t asks. Over fewer than {FEW_SPEAKERS} speakers they are coarse, over one there is none.",
)

Run = Mapping[str, Any]  # "run" of metrics.json


def group_heading(run: Run) -> str:
    """What systems of one table have in common: target, protocol, and switches that are not at their defaults."""
    parts = [run["target"], run["protocol"]]
    if run["classes_of"] == "corpus":
        parts.append(f"its own {len(run['classes'])} classes")
    if run["neutral_eis"] != DECLARED:
        parts.append(f"neutral EIS {run['neutral_eis']}")
    return ", ".join(parts)


def experiment_title(experiment: Experiment) -> str:
    return f"{experiment.run['system']} ({config_name(experiment.run)}) on {group_heading(experiment.run)}"


def _describe_classes(run: Run) -> str:
    classes = "the nine of SEQM"
    if run["classes_of"] == "corpus":
        classes = f"the {len(run['classes'])} of {run['target']} itself ({', '.join(run['classes'])})"
    described = [classes]
    for name, categories in sorted(run["use"].items()):
        if name in (EVERY_CORPUS, run["target"], *run["corpora"]):
            corpus = "all corpora" if name == EVERY_CORPUS else name
            described.append(
                f"{corpus} whole" if categories is None else f"{corpus} restricted to {', '.join(categories)}"
            )
    return "; ".join(described)


def _describe_uncertainty(summary: Mapping[str, Any]) -> str:
    """The pooled UA with its interval, and the number of speakers behind it."""
    low, high = (summary[f"{end}.pooled.test.ua"] for end in ("low", "high"))
    speakers = summary["run"]["test_speakers"]
    if low is None:
        return "all test clips are of one speaker: no interval, how other speakers fare is not known"
    coarse = " and is coarse" if speakers < FEW_SPEAKERS else ""
    return (
        f"pooled UA {format_score(summary['pooled.test.ua'], 'ua')} %, 95 % interval {interval_text(low, high, 'ua')}; "
        f"it rests on {speakers} test speakers{coarse}"
    )


def describe_main_scores(summary: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name.upper()} {format_score(summary[f'test.{name}'], name)} %" for name in ("wa", "ua"))
    return f"{scores} (means over folds and seeds); {_describe_uncertainty(summary)}"


def _describe_protocol(run: Run) -> str:
    folds_file = f" (folds of {run['folds_file']})" if run["folds_file"] else ""
    speakers = f"test speakers also trained on: {join_numbers(run['test_speakers_in_training'])}"
    if run["test_speakers_in_training"] == [0]:
        speakers = "no test speaker is trained on"
    return (
        f"protocol: {run['target']}, {run['protocol']}{folds_file}; folds {join_numbers(run['folds'])} of "
        f"{run['of_folds']}; seeds {join_numbers(run['seeds'])}; dev part: {run['dev']}; {speakers}"
    )


def _describe_data(run: Run) -> str:
    phonemes = "not learned"
    if run["phonemes"]:
        phonemes = f"{run['phonemes']} ({run['units']}), CTC by {', '.join(run['ctc_backend'])}"
    return (
        f"emotion and gender training data: {', '.join(run['corpora'])}; phonemes: {phonemes}; corpora of the recipe "
        f"that were not given: {', '.join(run['left_out']) or 'none'}"
    )


def experiment_facts(summary: Mapping[str, Any]) -> list[str]:
    """Sentences on how an experiment was run and what its scores rest on."""
    run = summary["run"]
    facts = [
        _describe_protocol(run),
        f"classes: {_describe_classes(run)}; EIS of neutral clips: {run['neutral_eis']}; restricted scores are of "
        f"{', '.join(run['label_sets'][TEST])}",
        _describe_data(run),
        f"{join_numbers(run['steps'])} steps a fold on {', '.join(run['device'])}, {run['train_seconds']:.0f} s of "
        f"training in all; git revision {', '.join(run['trained_at_git'])} (scored at "
        f"{', '.join(run['scored_at_git'])})",
        _describe_uncertainty(summary),
    ]
    if run["sounds"]:
        facts.append(f"also trained with {describe_audio_folders(run['sounds'])}")
    if len(run["trained_at_git"]) > 1:
        facts.append("its folds and seeds were trained at different revisions of the program, which its means mix")
    if summary.get("test.per") is not None:
        units = "" if run["units"] == "phone" else f" (of {run['units']} units, not phones)"
        facts.append(
            f"PER{units} over {summary['test.per_utterances']:.0f} utterances of {run['phonemes']}'s {run['per_set']} "
            f"part; one constant output for all has {100 * summary['test.per_of_constant']:.1f} %"
        )
    return facts


def experiment_page(experiment: Experiment, sections: Sequence[Section], pictures: Sequence[Picture]) -> str:
    """RESULTS.md of one experiment: its tables, and links to its pictures."""
    parts = [f"# {experiment_title(experiment)}\n", INTRODUCTION, bullet_list(NOTES)]
    parts += [bullet_list(experiment_facts(experiment.summary)), *map(section_markdown, sections)]
    for picture in pictures:
        parts.append(f"## {picture.title}\n\n![{picture.title}]({PICTURES}/{picture.name}.svg)\n\n{picture.caption}\n")
    return "\n".join(parts)


def recipe_page(
    title: str,
    experiments: Sequence[Experiment],
    sections: Sequence[Section],
    notes: Sequence[str],
    appendix: Sequence[Section],
) -> str:
    """RESULTS.md of a recipe: ``notes`` on all systems, its tables, how each was run, and the sections at its end."""
    parts = [f"# Results of {title}\n", INTRODUCTION, bullet_list([*NOTES, *notes]), *map(section_markdown, sections)]
    parts += [f"{NOT_COMPARABLE}\n", "## How each was run\n"]
    for experiment in experiments:
        facts = bullet_list(experiment_facts(experiment.summary))
        parts.append(f"### {experiment.name}, {experiment.run['name']}\n\n{facts}")
    return "\n".join([*parts, *map(section_markdown, appendix)])

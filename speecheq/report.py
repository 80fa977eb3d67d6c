"""Tables from score files: of one experiment over its folds and seeds, and of all experiments of a recipe.

Everything is computed from ``metrics.json`` and ``scores.tsv`` of the trained folders; nothing is typed in.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from speecheq.config import flat, learned, load
from speecheq.errors import InputError
from speecheq.evaluate import ClipPrediction, emotion_scores
from speecheq.files import read_json, write_json, write_text
from speecheq.metrics import confusion
from speecheq.msud import DECLARED, EVERY_CORPUS
from speecheq.paper_table import paper_page, read_table
from speecheq.progress import log
from speecheq.score import EXPERIMENT, STAMP_FOLDER, read_scores, write_scores
from speecheq.seqm import ClassTable
from speecheq.stages import STAMP, require

SCORES = ("wa", "ua", "uai", "eis_mse", "eis_ccc", "gender", "per")
HEADINGS = {
    "wa": "WA %", "ua": "UA %", "uai": "UAI %", "eis_mse": "EIS MSE", "eis_ccc": "EIS CCC", "gender": "gender %", "per": "PER %",
}
PERCENT = ("wa", "ua", "uai", "gender", "per")
# Besides EXPERIMENT, what its folds have in common: the data that was trained on.
DATA = ("corpora", "phonemes", "per_set", "units")


def scored_folders(experiment: Path) -> List[Path]:
    """The folders of an experiment (``<config>-<system>/<target>.<protocol>``) whose scores are up to date.

    Scores of a training that is under way, broken off, or newer than they are, are left out and named.
    """
    folders = []
    for stamp in sorted(Path(experiment).glob(f"fold*/seed*/{STAMP_FOLDER}/{STAMP}")):
        folder = stamp.parent.parent
        try:
            require(folder, "train")
            require(stamp.parent, "score")
        except InputError as stale:
            log.warning("left out of the tables: %s", stale)
            continue
        if (folder / "metrics.json").is_file() and (folder / "scores.tsv").is_file():
            folders.append(folder)
    return folders


def _settings(folder: Path) -> Dict[str, Any]:
    """What folds of one experiment must have in common: all settings but the seed, and the data."""
    settings = flat(learned(load(folder / "config.yaml")))
    del settings["run.seed"]
    run = read_json(folder / "metrics.json")["run"]
    return {**settings, **{key: run[key] for key in (*EXPERIMENT, *DATA)}}


def check_alike(folders: Sequence[Path]) -> None:
    """InputError where two folders were trained with different settings or data: no mean is taken over those."""
    first = _settings(folders[0])
    for folder in folders[1:]:
        other = _settings(folder)
        differ = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if differ:
            raise InputError(
                f"{folders[0]} and {folder} differ in {', '.join(differ)}, so no mean can be taken over them; train "
                "both alike, or keep one elsewhere with --exp."
            )


def _average(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _deviation(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


def summarise(experiment: Path, folders: Optional[Sequence[Path]] = None) -> Dict[str, Any]:
    """Write metrics.json, scores.tsv and RESULTS.md of an experiment: averaged over its folds and seeds, and pooled.

    ``test.ua`` and the like are means over folds and seeds, ``std.test.ua`` their standard deviation;
    ``pooled.test.ua`` is taken once over the clips of all folds together, a seed at a time, then averaged.
    InputError where no fold has been scored, or folds differ in their settings. ``folders`` are those of
    ``scored_folders``, if they are known already.
    """
    folders = scored_folders(experiment) if folders is None else folders
    if not folders:
        raise InputError(f"{experiment}: no fold has been scored; run stage 5 first.")
    check_alike(folders)
    each = [read_json(folder / "metrics.json") for folder in folders]
    names = sorted({name for metrics in each for name in metrics if name != "run"})
    summary: Dict[str, Any] = {}
    for name in names:
        values = [metrics.get(name) for metrics in each]
        summary[name] = _average(values)
        summary[f"std.{name}"] = _deviation(values)
    by_seed: Dict[int, List[ClipPrediction]] = defaultdict(list)
    merged: Dict[str, Sequence[ClipPrediction]] = {}
    for folder, metrics in zip(folders, each):
        run = metrics["run"]
        for set_name, predictions in read_scores(folder / "scores.tsv").items():
            merged[f"{set_name}/fold{run['fold']}/seed{run['seed']}"] = predictions
            if set_name == "test":
                by_seed[run["seed"]].extend(predictions)
    genders = any(metrics.get("test.gender") is not None for metrics in each)
    classes = ClassTable(tuple(each[0]["run"]["classes"]), tuple(each[0]["run"]["class_esc"]))
    pooled = [emotion_scores(predictions, genders, classes) for _, predictions in sorted(by_seed.items())]
    for name in pooled[0]:
        summary[f"pooled.test.{name}"] = _average([scores[name] for scores in pooled])
    summary["pooled.test.per"] = summary["test.per"]  # every fold is scored on the same utterances
    runs = [metrics["run"] for metrics in each]
    first = runs[0]
    summary["run"] = {
        **{key: first[key] for key in ("system", "config", "set", *EXPERIMENT, *DATA)},
        "folds": sorted({run["fold"] for run in runs}),
        "of_folds": first["folds"],
        "seeds": sorted({run["seed"] for run in runs}),
        "ctc_backend": sorted({run["ctc_backend"] for run in runs}),
        "device": sorted({run["device"] for run in runs}),
        "steps": sorted({run["steps"] for run in runs}),
        "test_speakers_in_training": sorted({run["test_speakers_in_training"] for run in runs}),
        "train_seconds": round(sum(run["train_seconds"] for run in runs), 1),
        "trained_at_git": sorted({run["trained_at_git"] for run in runs}),
        "scored_at_git": sorted({run["scored_at_git"] for run in runs}),
    }
    write_json(Path(experiment) / "metrics.json", summary)
    write_scores(Path(experiment) / "scores.tsv", merged, classes)
    rows = [(f"fold {m['run']['fold']}, seed {m['run']['seed']}", m) for m in each]
    everything = [prediction for _, predictions in sorted(by_seed.items()) for prediction in predictions]
    page = experiment_page(summary, rows) + "\n" + confusion_table(everything, classes)
    write_text(Path(experiment) / "RESULTS.md", page)
    return summary


def _cell(metrics: Dict[str, Any], set_name: str, score: str) -> str:
    value = metrics.get(f"{set_name}.{score}")
    if value is None:
        return "n/a"
    scale, digits = (100, 2) if score in PERCENT else (1, 3)
    deviation = metrics.get(f"std.{set_name}.{score}")
    return f"{value * scale:.{digits}f}" + (f" ± {deviation * scale:.{digits}f}" if deviation is not None else "")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def confusion_table(predictions: Sequence[ClipPrediction], classes: ClassTable) -> str:
    """Clips by true (rows) and predicted class; only rows of classes that occur."""
    matrix = confusion([p.gold_esc for p in predictions], [p.predicted_esc for p in predictions], len(classes.names))
    lines = [[name, *map(str, row)] for name, row in zip(classes.names, matrix.tolist()) if sum(row)]
    return "## Test clips by true and predicted class, all folds and seeds\n\n" + _table(["", *classes.names], lines)


def _sets(summary: Dict[str, Any]) -> List[str]:
    return sorted({name.split(".")[0] for name in summary if name.startswith("test")})


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _config(run: Dict[str, Any]) -> str:
    """The size, and what --set changed of it."""
    return run["config"] + (f" ({', '.join(run['set'])})" if run["set"] else "")


def _heading(run: Dict[str, Any]) -> str:
    """What separates tables: the target, the protocol, and switches that are not at their defaults."""
    marks = [f"its own {len(run['classes'])} classes"] * (run["classes_of"] == "corpus")
    marks += [f"neutral EIS {run['neutral_eis']}"] * (run["neutral_eis"] != DECLARED)
    return ", ".join([run["target"], run["protocol"], *marks])


def _protocol(run: Dict[str, Any]) -> str:
    """Target and protocol, and where the folds were read."""
    return f"{run['target']}, {run['protocol']}" + (f" (folds of {run['folds_file']})" if run["folds_file"] else "")


def _classes(run: Dict[str, Any]) -> str:
    of = "the nine of SEQM"
    if run["classes_of"] == "corpus":
        of = f"the {len(run['classes'])} of {run['target']} itself ({', '.join(run['classes'])})"
    restricted = [
        f"{'all corpora' if name == EVERY_CORPUS else name} "
        + (f"restricted to {', '.join(categories)}" if categories is not None else "whole")
        for name, categories in sorted(run["use"].items())
        if name in (EVERY_CORPUS, run["target"], *run["corpora"])
    ]
    return "; ".join([of, *restricted])


def _speakers(in_training: Sequence[int]) -> str:
    if in_training == [0]:
        return "no test speaker is trained on"
    return f"test speakers also trained on: {_numbers(in_training)}"


def _facts(summary: Dict[str, Any]) -> str:
    run = summary["run"]
    corpora = ", ".join(run["corpora"])
    lines = [
        f"- protocol: {_protocol(run)}; folds {_numbers(run['folds'])} of {run['of_folds']}; "
        f"seeds {_numbers(run['seeds'])}; dev part: {run['dev']}; {_speakers(run['test_speakers_in_training'])}",
        f"- classes: {_classes(run)}; EIS of neutral clips: {run['neutral_eis']}",
        f"- emotion and gender training data: {corpora}; phonemes: "
        + (f"{run['phonemes']} ({run['units']}), CTC by {', '.join(run['ctc_backend'])}" if run["phonemes"]
           else "not learned")
        + f"; corpora of the recipe that were not given: {', '.join(run['left_out']) or 'none'}",
        f"- {_numbers(run['steps'])} steps a fold on {', '.join(run['device'])}, {run['train_seconds']:.0f} s of "
        f"training in all; git revision {', '.join(run['trained_at_git'])} (scored at "
        f"{', '.join(run['scored_at_git'])})",
    ]
    if summary.get("test.per") is not None:
        lines.append(
            f"- PER{'' if run['units'] == 'phone' else ' (of ' + run['units'] + ' units, not phones)'} over "
            f"{summary['test.per_utterances']:.0f} utterances of {run['phonemes']}'s {run['per_set']} part; "
            f"one constant output for all has {100 * summary['test.per_of_constant']:.1f} %"
        )
    return "\n".join(lines) + "\n"


def experiment_page(summary: Dict[str, Any], rows: Sequence[tuple]) -> str:
    """RESULTS.md of one experiment: a table of its folds for every test set."""
    run = summary["run"]
    parts = [f"# {run['system']} ({_config(run)}) on {_heading(run)}\n", _facts(summary)]
    for set_name in _sets(summary):
        where = run["target"] if set_name == "test" else set_name.removeprefix("test_")
        scores = [score for score in SCORES if score != "per" or set_name == "test"]
        lines = [[title, *(_cell(metrics, set_name, score) for score in scores)] for title, metrics in rows]
        lines.append(["mean of folds and seeds", *(_cell(summary, set_name, score) for score in scores)])
        if set_name == "test":
            lines.append(["pooled", *(_cell(summary, "pooled.test", score) for score in scores)])
        parts.append(f"## Test clips of {where}\n\n" + _table(["", *(HEADINGS[score] for score in scores)], lines))
    return "\n".join(parts)


def recipe_page(title: str, summaries: Sequence[Dict[str, Any]]) -> str:
    """RESULTS.md of a recipe: one line an experiment, a table for each target and test set."""
    parts = [
        f"# Results of {title}\n",
        "Written by the program from score files. ESC is the argmax over all classes of the model. WA: overall "
        "accuracy; UA: mean\nrecall of the classes; UAI: that of neutral, joy, anger and sadness; EIS scores are over "
        "clips with an intensity\nlabel (n/a: there are none). Checkpoints are chosen on a dev part of the training "
        "folds. Means (± standard deviation)\nof folds and seeds.\n",
    ]
    tables: Dict[tuple, list] = defaultdict(list)
    for summary in summaries:
        for set_name in _sets(summary):
            tables[_heading(summary["run"]), set_name].append(summary)
    for (heading, set_name), members in sorted(tables.items()):
        scores = [score for score in SCORES if score != "per" or set_name == "test"]
        where = "" if set_name == "test" else f": test clips of {set_name.removeprefix('test_')}"
        lines = []
        for summary in sorted(members, key=lambda s: (s["run"]["config"], s["run"]["system"])):
            run = summary["run"]
            pooled = [_cell(summary, "pooled.test", s) for s in ("wa", "ua")] if set_name == "test" else []
            lines.append([
                run["system"], _config(run), f"{_numbers(run['folds'])} of {run['of_folds']}", _numbers(run["seeds"]),
                *(_cell(summary, set_name, score) for score in scores), *pooled,
                ", ".join(run["corpora"]), run["phonemes"] or "none", ", ".join(run["trained_at_git"]),
            ])
        headings = ["system", "config", "folds", "seeds", *(HEADINGS[score] for score in scores),
                    *(["pooled WA %", "pooled UA %"] if set_name == "test" else []), "emotion data", "phonemes", "git"]
        parts.append(f"## {heading}{where}\n\n" + _table(headings, lines))
    parts.append("## How each was run\n")
    for summary in summaries:
        run = summary["run"]
        parts.append(f"### {_config(run)}-{run['system']}, {run['name']}\n\n" + _facts(summary))
    return "\n".join(parts)


def report(exp: Path, title: str, results: Path, table: Optional[Path] = None) -> str:
    """Summarise every experiment below ``exp`` and write the recipe's page to ``results``; returns the page.

    ``table`` says what the paper's table is, to stand at the end with our figures in it.
    """
    of_paper = read_table(table) if table is not None else None
    experiments = sorted({folder.parent.parent for folder in Path(exp).glob("*/*/fold*/seed*") if folder.is_dir()})
    summaries, left_out = [], []
    for experiment in experiments:
        folders = scored_folders(experiment)
        if folders:
            try:
                summaries.append(summarise(experiment, folders))
            except InputError as unlike:
                log.warning("left out of the table: %s", unlike)
                left_out.append(str(unlike))
    if not summaries and left_out:
        raise InputError(left_out[0])
    if not summaries:
        raise InputError(f"{exp}: no experiment has been scored; run stages 4 and 5 first.")
    page = recipe_page(title, summaries)
    if of_paper is not None:
        beside = paper_page(of_paper, summaries)
        page += f"\n{beside}" if beside else ""
    if left_out:
        page += "\n## Left out\n\n" + "".join(f"- {reason}\n" for reason in left_out)
    write_text(results, page)
    return page

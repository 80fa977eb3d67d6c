"""From a table to a model as commands: those of ``speecheq``, stage by stage, and the same as a recipe."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.config.schema import FBANK
from speecheq.dataset.msud_recipe import experiment_name
from speecheq.dataset.protocols import ALL
from speecheq.inference.own_data.start import Start, choose_start
from speecheq.inference.own_data.table import OwnTable, check_table
from speecheq.models.folder import FILES, WEIGHTS

SYSTEM, CONFIG = "speecheq", "finetune"
CLASSES = "corpus"  # the table's own
COMMANDS = "commands.sh"
RECIPE = Path(__file__).resolve().parents[3] / "egs" / "iemocap" / "run.sh"


@dataclass(frozen=True)
class Request:
    """What ``speecheq finetune`` is given; ``start`` is the text of ``--from``, ``nj`` processes work at once."""

    table: Path
    start: str
    out: Path
    work: Path
    nj: int = 1
    licence: str = ""


@dataclass(frozen=True)
class Plan:
    """The table, the start, and the folders of all stages below ``request.work``."""

    request: Request
    table: OwnTable
    start: Start

    @property
    def folds(self) -> Path:
        """The experiment of the folds."""
        return self._experiment(self.request.work / "exp", self.table.protocol)

    @property
    def page(self) -> Path:
        """The result page."""
        return self.request.work / "RESULTS.md"

    @property
    def _features(self) -> str:
        return self.start.features.partition("=")[0]

    def _experiment(self, exp: Path, protocol: str) -> Path:
        config = CONFIG if self._features == FBANK else f"{CONFIG}-{self._features}"
        return exp / f"{config}-{SYSTEM}" / experiment_name(self.table.name, protocol, CLASSES)

    def commands(self) -> list[list[str]]:
        """The arguments of ``speecheq`` for each stage: the folds, their scores, the model of all clips, its folder."""
        name, work, nj = self.table.name, self.request.work, str(self.request.nj)
        data, final = str(work / "data"), work / "final"
        labels = ["--target", name, "--classes", CLASSES]
        features = ["features", "--data", data, "--corpora", name, "--nj", nj]
        runs = ["--data", data, *self._systems(), "--features", self._features, *labels]
        train = ["--systems-file", str(work / "conf" / "systems.yaml"), "--jobs", nj, *self._weights()]
        folds, everything = ["--protocol", self.table.protocol], ["--protocol", ALL]
        exp, final_exp = ["--exp", str(work / "exp")], ["--exp", str(final)]
        manifests = str(work / "data" / "manifests" / name)
        licence = ["--licence", self.request.licence] if self.request.licence else []
        return [
            ["import", str(self.table.path), manifests, "--name", name, "--partial", "true", "--nj", nj],
            [*features, "--speech-activity", self.start.speech_activity],
            *([] if self.start.features == FBANK else [[*features, "--features", self.start.features]]),
            ["unify", "--data", data, *labels, *folds, "--corpora", name],
            ["train", *runs, *folds, *exp, *train],
            ["score", *runs, *folds, *exp],
            ["report", *exp, "--title", name, "--results", str(self.page)],
            ["unify", "--data", data, *labels, *everything, "--corpora", name],
            ["train", *runs, *everything, *final_exp, *train],
            ["package", str(self._experiment(final, ALL) / "fold1" / "seed1"), str(self.request.out)]
            + ["--scores-of", str(self.folds), *licence],
        ]

    def recipe(self) -> list[str]:
        """The command line of a recipe that makes and scores the same folds, in a folder of its own.

        Without a checkout of the repository, where recipes are, the script's path in one stands for it.
        """
        script = RECIPE if RECIPE.is_file() else Path(*RECIPE.parts[-3:])
        name, work = self.table.name, self.request.work / "recipe"
        features = [] if self.start.features == FBANK else ["--features", self.start.features]
        return [
            *(str(script), "--corpus", f"{name}={self.table.path}", "--target", name),
            *("--protocol", self.table.protocol, "--classes", CLASSES, "--partial", "true"),
            *("--speech-activity", self.start.speech_activity, *features, *self._systems(), *self._weights()),
            *("--data", str(work / "data"), "--exp", str(work / "exp"), "--results", str(work / "RESULTS.md")),
            *("--nj", str(self.request.nj), "--train-jobs", str(self.request.nj)),
        ]

    def _systems(self) -> list[str]:
        return ["--config", str(self.request.work / "conf" / f"{CONFIG}.yaml"), "--systems", SYSTEM]

    def _weights(self) -> list[str]:
        return [] if self.start.init_from is None else ["--init-from", str(self.start.init_from)]

    def script(self) -> str:
        """All of it as a shell script, with the notes on the table."""
        lines = ["#!/bin/sh", "# What speecheq finetune has run; what is done is skipped."]
        lines += [f"# {note}" for note in self.table.notes]
        lines += ["set -e", *(shlex.join(["speecheq", *command]) for command in self.commands())]
        return "\n".join([*lines, "# The folds as a recipe:", f"# {shlex.join(self.recipe())}", ""])


def make_plan(request: Request) -> Plan:
    """Check the table and the start, and write the settings and the commands into the work folder.

    Raises InputError for what cannot be trained on, and for an output folder that holds anything but a model.
    """
    _check_output(request.out, request.table)
    conf = request.work / "conf"
    table = check_table(request.table, request.work / "table")
    start = choose_start(request.start, conf)
    loss = {"alpha": float(table.intensity), "beta": 0.0, "eta": 0.1 if table.gender else 0.0}
    settings = {**start.settings, "loss": {**start.settings.get("loss", {}), **loss}}
    write_text(conf / f"{CONFIG}.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_text(conf / "systems.yaml", yaml.safe_dump({SYSTEM: {}}))
    plan = Plan(request, table, start)
    write_text(request.work / COMMANDS, plan.script())
    return plan


def _check_output(out: Path, table: Path) -> None:
    """Raise InputError if the model folder would replace anything but a model folder."""
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if out.is_file() or (names and not (WEIGHTS in names and names <= {*FILES, "encoder"})):
        raise InputError(f"{out}: is there already, and is no model folder; name another folder for --out.")
    if out.resolve() in table.resolve().parents:
        raise InputError(f"{out}: holds {table}; name another folder for --out.")


def main_scores(plan: Plan) -> Sequence[str]:
    """Sentences on the scores of the folds, from their experiment."""
    from speecheq.common.files import read_json
    from speecheq.reporting.report_text import describe_main_scores

    return [f"{plan.table.name}, {plan.table.protocol}: {describe_main_scores(read_json(plan.folds / 'metrics.json'))}"]

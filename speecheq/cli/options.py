"""Options that several commands share, and the folders and runs that they name."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from speecheq.cluster.job_options import add_options
from speecheq.common.command_line import parse_numbers, positive_whole
from speecheq.common.errors import InputError
from speecheq.config.phonemes import PRONUNCIATIONS, SILENCES

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Run(NamedTuple):
    """One training: what it is called by, and its folder."""

    system: str
    fold: int
    seed: int
    folder: Path


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], help: str
) -> argparse.ArgumentParser:
    """Add the command ``name``, which calls ``run`` with its options; ``help`` is one sentence."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(run=run)
    return parser


def add_data_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of stages 1 to 3 (default: data)")


def add_exp_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exp", type=Path, default=Path("exp"), help="folder of the experiments (default: exp)")


def add_features_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        default="fbank",
        metavar="NAME[=ENCODER]",
        help="fbank (default), starter, or a feature set of conf/features; stage 2 also takes the encoder's folder or "
        "hub id, a model folder, or a feature set's file",
    )


def features_name(options: argparse.Namespace) -> str:
    """The name of the feature set that ``add_features_option`` gives."""
    from speecheq.config.feature_sets import parse_features

    return parse_features(options.features)[0]


def config_name(options: argparse.Namespace) -> str:
    """The name of the configuration in experiments: that of its file, and of the feature set if it is not fbank."""
    name = features_name(options)
    return options.config.stem if name == "fbank" else f"{options.config.stem}-{name}"


def add_unit_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--units", choices=("phone", "bpe"), default="phone", help="output units of CTC (default: phone)")
    add("--bpe-size", type=positive_whole, default=500, help="number of BPE pieces, with --units bpe (default: 500)")
    add(
        "--pronunciations",
        choices=PRONUNCIATIONS,
        default="first",
        help="what CTC learns of a word with several pronunciations: the first, or the sum over all, which needs k2 "
        "(default: first)",
    )
    add(
        "--silence",
        choices=SILENCES,
        default="none",
        help="silence between words: the blank (none), or a unit of its own that may stand there, which needs k2 "
        "(default: none)",
    )


def add_label_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", required=True, help="corpus whose folds are trained and scored")
    add("--protocol", required=True, help="how the target is split into folds, such as random10")
    add("--folds", default="all", help='folds by number, such as "1 3-5" (default: all)')
    add("--classes", default="seqm", help="emotion classes: the nine of SEQM (seqm) or the target's own (corpus)")
    add(
        "--neutral-eis",
        default="declared",
        help="EIS of neutral clips: as each corpus declares (declared), SEQM's 0 (metric), or the corpus' own (corpus)",
    )
    add(
        "--as-published",
        default="",
        metavar="LIST",
        help="what a paper's protocol does and ours does not: improvised (speech only), drop_short (clips of 2 s or "
        "less), best_test (the epoch is chosen on the test clips); results are of another protocol, and say so",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``runs``, and those of jobs."""
    add_data_option(parser)
    add_exp_option(parser)
    add = parser.add_argument
    add("--config", type=Path, required=True, help="settings of the model's size, a file of conf/")
    add("--systems", required=True, help="systems by their names in conf/systems.yaml")
    add_features_option(parser)
    add_label_options(parser)
    add("--seeds", default="1", help='seeds of the trainings, such as "1-3" (default: 1)')
    add_options(parser)


def msud_folder(options: argparse.Namespace) -> Path:
    """The folder of the MsUD that ``add_label_options`` name."""
    from speecheq.dataset.msud_recipe import experiment_name, parse_switches

    switches = parse_switches(options.as_published)
    name = experiment_name(options.target, options.protocol, options.classes, options.neutral_eis, switches)
    return options.data / "msud" / name


def phonemes_folder(options: argparse.Namespace, corpus: str) -> Path:
    """The folder of a corpus' phoneme cuts; other units, pronunciations and silence have one of their own."""
    name = corpus if options.units == "phone" else f"{corpus}.{options.units}{options.bpe_size}"
    name += ".all" if options.pronunciations == "all" else ""
    name += ".silence" if options.silence == "optional" else ""
    return options.data / "phonemes" / name


def runs(options: argparse.Namespace) -> Iterator[Run]:
    """Every combination of the given systems, folds and seeds. Raises InputError for one that does not exist."""
    from speecheq.dataset.msud import made_folds

    msud = msud_folder(options)
    folds = made_folds(msud, options.folds)
    systems = list(dict.fromkeys(options.systems.replace(",", " ").split()))
    if not systems:
        raise InputError("--systems: names no system.")
    for system in systems:
        for fold in folds:
            for seed in parse_numbers(options.seeds, "seed"):
                folder = options.exp / f"{config_name(options)}-{system}" / msud.name / f"fold{fold}" / f"seed{seed}"
                yield Run(system, fold, seed, folder)

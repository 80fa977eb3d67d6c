"""The commands of stage 5 that score trained systems and their reference: score, robustness, probe."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from speecheq.cli.job_parts import missing_tasks, run_part
from speecheq.cli.options import (
    Commands,
    Run,
    add_command,
    add_data_option,
    add_exp_option,
    add_features_option,
    add_label_options,
    add_run_options,
    features_name,
    msud_folder,
    runs,
)
from speecheq.cluster import job_arrays
from speecheq.cluster.job_options import LOCAL, Settings
from speecheq.common.command_line import numbers, positive_whole
from speecheq.common.errors import InputError


def _do_runs(options: Namespace, stage: str, work: Callable[[Run], Any]) -> None:
    """Do ``work`` for every run that was given, on this machine or as jobs."""
    from speecheq.config.layers import load

    given = list(runs(options))
    if options.cmd == LOCAL:
        for run in given:
            work(run)
        return
    tasks = missing_tasks(options, [run_part(run, partial(work, run)) for run in given])
    on_gpus = any(load(run.folder / "config.yaml").run.device != "cpu" for run in given)
    job_arrays.run(stage, tasks, Settings.from_options(options, gpus=int(on_gpus)))


def _score(options: Namespace) -> None:
    from speecheq.evaluation.score import score

    msud = msud_folder(options)
    _do_runs(options, "score", lambda run: score(run.folder, msud, run.fold, options.train_clips))


def _trials(options: Namespace) -> list:
    """The trials of the settings that were given; raises InputError if one lacks an option."""
    from speecheq.evaluation.robustness.attack_trial import LEVELS, SETTINGS, AttackTrial
    from speecheq.evaluation.robustness.cross_corpus_trial import CorpusTrial
    from speecheq.evaluation.robustness.noise_trial import SNRS, NoiseTrial
    from speecheq.evaluation.robustness.telephone_trial import TelephoneTrial

    trials: list = [TelephoneTrial()] if "telephone" in options.settings else []
    if "noise" in options.settings:
        if options.noise is None:
            raise InputError("robustness noise: no noise is given; give --noise MANIFESTS (run.sh: --test-noise DIR).")
        trials.append(NoiseTrial(options.noise, options.rir, tuple(options.snr or SNRS)))
    if "attack" in options.settings:
        given = {"waveform": options.waveform_levels, "fbank": options.fbank_levels}
        attacks = tuple(dict.fromkeys(options.attacks))
        trials += [AttackTrial(on, attacks, tuple(given[on] or LEVELS[on])) for on in SETTINGS if on in options.on]
    if "corpora" in options.settings:
        if not options.to:
            raise InputError("the setting corpora needs the names of some: give --to.")
        corpora, shots = tuple(dict.fromkeys(options.to)), tuple(dict.fromkeys(options.shots))
        trials.append(CorpusTrial(corpora, options.data / "manifests", options.data / "fbank", shots))
    return trials


def _robustness(options: Namespace) -> None:
    from speecheq.evaluation.robustness.run_trials import run_trial

    trials, msud = _trials(options), msud_folder(options)

    def work(run: Run) -> None:
        for trial in trials:
            run_trial(run.folder, msud, run.fold, trial)

    _do_runs(options, "robustness", work)


def _probe(options: Namespace) -> None:
    from speecheq.config.layers import one_setting
    from speecheq.dataset.msud import made_folds
    from speecheq.evaluation.probe import ProbeSettings
    from speecheq.evaluation.probe_run import ProbeRun, StoredFeatures, run_probe
    from speecheq.reporting.experiment import scored_folders, summarise
    from speecheq.reporting.probe_results import layer_table
    from speecheq.reporting.tables import table_markdown

    cmvn = options.cmvn
    if cmvn is None and options.config is not None:
        cmvn = one_setting(options.config, options.set, "data.cmvn")
    settings = ProbeSettings(options.kernel, cmvn == "speaker")
    msud = msud_folder(options)
    folds = made_folds(msud, options.folds)
    features = StoredFeatures.open(features_name(options), options.data)
    probes = [ProbeRun(features, settings, options.exp, msud, fold) for fold in folds]
    done = [run_probe(run) for run in probes]
    if all(done):
        experiment = probes[0].folder.parents[1]
        print(table_markdown(layer_table(summarise(experiment, scored_folders(experiment)[0]))))


def _add_corpora_options(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the setting corpora").add_argument
    add("--to", nargs="+", default=[], metavar="CORPUS", help="prepared corpora that the system was not trained on")
    add(
        "--shots",
        nargs="+",
        type=positive_whole,
        default=[],
        metavar="N",
        help="adapt the model first to N labelled clips of each class, for each N",
    )


def _add_noise_options(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the setting noise").add_argument
    add("--noise", type=Path, metavar="MANIFESTS", help="noises for the test, other than those of the training")
    add(
        "--rir",
        type=Path,
        metavar="MANIFESTS",
        help="room impulse responses for the test (default: reverberation is simulated)",
    )
    add("--snr", type=numbers, metavar="LIST", help='signal-to-noise ratios in dB (default: "20 15 10 5 0")')


def _add_attack_options(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the setting attack").add_argument
    attacks = ("fgsm", "bim", "pgd", "apgd", "apgd_dlr")
    add("--attacks", nargs="+", choices=attacks, default=attacks, help="attacks to try (default: all)")
    add(
        "--on",
        nargs="+",
        choices=("waveform", "fbank"),
        default=["waveform", "fbank"],
        help="what the attacks change (default: each in turn)",
    )
    add(
        "--waveform-levels",
        type=numbers,
        metavar="LIST",
        help="largest changes of a sample, in dB relative to the clip's RMS, given with = "
        '(default: "-80 -70 -60 -50 -40 -30")',
    )
    add(
        "--fbank-levels",
        type=numbers,
        metavar="LIST",
        help='largest changes of an energy, in dB (default: "0.03 0.1 0.3 1 3")',
    )


def add_commands(commands: Commands) -> None:
    """Add score, robustness and probe."""
    score = add_command(commands, "score", _score, "Stage 5: score trained folds.")
    add_run_options(score)
    add = score.add_argument
    add(
        "--train-clips",
        action="store_true",
        help="score the target's training clips too, for the distributions of EIS (Figure 3)",
    )
    robustness = add_command(
        commands,
        "robustness",
        _robustness,
        "Stage 5: score trained folds under other conditions: on other corpora, in noise, by telephone, under attack.",
    )
    add = robustness.add_argument
    add(
        "settings",
        nargs="+",
        choices=("corpora", "noise", "telephone", "attack"),
        metavar="corpora|noise|telephone|attack",
        help="conditions to try",
    )
    add_run_options(robustness)
    _add_corpora_options(robustness)
    _add_noise_options(robustness)
    _add_attack_options(robustness)

    probe = add_command(
        commands,
        "probe",
        _probe,
        "Stage 5: an SVM on the mean and standard deviation of stored features, the reference of trained systems.",
    )
    add_data_option(probe)
    add_exp_option(probe)
    add_features_option(probe)
    add_label_options(probe)
    add = probe.add_argument
    add(
        "--kernel",
        choices=("rbf", "linear", "majority"),
        default="rbf",
        help="kernel of the SVM, or the majority class (default: rbf)",
    )
    add(
        "--cmvn",
        choices=("global", "speaker"),
        help="standardise by the training clips (global), or by each speaker's own clips, also a test speaker's "
        "(speaker): another protocol (default: speaker where --config has data.cmvn speaker, else global)",
    )
    add("--config", type=Path, metavar="FILE", help="configuration of the systems that the probe stands beside")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting that was changed there")

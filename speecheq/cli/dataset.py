"""The commands of stages 2 and 3: features, phoneme cuts, MsUD."""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from speecheq.cli.job_parts import Part, missing_tasks, share_out, task_with
from speecheq.cli.options import (
    Commands,
    add_command,
    add_data_option,
    add_features_option,
    add_label_options,
    add_unit_options,
    phonemes_folder,
)
from speecheq.cluster import job_arrays
from speecheq.cluster.job_options import LOCAL, Settings, add_options
from speecheq.common.command_line import parse_numbers, positive_whole
from speecheq.common.stages import planning
from speecheq.config.speech_activity import SPEECH_ACTIVITIES

if TYPE_CHECKING:
    from speecheq.features.encoder_states import EncoderSet


def _features(options: Namespace) -> None:
    from speecheq.config.feature_sets import parse_features
    from speecheq.config.schema import FBANK
    from speecheq.features.storage import FbankSet, compute_features, missing_parts

    name, model = parse_features(options.features)
    feature_set = FbankSet(options.speech_activity) if name == FBANK else _encoder_set(options, name, model)
    if feature_set is None:
        return
    parts = parse_numbers(options.parts, "part") if options.parts else None
    data = options.data
    where = {
        corpus: {
            "corpus": corpus,
            "manifests": data / "manifests" / corpus,
            "out_dir": data / name / corpus,
            "feature_set": feature_set,
            "cuts": None if name == FBANK else data / FBANK / corpus,
        }
        for corpus in options.corpora
    }
    left, nj = share_out(
        options, "features", where, lambda corpus: missing_parts(**where[corpus]), ("--corpora", "--parts")
    )
    for corpus in left:
        compute_features(**where[corpus], nj=nj, parts=parts)


def _encoder_set(options: Namespace, name: str, model: str) -> "EncoderSet | None":
    """The feature set of a pretrained encoder, noted for later stages; None if its states are not to be stored."""
    from speecheq.config.feature_sets import FEATURE_SETS, find_feature_set, save_prepared
    from speecheq.features.encoder_states import open_encoder

    config, feature_set = open_encoder(find_feature_set(options.data, name, FEATURE_SETS, model))
    save_prepared(options.data, name, config)
    return feature_set if options.store_features == "true" else None


def _phonemes(options: Namespace) -> None:
    from speecheq.dataset.phoneme_cuts import phonemes

    work = partial(
        phonemes,
        options.corpus,
        options.data / "manifests",
        options.data / "fbank",
        phonemes_folder(options, options.corpus),
        options.units,
        options.bpe_size,
        options.pronunciations,
        options.silence,
    )
    if options.cmd == LOCAL:
        work()
    else:
        tasks = missing_tasks(options, [Part(work, options.corpus, [])])
        job_arrays.run("phonemes", tasks, Settings.from_options(options))


def _unify(options: Namespace) -> None:
    from speecheq.dataset.msud import unify
    from speecheq.dataset.msud_recipe import Recipe, parse_switches, parse_use

    recipe = Recipe(
        options.target,
        options.protocol,
        options.corpora,
        options.dev,
        options.fold_seed,
        options.classes,
        options.neutral_eis,
        parse_use(options.use),
        options.folds_file,
        options.recipe_corpora,
        parse_switches(options.as_published),
    )
    data = options.data
    work = partial(unify, recipe, options.folds, data / "manifests", data / "fbank", data / "msud")
    if options.cmd == LOCAL:
        work()
        return
    with planning() as stages:
        folds = work()
    missing = {stage.options["fold"]: stage for stage in stages}
    tasks = [
        task_with(options, f"{recipe.name}, fold {fold}", ["--folds", str(fold)], stages=[missing[fold]])
        for fold in folds
        if fold in missing
    ]
    job_arrays.run("unify", tasks, Settings.from_options(options))


def add_commands(commands: Commands) -> None:
    """Add features, phonemes and unify."""
    features = add_command(
        commands, "features", _features, "Stage 2: compute and store the features of prepared corpora."
    )
    add_data_option(features)
    add = features.add_argument
    add("--corpora", nargs="+", required=True, metavar="CORPUS", help="prepared corpora")
    add_features_option(features)
    add(
        "--store-features",
        choices=("true", "false"),
        default="true",
        help="false: only check the encoder, whose states are then computed in training (default: true)",
    )
    add("--nj", type=positive_whole, default=2, help="processes, or with --cmd jobs per corpus (default: 2)")
    add("--parts", help="compute only these parts of 250 clips, such as 0-3, and leave joining them to another run")
    add(
        "--speech-activity",
        choices=SPEECH_ACTIVITIES,
        default="silero",
        help="what finds speech in each clip; features are those from its first to its last speech: Silero VAD, the "
        "energy of frames, or none, for whole clips (default: silero)",
    )
    add_options(features)

    phonemes = add_command(
        commands, "phonemes", _phonemes, "Stage 3: write the phoneme cuts of an ASR corpus, shared by all folds."
    )
    add_data_option(phonemes)
    add = phonemes.add_argument
    add("--corpus", required=True, help="prepared corpus with transcripts")
    add_unit_options(phonemes)
    add_options(phonemes)

    unify = add_command(commands, "unify", _unify, "Stage 3: unify corpora to MsUD, one fold at a time.")
    add_data_option(unify)
    add_label_options(unify)
    add = unify.add_argument
    add("--corpora", nargs="*", default=[], metavar="CORPUS", help="corpora of MsUD")
    add(
        "--recipe-corpora",
        nargs="*",
        default=[],
        metavar="CORPUS",
        help="all corpora that the recipe knows, to name those that are left out",
    )
    add(
        "--dev",
        default="auto",
        help="dev part: 10 %% of the training clips (clips), the clips of one speaker (speaker), the corpus' own part "
        "(official), or official with the protocol official and else clips (auto, the default)",
    )
    add(
        "--use",
        action="append",
        default=[],
        metavar="[CORPUS=]CATEGORY,...",
        help="take only these SEQM categories of a corpus (or of all corpora); may be given several times",
    )
    add("--folds-file", type=Path, help="table of published folds, with the columns clip and test_fold")
    add("--fold-seed", type=int, default=0, help="seed of the folds and dev parts (default: 0)")
    add_options(unify)

"""The commands of stages 0 and 1: synthesise, download, import, export and check corpora."""

from argparse import Namespace
from pathlib import Path

from speecheq.cli.options import Commands, add_command
from speecheq.common.command_line import positive, positive_whole, true_or_false
from speecheq.common.errors import InputError
from speecheq.common.log import log


def _synth(options: Namespace) -> None:
    from speecheq.corpora.synthetic import synthesise

    for corpus in options.corpora:
        synthesise(corpus, options.out / corpus, options.size, options.seed)


def _corpora(options: Namespace) -> None:
    from speecheq.common.files import read_json
    from speecheq.corpora.data_card import find_card, read_cards, where_from

    if options.prepared:
        for name in options.names:
            path = options.prepared / name / f"{name}_card.json"
            if not path.is_file():
                raise InputError(f"{path}: stage 1 (manifests) has not been run for {name}; run it first.")
            if read_json(path)["labels"]:
                print(name)
    else:
        cards = read_cards()
        names = [name if name in cards else name.rpartition("_")[0] or name for name in options.names]  # esd_zh -> esd
        for name in dict.fromkeys(names or cards):
            log.info("%s", where_from(find_card(name)))


def _download(options: Namespace) -> None:
    from speecheq.corpora.data_card import find_card
    from speecheq.corpora.download import download

    print(download(find_card(options.corpus), options.out, options.parts, options.base_url))


def _import(options: Namespace) -> None:
    from speecheq.corpora.exchange import import_corpus
    from speecheq.corpora.prepare import PrepareRequest

    request = PrepareRequest(options.source, options.partial, options.hours, options.seed, options.nj)
    import_corpus(options.name, request, options.out, options.labels, options.check_only)


def _export(options: Namespace) -> None:
    from speecheq.corpora.exchange import export_corpus

    export_corpus(options.manifests, options.out)


def _check(options: Namespace) -> None:
    from speecheq.common.files import write_json
    from speecheq.corpora.audit import as_text, audit

    report = audit(options.manifests, options.nj)
    if options.json:
        write_json(options.json, report)
    print(as_text(report))


def add_commands(commands: Commands) -> None:
    """Add synth, corpora, download, import, export and check."""
    add = add_command(commands, "synth", _synth, "Stage 0: synthesise mini corpora with espeak-ng.").add_argument
    add("--out", type=Path, required=True, help="folder in which each corpus gets a folder")
    add("--corpora", nargs="+", required=True, metavar="CORPUS", help="corpora to imitate")
    add("--size", default="mini", help="mini or nano (default: mini)")
    add("--seed", type=int, default=0, help="seed of the synthesis (default: 0)")

    corpora = add_command(commands, "corpora", _corpora, "Show where corpora are available and under which terms.")
    add = corpora.add_argument
    add("names", nargs="*", metavar="CORPUS", help="corpora by name (default: all)")
    add(
        "--prepared",
        type=Path,
        metavar="MANIFESTS",
        help="print those of the corpora that stage 1 prepared in this folder and that have emotion labels",
    )

    add = add_command(commands, "download", _download, "Stage 0: download a corpus that is open.").add_argument
    add("corpus", metavar="CORPUS", help="name of the corpus")
    add("--out", type=Path, required=True, help="folder in which the corpus gets a folder")
    add("--parts", nargs="+", metavar="PART", help="parts of LibriSpeech, such as train-clean-100")
    add("--base-url", help="address of another server with the same files")

    add = add_command(
        commands,
        "import",
        _import,
        "Stage 1 without a prep script: read a Kaldi data folder, a table or EmoBox' metadata (.jsonl).",
    ).add_argument
    add("source", type=Path, metavar="FOLDER_OR_TABLE", help="Kaldi data folder, table or .jsonl to read")
    add("out", type=Path, metavar="OUT_DIR", help="folder for the manifests")
    add("--name", required=True, help="name of the corpus: small letters, digits, underscores")
    add("--labels", type=Path, help="file that defines the labels (default: labels.yaml beside the source)")
    add("--partial", type=true_or_false, default=False, help="true: leave out lines without audio")
    add("--hours", type=positive, help="take a random subset of this many hours of the training part")
    add("--seed", type=int, default=0, help="seed of that subset (default: 0)")
    add("--nj", type=positive_whole, default=1, help="threads that read headers (default: 1)")
    add("--check-only", action="store_true", help="only check that the corpus can be read")

    add = add_command(
        commands, "export", _export, "Write a prepared corpus as a Kaldi data folder or a table."
    ).add_argument
    add("manifests", type=Path, metavar="MANIFESTS", help="manifests, such as data/manifests/casia")
    add("out", type=Path, metavar="FOLDER_OR_TABLE", help="folder to write, or a table where it ends in .csv or .tsv")

    add = add_command(
        commands, "check", _check, "Audit a prepared corpus: hours, speakers, labels, duplicates, faults of the audio."
    ).add_argument
    add("manifests", type=Path, metavar="MANIFESTS", help="manifests, such as data/manifests/casia")
    add("--nj", type=positive_whole, default=2, help="threads that read audio (default: 2)")
    add("--json", type=Path, help="write the figures to this file too")

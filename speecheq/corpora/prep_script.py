"""The command line of prep scripts (``local/prepare_*.py``): CORPUS_DIR OUT_DIR and options."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from speecheq.common.command_line import OneLineParser, exit_status, positive, positive_whole, true_or_false
from speecheq.common.log import log, set_up_logging
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Corpus, FindUtterances


def _parser(prog: str, description: str, partial_help: str, nj_help: str, check_help: str) -> OneLineParser:
    """The arguments that every prep script has."""
    parser = OneLineParser(prog=prog, description=description)
    parser.add_argument("corpus_dir", type=Path, metavar="CORPUS_DIR", help="folder of the corpus; only read")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder for the manifests; replaced as a whole")
    parser.add_argument("--partial", type=true_or_false, default=False, help=partial_help)
    parser.add_argument("--nj", type=positive_whole, default=1, help=nj_help)
    parser.add_argument("--check-only", action="store_true", help=check_help)
    return parser


def main(parts: Mapping[str, tuple[Corpus, FindUtterances]], argv: Sequence[str] | None = None) -> int:
    """The command line of a prep script. Returns the exit status.

    ``parts`` are the corpora that the script prepares, chosen by ``--part``; the part "" needs no such option.
    """
    set_up_logging()
    corpora = [corpus for corpus, _ in parts.values()]
    expected = "; ".join(dict.fromkeys(f"{corpus.title}, expected as {corpus.layout}" for corpus in corpora))
    parser = _parser(
        f"prepare_{os.path.commonprefix([corpus.name for corpus in corpora]).rstrip('_')}.py",
        f"Write lhotse manifests of {expected}.",
        "true: accept an incomplete copy of the corpus",
        "number of threads that read audio headers",
        "only check that the folder has the expected layout",
    )
    if list(parts) != [""]:
        needed = "" not in parts
        parser.add_argument(
            "--part", choices=tuple(parts), required=needed, default="", help="the part of the corpus to prepare"
        )
    parser.add_argument(
        "--hours", type=positive, help="take only a random subset of this many hours of the training part"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of that subset")

    def action() -> None:
        from speecheq.corpora.prepare import PrepareRequest, check_utterances, prepare

        given = parser.parse_args(argv)
        corpus, find = parts[getattr(given, "part", "")]
        if given.check_only:
            drops = Drops()
            check_utterances(corpus, list(find(given.corpus_dir, given.partial, drops)), given.corpus_dir, drops)
            log.info("%s: %s has the layout of %s", corpus.name, given.corpus_dir, corpus.title)
            return
        request = PrepareRequest(given.corpus_dir, given.partial, given.hours, given.seed, given.nj)
        prepare(corpus, find, request, given.out_dir)

    return exit_status(action)


def run(corpus: Corpus, find: FindUtterances) -> None:
    """Run a prep script as a program; the process ends."""
    sys.exit(main({"": (corpus, find)}))


def run_parts(parts: Mapping[str, tuple[Corpus, FindUtterances]]) -> None:
    """Run a prep script of several corpora, of which ``--part`` chooses one, as a program."""
    sys.exit(main(parts))


def audio_folder_main(name: str, content: str, argv: Sequence[str] | None = None, speech: bool = False) -> int:
    """The command line of a prep script of a folder of unlabelled audio. Returns the exit status.

    ``content`` is what the files are (noises), for messages; ``speech`` as in ``audio_folder.prepare``.
    """
    set_up_logging()
    parser = _parser(
        f"prepare_{name}.py",
        f"Write the lhotse manifest of a folder of {content}.",
        "true: leave out files that cannot be read",
        "number of threads that read the files",
        "only check that the folder holds audio",
    )
    parser.set_defaults(hours=None)
    if speech:
        parser.add_argument("--hours", type=positive, help="take only a random subset of this many hours")

    def action() -> None:
        from speecheq.corpora.audio_folder import find_audio_files, prepare
        from speecheq.corpora.prepare import PrepareRequest

        given = parser.parse_args(argv)
        if given.check_only:
            found = find_audio_files(given.corpus_dir, content)
            log.info("%s: %s holds %d audio files", name, given.corpus_dir, len(found))
            return
        request = PrepareRequest(given.corpus_dir, given.partial, given.hours, nj=given.nj)
        prepare(name, content, request, given.out_dir, speech)

    return exit_status(action)


def run_audio_folder(name: str, content: str, speech: bool = False) -> None:
    """Run a prep script of a folder of unlabelled audio as a program; see ``audio_folder_main``."""
    sys.exit(audio_folder_main(name, content, speech=speech))

"""Every command of README.md and docs/*.md is run, on synthesised nano corpora and with trainings of four steps.

A page's code blocks run as they stand, in order and each in a shell of its own; of its tables every piece of code in
the column "give" is given to the recipe. REPLACED and ADDED say what is put in place of what a reader puts in. A new
command is found, and run, without a word here.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest
import yaml
from doc_pages import PAGES, ROOT, blocks, given, inline_code, paths, prose
from encoder_models import write_whisper
from lhotse import CutSet, Recording
from warm_commands import warm_environment

from speecheq.cluster.run_task import free_port

ENGLISH = ("--protocol session", "--target ravdess", "--phonemes none")  # these options are given in egs/iemocap
# Their commands run in test_prediction.py, on a model that lies there, and in test_own_data.py.
ELSEWHERE = {"docs/prediction.md", "docs/own_data.md"}

# In place of what stands in the docs; {nano}, {made} and {port} are filled in.
REPLACED = [
    # Stages that other commands of the docs run in the same way are left out.
    ("./run.sh --iemocap", "./run.sh --stop-stage 4 --iemocap"),
    ("./run.sh --corpus", "./run.sh --stage 1 --stop-stage 4 --corpus"),
    # on a cluster: tests/egs/test_slurm.py
    ("--nj 16 --cmd slurm --partition gpu --time 10:00:00", "--nj 2 --stage 3 --stop-stage 3"),
    ("--nj 16 --stop-stage 3 --cmd slurm --partition cpu", "--nj 2 --stage 3 --stop-stage 3"),
    ("--stage 4 --cmd slurm --partition gpu --time 10:00:00", "--stage 4 --stop-stage 4"),
    ("--aishell /corpora/AISHELL-1 --stop-stage 2", "--aishell /corpora/AISHELL-1 --stage 2 --stop-stage 2"),
    ("--protocol emobox", "--stop-stage 4 --protocol emobox"),
    ("./run.sh --protocol speaker --stage 3", "./run.sh --protocol speaker --stage 3 --stop-stage 4"),
    ('--folds "1 2" --stage 3', '--folds "1 2" --stage 3 --stop-stage 4'),
    ("/corpora/CASIA", "{nano}/casia"),
    ("/corpora/AISHELL-1", "{nano}/aishell"),
    ("/corpora/IEMOCAP", "{nano}/iemocap"),
    ("/corpora/RAVDESS", "{nano}/ravdess"),
    ("--emodb /corpora/EMODB", "--stop-stage 4 --emodb {nano}/emodb"),
    ("/corpora/LibriSpeech", "{nano}/librispeech"),
    ("/corpora/Harbour", "{made}/Harbour"),
    ("/corpora/mine.csv", "{made}/Harbour/harbour.csv"),
    ("/corpora/noises", "{made}/noises"),
    ("/EmoBox/", "{made}/EmoBox/"),
    ("whisper-base=/models/whisper-base", "whisper-base"),
    ("--features whisper-base", "--features whisper-base={made}/whisper-base"),
    ("/corpora/street", "{made}/street"),
    ("/corpora/rooms", "{made}/rooms"),
    ("exp/.../", "exp/paper-speecheq/casia.random10/"),
    ("HOST:29500", "localhost:{port}"),
    ("--aishell-hours 20", "--aishell-hours 0.002"),  # of some seconds of speech
    ('--seeds "1 2 3"', "--seeds 1"),
    ("--gpus 4 --nodes 2", "--gpus 1 --nodes 2 --set run.device=cpu --exp exp-nodes"),
    ("--gpus 4", "--gpus 2 --set run.device=cpu --exp exp-gpus"),
    ("--bpe-size 5000", "--bpe-size 100"),
    # Synthesised corpora are incomplete copies; of the folds one is enough. What a command says itself comes later.
    ("./run.sh", "./run.sh --partial true --folds 1"),
    ("local/prepare_harbour.py", "local/prepare_harbour.py --partial true"),
    ("data/manifests/harbour DIR", "data/manifests/harbour kaldi-harbour"),
    ("... harbour.tsv", "speecheq export data/manifests/harbour harbour.tsv"),
]
# What is added to options from a table: the stages that read them. The first whose options occur counts.
ADDED = [
    ("--download", "--stop-stage 0"),
    ("--partial", "--stop-stage 0"),
    ("--aishell-hours", "--data data-hours --stage 1 --stop-stage 1"),
    ("--corpus", "--data data-mine --stage 1 --stop-stage 1"),
    ("--noise", "--data data-noise --stage 1 --stop-stage 4"),
    ("--train-jobs", "--exp exp-jobs --stage 3 --stop-stage 4"),
    ("--shar", "--exp exp-shar --stage 3 --stop-stage 4"),
    ("--probe", "--stage 2 --stop-stage 5"),
    ("--features", "--stage 2 --stop-stage 4"),
    ("--units", "--stage 3 --stop-stage 3"),
    ("--target", "--phonemes none --stage 3 --stop-stage 3"),
    ("--protocol", "--phonemes none --stage 3 --stop-stage 3"),
    ("--score-train", "--stage 5"),
    ("--robustness", "--stage 5"),
    ("", "--stage 4 --stop-stage 4"),
]
# Commands that install, test or take minutes: what .ci/run, or the Makefile that it calls, has instead.
BY_CI = {
    "make faults": "SPEECHEQ_KILLS=50 python -m pytest tests/faults",
    "make demo": "make demo STACK=k2",
    "make test": "make test STACK=k2",
    "make test-all": "make test-all STACK=k2",
    "make demo RECIPE=iemocap": "make demo STACK=k2 VENV=.venv RECIPE=iemocap",
    "utils/install.sh --stack k2|modern": "make test-all STACK=modern",
    "--mini true": "run.sh --mini true --train-jobs 2 --stage 0 --stop-stage 5",
    "utils/install.sh --make-wheelhouse DIR": "utils/install.sh --venv .venv-modern --make-wheelhouse .venv-wheels",
    "utils/install.sh --wheelhouse DIR": "--wheelhouse .venv-wheels",
    "utils/install.sh --extras av": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # has av
    "utils/install.sh --extras cited": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # has cited
    "utils/install.sh --extras listen": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # has listen
    "utils/install.sh --extras encoders": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # too
    "utils/install.sh --extras export": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # has export
    "utils/install.sh --extras parquet": "utils/install.sh --stack $(STACK) --venv $(VENV) --extras test",  # too
}
PROGRAMS = (
    "speecheq",
    "make",
    "./run.sh",
    "run.sh",
    "utils/install.sh",
    "python",
    "pip",
    "local/",
    "torchrun",
    "sbatch",
)
# Paths that no command of the README leaves: examples, and what other commands leave, which test_adding_a_corpus.py,
# test_prediction.py, tests/egs/test_slurm.py and the tests of the package run.
NOT_LEFT = {
    ".jsonl.gz",
    "durations.tsv",
    "align.html",
    "some.txt",
    "/dev/shm",
    "/mnt/c",
    "data/NAME",
    "data/NAME/NAME.jsonl",
    "fold_1/NAME_test_fold_1.jsonl",
    "label_map.json",
    "downloads/...",
    "f1_glad_mild_03.wav",
    "harbour.csv",
    "harbour.tsv",
    "labels.yaml",
    "wav.scp",
    "local/cards/harbour.yaml",
    "model.safetensors",
    "config.json",
    "data/whisper-base/encoder.yaml",
    "pooled.npz",
    "model.pt",
    "/models/whisper-base",
    "conf/features/NAME.yaml",
    "exp/light-whisper-base-wo_mtl/...",
    "preprocessor_config.json",
    "labels.json",
    "data/corpora",
    "predicted_words.tsv",
    "train_scores.tsv",
    "tasks.json",
    "exp/jobs/<stage>-<key>",
    "conditions.json",
    "mymodel.work/exp/report.html",
    "commands.sh",
    "own_recordings_all.jsonl.gz",
    "own_supervisions_all.jsonl.gz",
    "data/manifests/test_noise",
    "data/manifests/test_rir",
    "exp/pictures",
    "data/shar",
    "data/shar/<input>/<target>.<protocol>/fold<k>",
    "data/shar/<input>/phonemes/<corpus>",
    "shards-<key>/cuts.<n>.jsonl.gz",
}


def is_command(code):
    """Whether a piece of code in the text is a command with its arguments, rather than the name of one."""
    name = 2 if code.startswith("speecheq ") else 1
    return code.startswith("... ") or code.startswith(PROGRAMS) and len(code.split()) > name


def inline_commands(page):
    return [code for code in inline_code(prose(page)) if is_command(code) and "--help" not in code]


@pytest.fixture(scope="module")
def server(nano, tmp_path_factory):
    """The address of archives of nano corpora, named and laid out as the published ones."""
    folder = tmp_path_factory.mktemp("server")
    corpora = nano("ravdess", "emodb")
    # emodb's archive holds the corpus' folder, that of RAVDESS the actors'
    for name, inside in (("ravdess", corpora / "ravdess/Audio_Speech_Actors_01-24"), ("emodb", corpora / "emodb")):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for path in sorted(inside.rglob("*")):
                archive.write(path, path.relative_to(inside))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def write_emobox(root, toys):
    """The metadata of a corpus of two folds as EmoBox lays it out, and its audio."""
    lines = [
        {
            "key": f"cafe-{number:02d}",
            "dataset": "cafe",
            "wav": f"downloads/cafe/{number:02d}.wav",
            "emo": "cj"[number % 2],
        }
        for number in range(24)
    ]
    folder = root / "data" / "cafe"
    for path, part in (
        (folder / "cafe.jsonl", lines),
        (folder / "fold_1" / "cafe_test_fold_1.jsonl", lines[:12]),
        (folder / "fold_2" / "cafe_test_fold_2.jsonl", lines[12:]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in part))
    (folder / "label_map.json").write_text('{"c": "Angry", "j": "Happy"}')
    for line in lines:
        toys.write_wav(root / line["wav"], 0.6)


@pytest.fixture(scope="module")
def made(toys, tmp_path_factory):
    """The corpora that the docs invent."""
    folder = tmp_path_factory.mktemp("made")
    rows = ["path,speaker,gender,emotion,intensity,text_id"]
    for speaker in ("f1", "f2", "m1", "m2"):
        for number, emotion in enumerate(["calm", "happy", "angry"] * 3):
            name = f"clips/{speaker}_{emotion}_mild_{number:02d}.wav"
            toys.write_wav(folder / "Harbour" / name, 0.6)
            rows.append(f"{name},{speaker},{speaker[0].upper()},{emotion},mild,{number:02d}")
    (folder / "Harbour" / "harbour.csv").write_text("\n".join(rows) + "\n")
    (folder / "Harbour" / "labels.yaml").write_text(dict(blocks("docs/adding_a_corpus.md"))["yaml"])
    (folder / "Harbour" / "speakers.txt").write_text("f1 F\nf2 F\nm1 M\nm2 M\n")
    write_emobox(folder / "EmoBox", toys)
    write_whisper(folder / "whisper-base", layers=3)
    toys.write_wav(folder / "noises" / "rain.wav", 1.0)
    toys.write_wav(folder / "street" / "cars.wav", 0.2)
    toys.write_wav(folder / "rooms" / "hall.wav", 0.3)
    return folder


@pytest.fixture(scope="module")
def checkout(nano, made, server, toys, tmp_path_factory):
    """A copy of the repository's working parts, its configurations as small as still train, with what users add."""
    top = tmp_path_factory.mktemp("checkout") / "speecheq"
    top.mkdir()
    without = shutil.ignore_patterns("data", "data-*", "exp", "exp-*")
    shutil.copytree(ROOT / "egs", top / "egs", symlinks=True, ignore=without)
    for name in ("docs", "local", "utils", "speecheq"):
        shutil.copytree(ROOT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.sh"), ROOT / "README.md"):
        shutil.copy(path, top)
    for conf in top.glob("egs/*/conf"):
        for path in list(conf.glob("*.yaml")):
            if path.name not in ("systems.yaml", "table.yaml"):
                whole = (ROOT / path.relative_to(top)).read_text(encoding="utf-8")
                path.unlink()  # some are links to those of the other recipe
                (conf / f"whole_{path.name}").write_text(whole, encoding="utf-8")
                path.write_text(f"base: [whole_{path.name}, nano.yaml]\n", encoding="utf-8")
        shutil.copy(ROOT / "tests" / "egs" / "nano.yaml", conf)
    for name in ("ravdess", "emodb"):
        card = top / "local" / "cards" / f"{name}.yaml"
        content = yaml.safe_load(card.read_text(encoding="utf-8"))
        into = content["downloads"][0].get("into", "")
        content["downloads"] = [{"url": f"{server}/{name}.zip", "into": into}]
        card.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    script = dict(blocks("docs/adding_a_corpus.md"))["python"]
    (top / "local" / "prepare_harbour.py").write_text(script, encoding="utf-8")
    (top / "local" / "prepare_harbour.py").chmod(0o755)
    toys.write_wav(top / "some.wav", 0.5)
    recording = toys.write_wav(top / "egs" / "mandarin" / "some.wav", 0.5)
    toys.write_wav(top / "egs" / "mandarin" / "a-folder" / "other.wav", 0.5)
    cuts = CutSet.from_cuts([Recording.from_file(recording).to_cut()])
    cuts.to_file(top / "egs" / "mandarin" / "cuts.jsonl.gz")
    clips = [path.stem for path in sorted((nano("ravdess") / "ravdess").rglob("*.wav"))]
    # the last two digits are the actor's, odd for men; four actors in two folds
    (top / "egs" / "iemocap" / "folds.tsv").write_text(
        "clip\ttest_fold\n" + "".join(f"{clip}\t{1 + int(clip[-2:]) % 2}\n" for clip in clips)
    )
    return top


@pytest.fixture(scope="module")
def venv(checkout):
    """For all but the README's commands, which run as users run them."""
    with warm_environment(checkout) as warm:
        yield warm


@pytest.fixture(scope="module")
def shell(checkout, nano, made):
    """``shell(code, folder, times=1, venv=DIR)`` runs commands of the docs below the checkout, ``times`` beside each
    other."""
    places = {"nano": nano("casia", "aishell", "iemocap", "ravdess", "librispeech", "emodb"), "made": made}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(code, folder="", times=1, venv=sys.prefix):
        for text, replacement in REPLACED:
            code = code.replace(text, replacement.format(**places, port=free_port()))
        line = f"set -euo pipefail; . {checkout}/path.sh; {code}"
        running = [
            subprocess.Popen(
                ["bash", "-c", line],
                cwd=checkout / folder,
                env={**environment, "SPEECHEQ_VENV": str(venv)},
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for _ in range(times)
        ]
        printed = [process.communicate()[0] for process in running]
        for process, text in zip(running, printed):
            assert process.returncode == 0, f"{code}\n{text[-3000:]}"
            assert "Traceback" not in text, f"{code}\n{text[-3000:]}"

    return run


def machines(code):
    return int((re.search(r"--nodes (\d+)", code) or [1, 1])[1])


def without_comments(code):
    return [line.split("#")[0].strip() for line in code.splitlines() if line.split("#")[0].strip()]


def run_page(page, shell, venv=sys.prefix):
    """The page's blocks, in order, then the commands in its text; of what .ci/run has instead nothing."""
    codes = [code for language, code in blocks(page) if language == "sh"] + inline_commands(page)
    ours = [code for code in codes if not set(without_comments(code)) <= set(BY_CI)]
    for code in ours:
        shell(code, times=machines(code), venv=venv)
    return ours


@pytest.fixture(scope="module")
def walked(shell):
    """What the README's commands leave: both recipes, from corpora to tables. Other pages begin here."""
    return run_page("README.md", shell)


def test_the_commands_of_the_readme_run(walked, checkout):
    assert len(walked) >= 4
    page = (checkout / "egs/mandarin/RESULTS.md").read_text(encoding="utf-8")
    assert "paper | 1 of 10 | 1 |" in page, "its table is of what ran"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_a_page_is_in_the_repository_or_left_by_its_commands(page, walked, checkout):
    tops = [ROOT, ROOT / "speecheq", *(checkout / "egs" / name for name in ("mandarin", "iemocap", "mtl_aug"))]
    for path in set(paths(page)) - NOT_LEFT:
        pattern = re.sub(r"<[a-z]+>", "*", path).replace("...", "**")
        there = any(any(top.glob(pattern)) for top in tops)
        assert there or "/" not in path and any(any(top.rglob(pattern)) for top in tops[2:]), path


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and page not in ELSEWHERE])
def test_the_commands_of_a_page_run(page, walked, shell, venv):
    run_page(page, shell, venv)


@pytest.mark.parametrize(
    "page, options",
    [(page, options) for page in PAGES if page not in ELSEWHERE for options in given(page) if options not in BY_CI],
)
def test_the_options_of_a_table_run(page, options, walked, shell, venv):
    assert options.startswith("--"), f"{page}: a table whose last column is headed 'give' has options there"
    added = next(added for part, added in ADDED if part in options)
    folder = "egs/iemocap" if any(part in options for part in ENGLISH) else "egs/mandarin"
    shell(f"./run.sh {options} {added}", folder, venv=venv)


def test_what_is_left_to_ci_is_in_ci():
    there = "".join((ROOT / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile"))
    told = {
        line for page in PAGES for language, code in blocks(page) if language == "sh" for line in without_comments(code)
    } | {code for page in PAGES for code in inline_code(prose(page))}
    for command, instead in BY_CI.items():
        assert instead in there, f"{command} is said to be covered by {instead!r}"
        assert command in told, f"{command} stands in no page any more"


def test_no_command_hides_in_a_block_that_does_not_run():
    for page in PAGES:
        for language, code in blocks(page):
            assert language, f"{page}: name the language of every code block: {code}"
            if language != "sh":
                lines = [line for line in code.splitlines() if is_command(line.strip())]
                assert not lines, f"{page}: a command stands in a block of {language}: {lines}"

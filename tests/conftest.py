"""What tests share: toy corpora of noise in the official layouts, prep scripts as functions, the real samples."""

import os

# before torch is imported: spinning OpenMP threads of several test processes take each other's cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import fcntl
import importlib.util
import itertools
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings
from scheduler_programs import grid_engine  # noqa: F401  a fixture
from warm_commands import warm_environment

from speecheq.corpora import prep_script
from speecheq.seqm import EMOTIONS

ROOT = Path(__file__).resolve().parent.parent
CASIA_SPEAKERS = ("liuchanhg", "wangzhe", "ZhaoZuoxiang", "zhaoquanyin")
CASIA_EMOTIONS = ("angry", "fear", "happy", "neutral", "sad", "surprise")
TRANSCRIPT = Path("data_aishell/transcript/aishell_transcript_v0.8.txt")
TEXTS = ("今天天气很好", "我们去公园散步", "他在图书馆看书", "明天下午开会", "请把窗户打开", "孩子们都睡着了")
COLUMNS = ("utt", "speaker", "gender", "emotion", "category", "level", "split", "text")

torch.set_num_threads(1)
# No test fails for the time that it takes: the machine may have other work.
# CI judges a change by the same examples as the run before it; all other runs draw new ones.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="SPEECHEQ_CI" in os.environ
)
settings.load_profile("untimed")
# What a shell has started in the background ignores Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# ---- lanes: make test, make test-all, and what .ci/run runs on the second stack

# Below tests/: they start whole recipes, clusters, servers, many processes or long trainings.
SLOW = (
    "cluster/test_distributed.py",
    "cluster/test_nodes.py",
    "cluster/test_torchrun.py",
    "dataset/test_scale.py",
    "dataset/test_shard_training.py",
    "docs/test_commands.py",
    "egs/",
    "evaluation/robustness/test_run_trials.py",
    "faults/",
    "features/test_encoder_files.py::test_a_model_of_the_hub_comes_from_its_cache",
    "features/test_signal.py",
    "features/test_encoders_whisper.py::test_gradients_of_gelu",
    "features/test_encoders_whisper.py::test_padded_to_30_s",
    "features/test_encoders_whisper.py::test_the_two_paddings",
    "inference/test_encoder_models.py",
    "inference/test_export.py",
    "inference/test_web_page.py",
    "models/test_cited.py::test_one_mini_batch",
    "training/test_encoder_training.py::test_an_interrupted",
    "training/test_encoder_training.py::test_bf16",
    "training/test_encoder_training.py::test_frozen",
    "training/test_encoder_training.py::test_starting",
    "training/test_encoder_training.py::test_two_processes",
    "training/test_state.py",
)
# Fixtures of slow tests: a browser, and real corpora.
SLOW_FIXTURES = {"browser", "samples"}
# Exceptions that run the package from end to end in one process.
FAST = ("egs/test_keys.py::test_what_the_flat_package_left_is_still_done",)
# Tests of shell code and of pages, and of recipes, clusters and faults from outside. The package code that they run is
# tested by others on both stacks, and so are the first minutes of the hour.
ONE_STACK = ("docs/", "egs/", "faults/", "utils/", "inference/test_live.py::test_so_it_is_for_an_hour")

# Modules that take longest, in that order. They start before all others (make test: --no-loadscope-reorder), so that no
# process runs one of them when the others have nothing left to do.
LONGEST = (
    "egs/test_slurm.py",
    "docs/test_commands.py",
    "faults/test_walk.py",
    "faults/test_damage.py",
    "cluster/test_nodes.py",
    "egs/test_mandarin.py",
    "egs/test_iemocap.py",
    "egs/test_mtl_aug_recipe.py",
)


def pytest_collection_modifyitems(items):
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        is_slow = name.startswith(SLOW) or not SLOW_FIXTURES.isdisjoint(item.fixturenames)
        if is_slow and not name.startswith(FAST):
            item.add_marker("slow")
        if name.startswith(ONE_STACK):
            item.add_marker("one_stack")
    items.sort(key=longest_first(items))


def longest_first(items):
    """The key by which tests are sorted: LONGEST, then modules of many tests before those of few."""
    tests = Counter(item.path for item in items)
    longest = [ROOT / "tests" / name for name in LONGEST]

    def place(item):
        return longest.index(item.path) if item.path in longest else len(longest), -tests[item.path], item.path

    return place


# ---- corpora


def write_wav(path, seconds=0.2, rate=16000, channels=1):
    """Noise that depends on the file's name only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode()) + [channels])
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    soundfile.write(path, 0.1 * noise.standard_normal(shape), rate, subtype="PCM_16")
    return path


def make_casia(folder, speakers=CASIA_SPEAKERS, emotions=CASIA_EMOTIONS, texts=2, seconds=0.2):
    for speaker, emotion, text in itertools.product(speakers, emotions, range(201, 201 + texts)):
        write_wav(folder / "casia" / speaker / emotion / f"{text}.wav", seconds)
    return folder


def make_aishell(folder, splits=("train", "dev", "test"), utterances=6, segmented=False, info="{id} {sex}"):
    """Two speakers a split; ``info`` is a line of speaker.info, None for a copy without it."""
    lines, genders = [], []
    for part, split in enumerate(splits):
        for speaker, sex in ((f"S{2 + 2 * part:04d}", "F"), (f"S{3 + 2 * part:04d}", "M")):
            genders.append((info or "").format(id=speaker[1:], sex=sex) + "\n")
            for number in range(utterances):
                utterance = f"BAC009{speaker}W{122 + number:04d}"
                write_wav(folder / "data_aishell" / "wav" / split / speaker / f"{utterance}.wav")
                text = TEXTS[number % len(TEXTS)]
                lines.append(f"{utterance} {' '.join(text) if segmented else text}\n")
    (folder / TRANSCRIPT).parent.mkdir(parents=True, exist_ok=True)
    (folder / TRANSCRIPT).write_text("".join(lines), encoding="utf-8")
    if info is not None:
        (folder / "resource_aishell").mkdir()
        (folder / "resource_aishell" / "speaker.info").write_text("".join(genders), encoding="utf-8")
    return folder


def seqd_rows(clips=2):
    """The columns of labels.tsv; of each of the 25 emotions the last clip is in the test part."""
    for place, emotion in enumerate(EMOTIONS.values()):
        for number in range(clips):
            speaker, sex = (("F01", "F"), ("M01", "M"))[(place + number) % 2]
            split = "test" if number == clips - 1 else "train"
            yield [
                f"{speaker}_{emotion.name}_{number}",
                speaker,
                sex,
                emotion.name,
                emotion.category,
                emotion.level or "-",
                split,
                TEXTS[place % len(TEXTS)],
            ]


def make_seqd(folder, rows=None):
    rows = list(seqd_rows() if rows is None else rows)
    for row in rows:
        write_wav(folder / "wav" / row[1] / f"{row[0]}.wav")
    (folder / "labels.tsv").write_text("\n".join("\t".join(row) for row in [COLUMNS, *rows]) + "\n", encoding="utf-8")
    return folder


def load_script(name):
    """A prep script as a module."""
    path = ROOT / "local" / f"prepare_{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Toys:
    """The functions above, for tests that get them as a fixture."""

    write_wav = staticmethod(write_wav)
    casia = staticmethod(make_casia)
    aishell = staticmethod(make_aishell)
    seqd = staticmethod(make_seqd)
    seqd_rows = staticmethod(seqd_rows)
    script = staticmethod(load_script)
    root = ROOT
    transcript = TRANSCRIPT
    texts = TEXTS
    columns = COLUMNS


@pytest.fixture(scope="session")
def toys():
    return Toys


@pytest.fixture(scope="session")
def prepare():
    """``prepare(corpus, corpus_dir, out_dir, *options)`` runs a prep script's command line: its exit status."""

    def run(name, corpus_dir, out_dir, *options):
        script, _, part = name.rpartition("_")
        if (ROOT / "local" / f"prepare_{script}.py").is_file():  # a corpus in parts, such as esd_zh
            parts, options = load_script(script).PARTS, ("--part", part, *options)
        else:
            module = load_script(name)
            parts = getattr(module, "PARTS", None) or {"": (getattr(module, name.upper()), module.find_utterances)}
        return prep_script.main(parts, [str(corpus_dir), str(out_dir), *options])

    return run


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(prepare, tmp_path, capsys):
    """``refused(corpus, corpus_dir, *options)``: the sentence with which a prep script refuses a corpus.

    Checks what every refusal has: exit status 1, one line that is an error, and an earlier result untouched.
    """

    def run(name, corpus_dir, *options):
        out_dir = tmp_path / "manifests-before"
        out_dir.mkdir(exist_ok=True)
        (out_dir / "stage.json").write_text(
            '{"stage": "manifests", "key": "of another run", "options": {}, "inputs": {}, "format": 1, "outputs": {}}'
        )
        (out_dir / "earlier.txt").write_text("a good result")
        before = files_of(out_dir)
        capsys.readouterr()
        assert prepare(name, corpus_dir, out_dir, *options) == 1
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        errors = [line for line in shown.splitlines() if " ERROR " in line]
        assert len(errors) == 1 and shown.rstrip().endswith(errors[0]), shown
        assert errors[0].endswith("."), "a sentence"
        assert files_of(out_dir) == before
        assert not list(tmp_path.glob(".tmp*")) and not list(tmp_path.glob(".old*"))
        return errors[0].split(" ERROR ", 1)[1]

    return run


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """``samples(corpus)``: the folder of a real sample corpus, such as CASIA; skips where there is none.

    They lie in $SPEECHEQ_SAMPLES, or are unpacked once a run from ``shared/data`` beside the repository.
    """

    def folder_of(corpus):
        given = os.environ.get("SPEECHEQ_SAMPLES")
        if given:
            if not (Path(given) / corpus).is_dir():
                pytest.skip(f"SPEECHEQ_SAMPLES={given} holds no {corpus}")
            return Path(given) / corpus
        archives = ROOT.parent / "shared" / "data"
        if not (archives / "unpack.py").is_file() or not (archives / f"{corpus}.tar").is_file():
            pytest.skip(f"no real {corpus}: set SPEECHEQ_SAMPLES to the folder that holds it")
        shared = tmp_path_factory.getbasetemp()
        if os.environ.get("PYTEST_XDIST_WORKER"):
            shared = shared.parent  # one folder for all processes of this run
        unpacked = shared / "samples"
        with open(shared / "samples.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.run([sys.executable, archives / "unpack.py", unpacked, corpus], check=True, capture_output=True)
        return unpacked / corpus

    return folder_of


@pytest.fixture(scope="session")
def nano(tmp_path_factory):
    """``nano(corpora...)``: a folder that holds synthesised nano corpora, one folder each."""
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo` to synthesise corpora")
    folder = tmp_path_factory.mktemp("corpora")

    def synthesised(*corpora):
        missing = [name for name in corpora if not (folder / name).is_dir()]
        if missing:
            command = [
                sys.executable,
                "-m",
                "speecheq.cli",
                "synth",
                "--out",
                str(folder),
                "--size",
                "nano",
                "--corpora",
            ]
            subprocess.run([*command, *missing], check=True, cwd=ROOT, capture_output=True)
        return folder

    return synthesised


@pytest.fixture(scope="session")
def warm_venv():
    """SPEECHEQ_VENV of recipes whose commands start at once."""
    with warm_environment(ROOT) as venv:
        yield venv


@pytest.fixture(scope="session")
def experiment(prepare, tmp_path_factory):
    """A tiny SpeechEQ, trained for two steps on noise and scored: exp/.../fold1/seed1, four folders below data."""
    from speecheq.config.schema import Config
    from speecheq.dataset.msud import unify
    from speecheq.dataset.msud_recipe import Recipe
    from speecheq.dataset.phoneme_cuts import phonemes
    from speecheq.evaluation.score import score
    from speecheq.features.storage import compute_features
    from speecheq.training.job import Job
    from speecheq.training.train import train

    folder = tmp_path_factory.mktemp("experiment")
    toy = {"casia": make_casia(folder / "casia", seconds=0.5), "aishell": make_aishell(folder / "aishell")}
    for name, corpus in toy.items():
        assert prepare(name, corpus, folder / "manifests" / name, "--partial", "true") == 0
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify(Recipe("casia", "speaker", ["casia"]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    phonemes("aishell", folder / "manifests", folder / "fbank", folder / "phonemes" / "aishell")
    config = Config()
    for name, value in dict(
        channels=16, mfa_channels=32, scale=4, bottleneck=16, embedding_dim=16, batch_statistics="per_stream"
    ).items():
        setattr(config.model, name, value)
    config.optim.epochs, config.optim.max_steps, config.optim.learning_rate = None, 2, 3e-3
    config.data.batch_size, config.data.workers, config.loss.ctc_backend = 8, 0, "torch"
    trained = folder / "exp" / "nano-speecheq" / "casia.speaker" / "fold1" / "seed1"
    train(
        Job(
            config,
            "nano",
            (),
            "speecheq",
            folder / "msud" / "casia.speaker",
            1,
            folder / "phonemes" / "aishell",
            trained,
        )
    )
    score(trained, folder / "msud" / "casia.speaker", 1)
    return trained


@pytest.fixture
def own_experiment(experiment, tmp_path):
    """A copy of ``experiment`` that a test may change; its data are those of the original."""
    folder = tmp_path / "exp" / experiment.relative_to(experiment.parents[3])
    shutil.copytree(experiment, folder)
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    """Report pages without figures: these take seconds, and have tests of their own."""
    monkeypatch.setattr("speecheq.reporting.report.draw_pictures", lambda experiment: [])


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that notes what its console says and what it loads; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra `test`")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--mute-audio",
        "--autoplay-policy=no-user-gesture-required",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))  # given its driver, it downloads none
    yield started
    started.quit()

"""What each change of options, files or formats redoes of a whole recipe: that which depends on it, and nothing else.

The recipe is walked through in this process, with the command lines that run.sh gives; a folder counts as redone where
its stamp was written anew. What ``--status`` calls stale, damaged or missing is held against the same.
"""

import os
import shutil
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from speecheq.cli import main
from speecheq.common.files import locked_folder, write_text
from speecheq.common.stages import STAMP
from speecheq.corpora import audio_folder
from speecheq.corpora import prepare as stage_1
from speecheq.corpora.prep_script import audio_folder_main
from speecheq.dataset import msud, phoneme_cuts
from speecheq.evaluation import score
from speecheq.features import storage
from speecheq.models.checkpoint import load_model
from speecheq.reporting.recipe_status import DONE, Status
from speecheq.training import train

ROOT = Path(__file__).resolve().parents[2]
AISHELL_TEXTS = "aishell/data_aishell/transcript/aishell_transcript_v0.8.txt"
# Of a training on fold 1: itself and its scores. The second system learns no phonemes; the waveforms have noises.
OF_SPEECHEQ, OF_WO_MTL, OF_WAVEFORMS = (
    "exp/nano-speecheq/casia.random10/fold1/seed1*",
    "exp/nano-wo_mtl/casia.random10/fold1/seed1*",
    "exp-waveforms/nano-wo_mtl/casia.random10/fold1/seed1*",
)
TRAININGS = {OF_SPEECHEQ, OF_WO_MTL, OF_WAVEFORMS}
FOLD = "data/msud/casia.random10/fold1"
PHONEMES = "data/phonemes/aishell"
FEATURES = {f"data/fbank/{name}" for name in ("casia", "seqd", "aishell")}
MANIFESTS = {f"data/manifests/{name}" for name in ("casia", "seqd", "aishell")}
OF_CASIA = {"data/manifests/casia", "data/fbank/casia", FOLD, *TRAININGS}
OF_AISHELL = {"data/manifests/aishell", "data/fbank/aishell", PHONEMES, OF_SPEECHEQ}


class Recipe:
    """A Mandarin recipe in the working folder, of toy corpora in ``corpora``."""

    def __init__(self, prepare):
        self.prepare = prepare

    def walk(
        self,
        protocol="random10",
        folds="1",
        seeds="1",
        use=(),
        sets=(),
        hours=None,
        dev="auto",
        neutral="declared",
        casia="corpora/casia",
        units="phone",
    ):
        for name, folder in (("casia", casia), ("seqd", "corpora/seqd"), ("aishell", "corpora/aishell")):
            options = ["--hours", hours] if hours and name == "aishell" else []
            assert self.prepare(name, folder, f"data/manifests/{name}", "--partial", "true", *options) == 0
        assert audio_folder_main("noise", "noises", ["corpora/noise", "data/manifests/noise"]) == 0
        labels = ["--target", "casia", "--protocol", protocol, "--folds", folds, "--neutral-eis", neutral]
        self.run("features", "--corpora", "casia", "seqd", "aishell", "--nj", 1, "--speech-activity", "none")
        self.run(
            "unify",
            *labels,
            "--dev",
            dev,
            "--corpora",
            "casia",
            "seqd",
            "--recipe-corpora",
            "casia",
            "seqd",
            "esd_zh",
            *(f"--use={each}" for each in use),
        )
        of_units = ["--units", units, "--bpe-size", 45]
        self.run("phonemes", "--corpus", "aishell", *of_units)
        for exp, systems, more in (
            ("exp", "speecheq wo_mtl", []),
            ("exp-waveforms", "wo_mtl", ["data.input=waveform"]),
        ):
            runs = [
                "--exp",
                exp,
                "--config",
                ROOT / "tests/egs/nano.yaml",
                "--systems",
                systems,
                *labels,
                "--seeds",
                seeds,
            ]
            self.run(
                "train",
                *runs,
                "--systems-file",
                ROOT / "egs/mandarin/conf/systems.yaml",
                "--phonemes",
                "aishell",
                *of_units,
                "--noise",
                "data/manifests/noise",
                "--ctc-backend",
                "torch",
                *(f"--set={each}" for each in ("optim.max_steps=1", *more, *sets)),
            )
            self.run("score", *runs)

    @staticmethod
    def run(command, *arguments):
        assert main.main([command, "--data", "data", *map(str, arguments)]) == 0

    @staticmethod
    def stamps():
        """What is written anew where a stage is redone: its folder -> the file of its stamp."""
        return {str(path.parent): (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path().rglob(STAMP)}

    @staticmethod
    def not_done():
        return {
            str(line.folder)
            for exp in ("exp", "exp-waveforms")
            for line in Status("data", exp).all()
            if line.state != DONE
        }


@pytest.fixture(scope="module")
def walked(prepare, toys, tmp_path_factory):
    """A recipe that was walked through, and how it was left."""
    folder = tmp_path_factory.mktemp("keys")
    toys.casia(folder / "now/corpora/casia", texts=2)
    toys.seqd(folder / "now/corpora/seqd")
    toys.aishell(folder / "now/corpora/aishell")
    toys.write_wav(folder / "now/corpora/noise/a.wav", 0.5)
    before = os.getcwd()
    os.chdir(folder / "now")
    try:
        recipe = Recipe(prepare)
        recipe.walk()
        shutil.copytree(folder / "now", folder / "left", symlinks=True)
        yield recipe, folder
    finally:
        os.chdir(before)


@pytest.fixture
def recipe(walked):
    """That recipe, in the working folder, as it was left."""
    made, folder = walked
    for name in os.listdir():
        shutil.rmtree(name)
    shutil.copytree(folder / "left", folder / "now", dirs_exist_ok=True)
    return made


def in_order(value):
    """A name for a case that is the same in every process, which a set's text is not."""
    return str(sorted(value) if isinstance(value, set) else value)


def matching(names, patterns):
    return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


def assert_redone(recipe, patterns, **options):
    """All folders that match are redone or new, each pattern has one, and none other is; then all is done."""
    before = recipe.stamps()
    recipe.walk(**options)
    after = recipe.stamps()
    redone = {name for name in after if after[name] != before.get(name)}
    assert redone == matching(after, patterns)
    assert all(matching(redone, [pattern]) for pattern in patterns)
    recipe.walk(**options)
    assert recipe.stamps() == after, "a second start redoes nothing"
    return redone


@pytest.mark.parametrize(
    "options, redone",
    [
        ({}, set()),
        ({"folds": "2"}, {"data/msud/casia.random10/fold2", "exp*/casia.random10/fold2/seed1*"}),
        ({"protocol": "speaker"}, {"data/msud/casia.speaker/fold1", "exp*/casia.speaker/fold1/seed1*"}),
        ({"seeds": "2"}, {"exp*/casia.random10/fold1/seed2*"}),
        (
            {"neutral": "metric"},
            {"data/msud/casia.random10.neutral_metric/fold1", "exp*/casia.random10.neutral_metric/*"},
        ),
        ({"use": ["seqd=joy,anger,neutral"]}, {FOLD, *TRAININGS}),
        ({"dev": "speaker"}, {FOLD, *TRAININGS}),
        ({"hours": "0.0004"}, OF_AISHELL),
        ({"sets": ["loss.gamma=2"]}, TRAININGS),
        ({"sets": ["data.max_seconds=5"]}, TRAININGS),
        # it changes nothing that is learned
        ({"sets": ["run.checkpoint_steps=7"]}, set()),
    ],
    ids=in_order,
)
def test_an_option_redoes_what_depends_on_it(recipe, options, redone):
    assert recipe.not_done() == set()
    assert_redone(recipe, redone, **options)


def test_what_the_flat_package_left_is_still_done(walked, toys, monkeypatch):
    """The same recipe as revision bd86508 left it, before the package was split into packages.

    Stamps hold absolute paths, so it is in the same folder again. Its checkpoints and archives are zeros of the right
    size, except those of the system speecheq.
    """
    made, folder = walked
    place = Path("/tmp/speecheq-bd86508")
    with locked_folder(place, wait=True):
        shutil.copytree(folder / "left/corpora", place / "corpora")
        try:
            monkeypatch.chdir(place)
            with tarfile.open(Path(__file__).with_name("left_by_bd86508.tar.xz")) as archive:
                archive.extractall()
            before = made.stamps()
            assert len(before) == 18 and made.not_done() == set()
            made.walk()
            assert made.stamps() == before and made.not_done() == set()
            model, *_ = load_model(Path("exp/nano-speecheq/casia.random10/fold1/seed1/best.pt"))
            assert isinstance(model, torch.nn.Module)
        finally:
            shutil.rmtree(place)


def other_label(path, old, new):
    write_text(path, Path(path).read_text(encoding="utf-8").replace(old, new))


@pytest.mark.parametrize(
    "change, redone",
    [
        (lambda toys: os.utime("corpora/casia/casia/wangzhe/sad/201.wav"), set()),
        (lambda toys: toys.write_wav(Path("corpora/casia/casia/wangzhe/sad/201.wav"), 0.3), OF_CASIA),
        (lambda toys: Path("corpora/casia/casia/wangzhe/sad/202.wav").unlink(), OF_CASIA),
        (
            lambda toys: other_label("corpora/seqd/labels.tsv", "今", "明"),  # of the same size
            {"data/manifests/seqd", "data/fbank/seqd", FOLD, *TRAININGS},
        ),
        (lambda toys: other_label(f"corpora/{AISHELL_TEXTS}", "今", "明"), OF_AISHELL),
        (lambda toys: toys.write_wav(Path("corpora/noise/b.wav"), 0.4), {"data/manifests/noise", OF_WAVEFORMS}),
        # what is damaged is made again, and what was made of it stays
        (lambda toys: Path("data/fbank/casia/cuts.jsonl.gz").unlink(), {"data/fbank/casia"}),
        (lambda toys: write_text("data/manifests/seqd/seqd_card.json", "{}"), {"data/manifests/seqd"}),
        (lambda toys: write_text(f"{FOLD}/emotion.jsonl.gz", ""), {FOLD}),
        (
            lambda toys: Path("exp/nano-wo_mtl/casia.random10/fold1/seed1/scores.tsv").unlink(),
            {"exp/nano-wo_mtl/casia.random10/fold1/seed1/scored"},
        ),
        (lambda toys: shutil.rmtree("data/fbank/seqd"), {"data/fbank/seqd"}),
        (
            lambda toys: shutil.rmtree("exp/nano-wo_mtl/casia.random10/fold1/seed1/scored"),
            {"exp/nano-wo_mtl/casia.random10/fold1/seed1/scored"},
        ),
    ],
)
def test_a_change_of_files_redoes_what_depends_on_it_and_the_status_says_so(recipe, toys, change, redone):
    change(toys)
    told = recipe.not_done()
    assert told == assert_redone(recipe, redone)
    assert recipe.not_done() == set()


@pytest.mark.parametrize(
    "module, redone",
    [
        (stage_1, {*MANIFESTS, *FEATURES, FOLD, PHONEMES, *TRAININGS}),
        (audio_folder, {"data/manifests/noise", OF_WAVEFORMS}),
        (storage, {*FEATURES, FOLD, PHONEMES, *TRAININGS}),
        (msud, {FOLD, *TRAININGS}),
        (phoneme_cuts, {PHONEMES, OF_SPEECHEQ}),
        (train, TRAININGS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_format_redoes_what_depends_on_it_and_the_status_says_so(recipe, monkeypatch, module, redone):
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    told = recipe.not_done()
    assert told == assert_redone(recipe, redone)
    assert recipe.not_done() == set()


def test_another_format_of_scores_redoes_scores_alone(recipe, monkeypatch):
    monkeypatch.setitem(score.FORMATS, score.STAMP_FOLDER, score.FORMAT + 1)
    told = recipe.not_done()
    assert told == assert_redone(recipe, {f"exp*/seed1/{score.STAMP_FOLDER}"})


def test_other_features_redo_all_but_manifests(recipe, monkeypatch):
    """Their options have no command line; a resampler of another name is one too, where something is resampled."""
    monkeypatch.setattr(storage, "TICK_POWER", storage.TICK_POWER - 1)
    assert_redone(recipe, {*FEATURES, FOLD, PHONEMES, *TRAININGS})


def test_another_folder_with_the_same_corpus(recipe):
    """Manifests name their files."""
    shutil.copytree("corpora/casia", "elsewhere")
    assert_redone(recipe, OF_CASIA, casia="elsewhere")


def test_other_units_have_a_folder_of_their_own(recipe):
    assert_redone(recipe, {"data/phonemes/aishell.bpe45", OF_SPEECHEQ}, units="bpe")

"""The Mandarin recipe as its users run it: ./run.sh in a shell, on synthesised nano corpora."""

import csv
import json
import shutil

import pytest

EXPERIMENT = "exp/nano-speecheq/casia.random10"
OPTIONS = {"casia": "casia", "seqd": "seqd", "esd": "esd", "aishell": "aishell"}


@pytest.fixture(scope="module")
def mandarin(recipe, warm_venv):
    return recipe("mandarin", warm_venv)


@pytest.fixture(scope="module")
def corpora(nano):
    folder = nano(*OPTIONS)
    return [part for name in OPTIONS for part in (f"--{name}", folder / name)]


@pytest.fixture(scope="module")
def walked(recipe, corpora, tmp_path_factory):
    """The folder of a walk through all stages, each alone in a fresh shell, and what the last one printed.

    Stages 2 to 5 are not given the corpora: they know them from stage 1.
    """
    folder, mandarin = tmp_path_factory.mktemp("walk"), recipe("mandarin")
    for stage in range(6):
        given = [*corpora, "--partial=true"] if stage < 2 else ["--score-train=true"] if stage == 5 else []
        done = mandarin.run(*given, *mandarin.where(folder), "--stage", stage, "--stop-stage", stage)
    return folder, done


def test_a_walk_stage_by_stage_ends_in_a_table(walked):
    folder, done = walked
    metrics = json.loads((folder / EXPERIMENT / "metrics.json").read_text())
    assert {"test.ua", "test.wa", "test.per", "test_seqd.eis_ccc"} <= set(metrics)
    assert metrics["test.eis_mse"] is None and metrics["test_seqd.eis_mse"] is not None
    assert metrics["run"]["folds"] == [1] and metrics["run"]["of_folds"] == 10 and metrics["run"]["trained_at_git"]
    page = (folder / "RESULTS.md").read_text()
    assert "## casia, random10" in page and page.strip() in done.stdout
    assert "the nine of SEQM; esd_zh restricted to neutral, joy, anger, sadness; EIS" in page
    assert str(folder / "RESULTS.md") in done.stderr
    assert (folder / EXPERIMENT / "RESULTS.md").is_file() and (folder / "exp/report.html").is_file()
    for name in (
        "config.yaml",
        "run.json",
        "train.log",
        "best.pt",
        "last.pt",
        "scores.tsv",
        "phones.tsv",
        "metrics.json",
        "embeddings.npz",
        "train_scores.tsv",
    ):
        assert (folder / EXPERIMENT / "fold1" / "seed1" / name).stat().st_size, name


def test_the_tables_need_the_score_files_alone(mandarin, walked, tmp_path):
    """Without checkpoints, and without any data."""
    folder, _ = walked
    shutil.copytree(folder / "exp", tmp_path / "exp")
    for path in (tmp_path / "exp").rglob("*.pt"):
        path.unlink()
    shutil.rmtree(tmp_path / "exp" / "tables")
    done = mandarin.run(*mandarin.where(tmp_path), "--stage", 5)
    assert "the tables are made from the score files" in done.stderr
    assert (tmp_path / "RESULTS.md").read_text() == (folder / "RESULTS.md").read_text()
    assert (tmp_path / EXPERIMENT / "report.html").is_file()
    pictures = {path.name for path in (folder / EXPERIMENT / "pictures").iterdir()}
    assert pictures == {
        f"{name}.{suffix}"
        for suffix in ("svg", "pdf")
        for name in ("eis", "confusion", "learning_curves", "embeddings", "calibration", "coverage", "speakers")
    }
    for name in pictures:
        assert (tmp_path / EXPERIMENT / "pictures" / name).read_bytes() == (
            folder / EXPERIMENT / "pictures" / name
        ).read_bytes(), name
    for suffix in ("csv", "tex"):
        names = {path.name for path in (folder / "exp/tables").glob(f"*.{suffix}")}
        assert f"casia.random10.test.categories.{suffix}" in names and f"paper.nano.{suffix}" in names
        for name in names:
            assert (tmp_path / "exp/tables" / name).read_text() == (folder / "exp/tables" / name).read_text()


def test_the_report_plays_the_test_clips(browser, walked):
    """In a browser: every clip has a player, and its file is heard."""
    folder, _ = walked
    with open(folder / EXPERIMENT / "fold1/seed1/scores.tsv", encoding="utf-8") as stream:
        clips = {row["utt"]: row for row in csv.DictReader(stream, delimiter="\t")}
    browser.get((folder / EXPERIMENT / "report.html").as_uri())
    data = json.loads(browser.execute_script("return document.getElementById('clip-data').textContent"))
    assert {row[0]: row[data["prediction"]] for row in data["rows"]} == {
        name: row["predicted_esc"] for name, row in clips.items()
    }
    assert data["audio"].keys() == clips.keys()
    duration = browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        document.querySelector('#clips td button').click();
        const audio = document.querySelector('#clips audio');
        audio.addEventListener('durationchange', (event) => done(event.target.duration));
        """)
    assert duration > 0.1
    text = (folder / EXPERIMENT / "report.html").read_text()
    for corpus in OPTIONS:
        assert f">{ {'esd': 'esd_zh'}.get(corpus, corpus) }</td>" in text, "stages of every corpus"
    assert browser.get_log("browser") == []


def test_the_test_fold_is_scored_and_nothing_else(walked):
    folder, _ = walked
    fold = json.loads((folder / "data/msud/casia.random10/fold1/msud.json").read_text())
    with open(folder / EXPERIMENT / "fold1/seed1/scores.tsv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {row["set"] for row in rows} == {"test", "test_seqd", "test_esd_zh"}
    assert sum(row["set"] == "test" for row in rows) == fold["sets"]["test"]["clips"]


def test_a_second_walk_finds_every_stage_done(mandarin, walked, corpora):
    folder, _ = walked
    before = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*.jsonl.gz")}
    done = mandarin.run(*corpora, "--partial", "true", *mandarin.where(folder), "--stage", 0, "--stop-stage", 5)
    # manifests and features of four corpora, a fold, the phonemes, a training, its scores, its embeddings
    assert done.stderr.count("already done with the same arguments, skipped") == 4 + 4 + 2 + 1 + 2, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*.jsonl.gz")}
    # the status also lists the scores of training clips, which this walk did not ask for
    told = mandarin.run("--status", "true", *mandarin.where(folder)).stdout
    states = [line.split()[0] for line in told.splitlines() if line.startswith("  ")]
    assert states == ["done"] * 14 and "stage 4 (train): 1 done" in told, told


def test_other_options_redo_what_depends_on_them(mandarin, walked):
    folder, _ = walked
    mandarin.run(
        *mandarin.where(folder),
        "--stage",
        3,
        "--stop-stage",
        4,
        "--folds=2",
        "--seeds",
        "1 2",
        "--train-jobs",
        2,
        "--set",
        "optim.max_steps=2",
        "--set",
        "loss.gamma=0",
        "--systems=wo_mtl_wo_msud",
    )
    config = (folder / "exp/nano-wo_mtl_wo_msud/casia.random10/fold2/seed2/config.yaml").read_text()
    assert "max_steps: 2" in config and "gamma: 0.0" in config and "corpora: target" in config
    assert (folder / EXPERIMENT / "fold1/seed1/metrics.json").is_file()


@pytest.mark.parametrize("stage, missing", [(2, "stage 1"), (3, "stage 1"), (4, "stage 3"), (5, "stage 3")])
def test_a_stage_whose_input_stage_has_not_run_names_it(mandarin, corpora, tmp_path, stage, missing):
    done = mandarin.run(*corpora, *mandarin.where(tmp_path), "--stage", stage, "--stop-stage", stage, check=False)
    assert done.returncode == 1 and missing in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--stage", "4", "--folds", "11"], "fold 11 does not exist"),
        (["--stage", "4", "--systems", "speecheq2"], "there is no system 'speecheq2'"),
        (["--stage", "4", "--set", "loss.gama=1"], "did you mean loss.gamma?"),
        (["--stage", "4", "--set", "loss.gamma=-1"], "must be at least 0"),
        (["--stage", "4", "--config", "conf/none.yaml"], "the configuration file does not exist"),
        (["--stage", "3", "--protocol", "random7"], "there is no protocol 'random7'"),
        (["--gama", "1"], "unknown option"),
        (["--stage", "x"], "stage"),
        (["--stage", "6"], "stage"),
        (["--stage", "4", "--systems", ""], "names no system"),
        (["--stage", "4", "--set", "model.num_esc=5"], "model.num_esc cannot be set"),
        (["--stage", "3", "--target", "esd"], "the target esd is not among"),
        (["--stage", "3", "--target", "aishell", "--protocol", "speaker"], "has no emotion labels"),
        (["--stage", "3", "--phonemes", "casia"], "casia: has no transcripts"),
        (["--stage", "3", "--phonemes", "thchs"], "--phonemes thchs is not among"),
        (["--stage", "3", "--use", "cheer"], "'cheer' is not one of SEQM's categories"),
        (["--classes", "own"], "--classes is own, but it must be one of seqm corpus"),
        (["--dev", "none"], "--dev is none, but it must be one of"),
        (["--neutral-eis=0"], "--neutral-eis is 0, but it must be one of"),
        (["--nj", "0"], "--nj is 0, but it must be a whole number above 0"),
        (["--stage", "3", "--protocol", "a/b"], "letters, digits, - and _ only"),
        (["--corpus", "casia=x", "--casia", "y"], "the corpus casia is given twice"),
        (["--corpus", "x=a", "--corpus", "x=b"], "the corpus x is given twice"),
        (["--corpus", "esd=x"], "comes in parts, name the one that is meant: esd_en esd_zh"),
        (["--download", "foo"], "there is no data card local/cards/foo.yaml"),
        (["--stage", "3", "--use", "csaia=joy"], "there is no corpus csaia in this run"),
        (["--folds-file", "none.tsv"], "none.tsv: the file of folds does not exist"),
        (["--stage", "3", "--corpus", "mine"], "expected NAME=PATH"),
        (["--stage", "3", "--aishell-hours", "2"], "is given without --aishell DIR"),
        (["--stage", "3", "--target", "seqd", "--protocol", "random10"], "has a fixed test part"),
        (["--mini", "true", "--casia", "x"], "makes its own corpora"),
        (["--partial", "maybe"], "true or false"),
    ],
)
def test_bad_options_are_one_sentence(mandarin, walked, arguments, sentence):
    folder, _ = walked
    done = mandarin.run(*mandarin.where(folder), *arguments, "--stop-stage", "5", check=False)
    assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_given_corpus_that_is_not_prepared_is_not_left_out_in_silence(mandarin, walked, nano):
    folder, _ = walked
    refused = mandarin.refused(
        "--casia", nano("casia") / "casia", "--corpus", "new=x.csv", *mandarin.where(folder), "--stage", 3
    )
    assert "new_card.json: stage 1 (manifests) has not been run for new" in refused


def test_no_corpus_at_all_says_what_to_give(mandarin, tmp_path):
    done = mandarin.run(*mandarin.where(tmp_path), check=False)
    assert done.returncode == 1 and "--casia DIR" in done.stderr and "--mini true" in done.stderr


def test_a_folder_that_is_no_corpus_stops_at_stage_0(mandarin, tmp_path):
    done = mandarin.run("--casia", tmp_path, *mandarin.where(tmp_path), "--stop-stage", 0, check=False)
    assert done.returncode == 1 and "is empty" in done.stderr and "Traceback" not in done.stderr


def test_relative_folders_are_those_of_the_caller(mandarin, corpora, tmp_path):
    done = mandarin.run(
        "--casia",
        "casia",
        "--config=conf/small.yaml",
        "--data=made",
        "--partial=true",
        "--stop-stage",
        1,
        cwd=corpora[1].parent,
    )
    assert "72 out" in done.stderr and (corpora[1].parent / "made/manifests/casia/stage.json").is_file()


@pytest.mark.parametrize("name", ["mandarin", "iemocap", "mtl_aug"])
def test_help_names_every_option(recipe, name):
    text = recipe(name).run("--help").stdout
    assert text == recipe(name).run("--help", cwd="/").stdout
    known = recipe(name).refused("--no-such-option", "1").split("this script knows ")[1].split(" and --help")[0].split()
    assert len(known) > 30 and all(f"{option} " in text for option in known)
    assert "shellcheck" not in text and "Sourced by" not in text


def test_every_system_differs_from_speecheq_as_its_name_says(mandarin):
    from speecheq.config.layers import read_systems, resolve

    systems = mandarin.folder / "conf/systems.yaml"
    configs = {name: resolve(mandarin.folder / "conf/paper.yaml", systems, name) for name in read_systems(systems)}
    ours = ["speecheq", "wo_mtl", "wo_msud", "wo_mtl_wo_msud"]
    rows = [*ours, "baseline", "baseline_wo_mtl_wo_msud"]
    cited = ["attention_ctc", "hgfm", "hgfm_dialogue", "multihead_gender", "multihead_without_gender", "head_fusion"]
    assert list(configs) == [*rows, *cited]
    for name in cited:
        assert (
            name.startswith(configs[name].model.kind.removesuffix("_gender")) and configs[name].data.corpora == "target"
        )
        assert configs[name].loss.beta == 0 and configs[name].loss.gamma == 0
    for name in rows:
        config = configs[name]
        assert config.model.kind == ("speecheq" if name in ours else "baseline")
        assert (config.tasks() == ["emotion"]) == ("wo_mtl" in name)
        assert (config.data.corpora == "target") == ("wo_msud" in name)
        assert config.loss.alpha == 1.0  # every row of Table 3 reports EIS


@pytest.mark.parametrize("size", ["paper", "small", "mini"])
def test_the_sizes_resolve_and_the_papers_is_the_papers(mandarin, size):
    from speecheq.config.layers import resolve

    config = resolve(mandarin.folder / f"conf/{size}.yaml", mandarin.folder / "conf/systems.yaml", "speecheq")
    if size == "paper":
        model, loss, optim = config.model, config.loss, config.optim
        assert (model.channels, model.bottleneck, model.scale, model.num_phones) == (256, 128, 8, 202)
        assert (loss.gamma, loss.alpha, loss.beta, loss.eta, loss.label_ignore) == (10, 1, 0.1, 0.1, "fill")
        assert (optim.learning_rate, optim.weight_decay, config.data.batch_size) == (1e-4, 1e-5, 32)


def test_augmented_waveforms_with_given_noise_from_trained_weights(mandarin, corpora, walked, toys, tmp_path):
    folder, _ = walked
    toys.write_wav(tmp_path / "noises" / "a.wav", 1.0)
    done = mandarin.run(
        *corpora,
        "--partial",
        "true",
        *mandarin.where(folder),
        "--noise",
        tmp_path / "noises",
        "--stage",
        1,
        "--stop-stage",
        1,
    )
    assert "noise: 1 files in, 1 out" in done.stderr
    start = folder / EXPERIMENT / "fold1/seed1/best.pt"
    done = mandarin.run(
        *mandarin.where(folder),
        "--exp",
        tmp_path / "exp",
        "--init-from",
        start,
        "--stage",
        4,
        "--stop-stage",
        4,
        "--set",
        "data.input=waveform",
        "--set",
        "optim.max_steps=2",
    )
    assert "starting from trained weights; new, for other labels: nothing" in done.stderr
    inputs = json.loads((tmp_path / EXPERIMENT / "fold1/seed1/stage.json").read_text())["inputs"]
    assert any(path.endswith("manifests/noise") for path in inputs)


def test_the_papers_protocols_are_the_defaults(mandarin, walked):
    """ESD and SEQD as targets: their given test parts, without Surprise; the walk before had ten folds of CASIA."""
    folder, _ = walked
    for target, tested in (("esd_zh", "test"), ("seqd", "test")):
        mandarin.run(*mandarin.where(folder), "--target", target, "--stage", 3, "--stop-stage", 3)
        note = json.loads((folder / f"data/msud/{target}.official/fold1/msud.json").read_text())
        assert note["tests"][0] == tested and note["folds"] == 1
        assert sorted(note["corpora"]) == ["casia", "esd_zh", "seqd"] and note["left_out"] == []
        in_use = {
            category for name in ("emotion", "dev", "test") for category, count in note["sets"][name]["esc"].items()
        }
        assert "surprise" in in_use, "CASIA's and SEQD's stay"
    esd = json.loads((folder / "data/msud/esd_zh.official/fold1/msud.json").read_text())["sets"]
    assert set(esd["test"]["esc"]) == set(esd["dev"]["esc"]) == {"neutral", "joy", "anger", "sadness"}


def test_a_corpus_without_any_code_joins_the_recipe(mandarin, nano, walked, toys, tmp_path):
    """A table and a label map beside it: --corpus NAME=PATH, also as the target."""
    rows = ["path,speaker,gender,emotion"]
    for speaker in ("a", "b", "c", "d"):
        for number in range(8):
            toys.write_wav(tmp_path / "clips" / f"{speaker}{number}.wav", 0.5)
            gender, emotion = "F" if speaker in "ab" else "M", "cross" if number % 2 else "fine"
            rows.append(f"clips/{speaker}{number}.wav,{speaker},{gender},{emotion}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "labels.yaml").write_text(
        "title: my corpus\nlanguage: Mandarin\nlabels: {cross: anger, fine: neutral}\n"
    )
    casia = nano("casia") / "casia"
    # a name that begins like that of a prep script is no part of it
    done = mandarin.run(
        "--casia",
        casia,
        "--corpus",
        "casia_mine=mine.csv",
        "--target",
        "casia_mine",
        "--partial",
        "true",
        *mandarin.where(tmp_path),
        "--systems",
        "wo_mtl",
        cwd=tmp_path,
    )
    assert "## casia_mine, speaker" in done.stdout and "seqd, esd_zh" in done.stdout
    assert "aishell is not given and is left out" in done.stderr
    assert "restricted to" not in done.stdout, "ESD is not part of this run"

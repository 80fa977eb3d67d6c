"""The English recipe on nano corpora: every stage, the protocols of Experiment 2, other targets and switches."""

import csv
import json

import pytest

CORPORA = ("iemocap", "ravdess", "crema_d", "esd", "librispeech")
FOUR = {"anger", "joy", "neutral", "sadness"}


@pytest.fixture(scope="module")
def english(recipe, warm_venv):
    """CI also runs its demo, in the environment itself."""
    return recipe("iemocap", warm_venv)


@pytest.fixture(scope="module")
def walked(english, nano, tmp_path_factory):
    """A folder that all stages have walked through, each alone in a fresh shell, and what the last one printed."""
    folder, corpora = tmp_path_factory.mktemp("walk"), nano(*CORPORA)
    for stage in range(6):
        given = (
            [part for name in CORPORA for part in (f"--{name.replace('_', '-')}", corpora / name)] if stage < 2 else []
        )
        done = english.run(
            *given,
            *(["--partial", "true"] if given else []),
            *english.where(folder),
            "--stage",
            stage,
            "--stop-stage",
            stage,
        )
    return folder, done


def note_of(folder, name, fold=1):
    return json.loads((folder / f"data/msud/{name}/fold{fold}/msud.json").read_text())


def test_experiment_2_from_corpora_to_a_table(walked):
    folder, done = walked
    note = note_of(folder, "iemocap.random5")
    assert note["folds"] == 5 and note["corpora"] == ["crema_d", "esd_en", "iemocap", "ravdess"]
    assert note["left_out"] == ["emodb", "msp_improv"]
    assert {esc for part in note["sets"].values() for esc in part["esc"]} == FOUR, "angry, happy, neutral, sad"
    phonemes = json.loads((folder / "data/phonemes/librispeech/phonemes.json").read_text())
    assert phonemes["symbols"] == 85 and phonemes["test"] == "test" and phonemes["language"] == "English"
    metrics = json.loads((folder / "exp/nano-speecheq/iemocap.random5/metrics.json").read_text())
    assert metrics["test.eis_mse"] is not None and metrics["test.per"] is not None, "dominance is the intensity"
    assert metrics["test_esd_en.ua"] is not None and metrics["test_esd_en.eis_mse"] is None
    page = (folder / "RESULTS.md").read_text()
    assert "## iemocap, random5" in page and page.strip() in done.stdout
    assert "not given: emodb, msp_improv" in page
    ours = next(line for line in page.splitlines() if line.startswith("| SpeechEQ (speecheq)"))
    assert f"{100 * metrics['test.ua']:.2f} / 77.47" in ours and metrics["test.uai"] == metrics["test.ua"]
    assert "the nine of SEQM; all corpora restricted to neutral, joy, anger, sadness" in page


def test_sessions_and_speakers_left_out(english, walked):
    folder, _ = walked
    for protocol, folds in (("session", 5), ("speaker", 10)):
        english.run(*english.where(folder), "--protocol", protocol, "--folds", "all", "--stage", 3, "--stop-stage", 3)
        for fold in range(1, folds + 1):
            note = note_of(folder, f"iemocap.{protocol}", fold)
            assert note["folds"] == folds and note["test_speakers_in_training"] == 0


def test_another_target_under_published_folds_in_its_own_classes(english, walked, tmp_path):
    folder, _ = walked
    with open(folder / "data/msud/iemocap.random5/fold1/stage.json") as stream:
        assert json.load(stream)["options"]["use"] == {"*": ["neutral", "joy", "anger", "sadness"]}
    table = tmp_path / "published.tsv"
    names = [line.split('"id": "')[1].split('"')[0] for line in manifest(folder, "ravdess")]
    table.write_text(
        "clip\ttest_fold\n" + "".join(f"{name.removeprefix('ravdess-')}\t{1 + int(name[-2:]) % 2}\n" for name in names)
    )
    english.run(
        *english.where(folder), "--target", "ravdess", "--folds-file", table, "--classes", "corpus", "--stage", 3
    )
    name = "ravdess.published.corpus_classes"
    note = note_of(folder, name)
    assert len(note["classes"]) == 8 and "calm" in note["classes"] and note["folds_file"] == "published.tsv"
    with open(folder / f"exp/nano-speecheq/{name}/fold1/seed1/scores.tsv", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["set"] == "test"]
    assert {row["speaker"] for row in rows} == {name[-2:] for name in names if int(name[-2:]) % 2 == 0}
    assert {row["esc"] for row in rows} <= set(note["classes"]) and "p_calm" in rows[0]
    assert "## ravdess, published, its own 8 classes" in (folder / "RESULTS.md").read_text()


def test_every_row_of_table_4(english, walked, tmp_path):
    """Cited, reference and our systems: strict, by random folds and by session, and as a paper's protocol has it."""
    folder, _ = walked
    config = tmp_path / "cited.yaml"
    config.write_text("data: {batch_size: 8, workers: 0}\noptim: {epochs: null, max_steps: 1}\nrun: {threads: 1}\n")
    where = [*english.where(folder), "--config", config, "--stage", 3]
    cited = ("attention_ctc", "hgfm", "hgfm_dialogue", "multihead_gender", "multihead_without_gender", "head_fusion")
    done = english.run(*where, "--systems", f"{' '.join(cited)} probe majority")
    assert "test_esd_en is not scored, since its corpus names no dialogues" in done.stderr
    english.run(*where, "--protocol", "session", "--systems", "head_fusion majority")
    english.run(*where, "--as-published", "improvised best_test", "--systems", "head_fusion")
    english.run(*english.where(folder), "--stage", 4, "--systems", "wo_mtl_wo_msud")
    page = (folder / "RESULTS.md").read_text()
    table = page[page.index("Table 4 of the paper, nano") :]
    rows = [line.split("|") for line in table[: table.index("##")].splitlines() if " / " in line]
    ours = {cells[1].split("(")[-1].partition(",")[0].strip(") "): [c.strip() for c in cells[2:]] for cells in rows}
    for system in (*cited, "probe", "majority", "wo_mtl_wo_msud", "speecheq"):
        assert ours[system][0][0].isdigit(), (system, ours[system])
    by_session = {system for system, cells in ours.items() if cells[3][0].isdigit()}
    assert by_session == {"head_fusion", "majority"}
    assert ours["head_fusion"][1].endswith("/ 76.36") and ours["speecheq"][1].endswith("/ 77.47")
    beside = page[page.index("## Strict and as published") :]
    assert (
        "| cited-head_fusion |" in beside and "improvised speech only, the epoch is chosen on the test clips" in beside
    )


def manifest(folder, corpus):
    import gzip

    return gzip.open(folder / f"data/manifests/{corpus}/{corpus}_supervisions_all.jsonl.gz", "rt").read().splitlines()


def test_cross_corpus(english, walked):
    folder, _ = walked
    english.run(
        *english.where(folder), "--target", "crema_d", "--protocol", "cross", "--stage", 3, "--systems", "wo_mtl"
    )
    note = note_of(folder, "crema_d.cross")
    assert note["corpora"] == ["esd_en", "iemocap", "ravdess"] and set(note["sets"]["test"]["corpus"]) == {"crema_d"}
    assert "crema_d" not in note["sets"]["emotion"]["corpus"] and "crema_d" not in note["sets"]["dev"]["corpus"]
    metrics = json.loads((folder / "exp/nano-wo_mtl/crema_d.cross/metrics.json").read_text())
    assert metrics["test.clips"] == note["sets"]["test"]["clips"] and metrics["run"]["test_speakers_in_training"] == [0]


def test_pieces_instead_of_phones(english, walked):
    folder, _ = walked
    english.run(*english.where(folder), "--units", "bpe", "--bpe-size", 40, "--stage", 3)
    phonemes = json.loads((folder / "data/phonemes/librispeech.bpe40/phonemes.json").read_text())
    assert phonemes["units"] == "bpe" and phonemes["symbols"] == 40
    page = (folder / "exp/nano-speecheq/iemocap.random5/RESULTS.md").read_text()
    assert "of bpe units, not phones" in page
    refused = english.refused(*english.where(folder), "--units", "bpe", "--bpe-size", 100000, "--stage", 3)
    assert "librispeech" in refused


def test_a_subset_of_hours(english, nano, tmp_path):
    folder = nano("iemocap", "librispeech")
    english.run(
        "--iemocap",
        folder / "iemocap",
        "--librispeech",
        folder / "librispeech",
        "--librispeech-hours",
        0.003,
        "--partial",
        "true",
        *english.where(tmp_path),
        "--stage",
        1,
        "--stop-stage",
        1,
    )
    stamp = json.loads((tmp_path / "data/manifests/librispeech/stage.json").read_text())
    assert stamp["dropped"] and list(stamp["dropped"]) == ["outside the 0.003 hours asked for"]


def test_where_the_missing_corpora_are_to_be_had(english, nano, tmp_path):
    done = english.run(
        "--iemocap", nano("iemocap") / "iemocap", "--partial", "true", *english.where(tmp_path), "--stop-stage", 0
    )
    for words in (
        "RAVDESS (https://zenodo.org",
        "CREMA-D (https://",
        "--librispeech DIR/librispeech/LibriSpeech",
        "ESD (https://",
        "licence",
    ):
        assert words in done.stderr, words

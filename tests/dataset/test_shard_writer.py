"""What is written as shards, by one process, several or jobs, and when it is written anew."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.utils import fastcopy
from shard_runs import SMALL, cuts_for, epochs_of, shards_folder, sources

from speecheq.cli.main import main
from speecheq.cluster.job_files import TASKS
from speecheq.common.errors import InputError
from speecheq.common.stages import require
from speecheq.dataset import shard_writer
from speecheq.dataset.shard_reader import Shards
from speecheq.dataset.shard_writer import missing_shards, write_shards
from speecheq.features.audio import load_waveform
from speecheq.features.storage import load_features
from speecheq.reporting.recipe_status import DAMAGED, DONE, Status

ROOT = Path(__file__).resolve().parents[2]


CONF = ROOT / "egs" / "mandarin" / "conf"


COMMAND = ["shar", "--config", f"{CONF}/small.yaml", "--systems-file", f"{CONF}/systems.yaml"]
COMMAND += ["--target", "seqd", "--protocol", "official"]


@pytest.fixture(scope="module")
def data(shards_data):
    return shards_data


@pytest.mark.parametrize("kind", ["stored", "waveform"])
@pytest.mark.parametrize("stream", ["emotion", "phoneme"])
def test_lhotse_reads_what_is_written_and_it_is_the_same(data, stream, kind):
    folder = shards_folder(data, stream, kind)
    read = {cut.id: cut for cut in CutSet.from_shar(in_dir=next(folder.glob("shards-*")))}
    stored = {cut.id: cut for cut in cuts_for(data, stream)}
    assert read.keys() == stored.keys() and len(read) > 60
    assert list(read) != sorted(read) and list(read) != list(stored)
    for name, cut in stored.items():
        assert read[name].duration == cut.duration
        assert read[name].supervisions[0].to_dict() == cut.supervisions[0].to_dict()
        if kind == "stored":
            assert np.array_equal(read[name].load_features(), cut.load_features())
            assert np.array_equal(load_features(read[name]).numpy(), load_features(cut).numpy())
        else:
            assert np.array_equal(read[name].load_audio()[0], cut.load_audio()[0])
            assert np.array_equal(load_waveform(read[name]), load_waveform(cut))


def test_audio_is_kept_as_training_takes_it_one_channel_at_16_khz(toys, tmp_path):
    from lhotse import MonoCut, Recording, SupervisionSegment

    path = toys.write_wav(tmp_path / "a.wav", 0.3, 44100, 2)
    label = SupervisionSegment("a", "a", 0.0, 0.3, gender="F", custom={"corpus": "c"})
    cut = MonoCut("a", 0.1, 0.1501, 0, [label], recording=Recording.from_file(path))
    kept, audio = shard_writer._for_shard(cut, "waveform")
    kept.recording.sources[0].type, kept.recording.sources[0].source = "memory", audio
    heard = load_waveform(kept)
    assert np.abs(heard - load_waveform(cut)).max() <= 2**-16 + 1e-7
    assert kept.recording.sampling_rate == 16000 and abs(len(heard) - 0.1501 * 16000) <= 1
    assert kept.duration == len(heard) / 16000


def test_the_stamp_counts_and_a_second_run_does_nothing(data):
    folder = shards_folder(data, "emotion")
    stamp = require(folder, "shar")
    clips = sum(1 for _ in cuts_for(data, "emotion"))
    assert stamp["in"] == stamp["out"] == clips and stamp["options"]["shard_clips"] == 9
    assert len(list(folder.glob("shards-*/features.*.tar"))) == -(-clips // 9)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_shards(sources(data)["emotion"], folder, "stored", 9)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_several_processes_and_several_jobs_write_the_same(data, tmp_path):
    def content(folder):
        return {
            path.name: (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
            for path in folder.glob("shards-*/*")
        }

    source = sources(data)["phoneme"]
    write_shards(source, tmp_path / "processes", "stored", 9, nj=3)
    missing = missing_shards(source, tmp_path / "jobs", "stored", 9)
    assert missing == list(range(-(-sum(1 for _ in cuts_for(data, "phoneme")) // 9)))
    write_shards(source, tmp_path / "jobs", "stored", 9, numbers=missing[:2])
    assert missing_shards(source, tmp_path / "jobs", "stored", 9) == missing[2:]
    with pytest.raises(InputError, match=r"stage 3 \(shar\) has not been run"):
        Shards(tmp_path / "jobs", SMALL)
    write_shards(source, tmp_path / "jobs", "stored", 9, numbers=missing[2:])
    write_shards(source, tmp_path / "first" / "jobs", "stored", 9, numbers=missing[:1])
    assert (tmp_path / "first" / ".jobs.lock").is_file(), "held, though it was the first there"
    write_shards(source, tmp_path / "jobs", "stored", 9)
    expected = content(shards_folder(data, "phoneme"))
    assert content(tmp_path / "processes") == content(tmp_path / "jobs") == expected
    rows = [
        np.load(folder / "clips.npy", allow_pickle=False)
        for folder in (shards_folder(data, "phoneme"), tmp_path / "jobs")
    ]
    assert np.array_equal(*rows)


def test_other_shards_replace_those_before(data, tmp_path):
    source = sources(data)["emotion"]
    write_shards(source, tmp_path / "out", "stored", 9)
    (next((tmp_path / "out").glob("shards-*")) / ".tmp1.features.000000.tar").touch()
    write_shards(source, tmp_path / "out", "stored", 50)
    assert len(list((tmp_path / "out").glob("shards-*"))) == len(list((tmp_path / "out").glob("notes-*"))) == 1
    assert require(tmp_path / "out", "shar")["options"]["shard_clips"] == 50
    assert not list((tmp_path / "out").rglob(".tmp*"))


def test_a_folder_may_have_any_name(data, tmp_path):
    folder = tmp_path / "100 % of it's\n$(touch x) 语音"
    write_shards(sources(data)["emotion"], folder, "stored", 50)
    assert len(epochs_of("emotion", 1, Shards(folder, SMALL))) > 5


def test_clips_may_have_any_name(data, tmp_path):
    source = tmp_path / "phonemes" / "aishell"
    shutil.copytree(sources(data)["phoneme"], source)
    cuts = CutSet.from_file(source / "train.jsonl.gz").to_eager()
    odd = [
        "语音",
        "a/../b",
        "/absolute",
        'it\'s "$(touch harm)"',
        "two\nlines",
        "100 %d",
        "x" * 200,
        "end.",
        "..",
        "a//b",
    ]
    renamed = {f"{odd[number % len(odd)]}{number}": cut for number, cut in enumerate(cuts)}
    CutSet.from_cuts([fastcopy(cut, id=name) for name, cut in renamed.items()]).to_file(source / "train.jsonl.gz")
    stamp = json.loads((source / "stage.json").read_text())
    stamp["outputs"]["train.jsonl.gz"] = (source / "train.jsonl.gz").stat().st_size
    (source / "stage.json").write_text(json.dumps(stamp))
    write_shards(source, tmp_path / "shards", "stored", 20)
    batches = epochs_of("phoneme", 1, Shards(tmp_path / "shards", SMALL))
    read = {name: (batch, row) for batch in batches for row, name in enumerate(batch.ids)}
    assert read.keys() == renamed.keys()
    for name, (batch, row) in read.items():
        assert torch.equal(batch.inputs[row, : batch.lengths[row]], load_features(renamed[name]))
    assert not list(tmp_path.rglob("harm*"))


@pytest.mark.parametrize("where", [[], ["--cmd", "sge", "--jobs-folder", "jobs"]])
def test_the_command_writes_what_the_systems_read_here_or_as_jobs(data, grid_engine, where):
    shutil.copytree(data, "data", ignore=shutil.ignore_patterns("shar", "corpora"))
    command = [*COMMAND, "--phonemes", "aishell", "--shard-clips", "40", "--nj", "2", *where]
    assert main([*command, "--systems", "wo_mtl"]) == 0
    assert states() == {"data/shar/stored/seqd.official/fold1": DONE}
    assert main([*command, "--systems", "speecheq wo_mtl baseline"]) == 0
    assert states() == {f"data/shar/stored/{name}": DONE for name in ("seqd.official/fold1", "phonemes/aishell")}
    assert len(list(Path("data/shar").rglob("features.*.tar"))) == 3 + 2
    if where:
        submitted = [json.loads(path.read_text()) for path in Path("jobs").rglob(TASKS)]
        assert sorted(len(tasks["tasks"] if isinstance(tasks, dict) else tasks) for tasks in submitted) == [2, 2]
    before = {path: path.stat().st_mtime_ns for path in Path("data/shar").rglob("*")}
    assert main([*command, "--systems", "speecheq"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("data/shar").rglob("*")} == before
    next(Path("data/shar/stored/phonemes").rglob("features.*.tar")).unlink()
    assert states()["data/shar/stored/phonemes/aishell"] == DAMAGED
    assert main([*command, "--systems", "speecheq", "--set", "data.input=waveform"]) == 0
    assert len(list(Path("data/shar/waveform").rglob("recording.*.tar"))) == 3 + 2


def states():
    return {
        str(line.folder): line.state for line in Status(Path("data"), Path("exp"), False).all() if line.stage == "shar"
    }


def test_a_system_that_lacks_its_phonemes_is_refused(data, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--data", str(data), "--systems", "speecheq"]) == 1
    assert "no phoneme corpus is given" in capsys.readouterr().err

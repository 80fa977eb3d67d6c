"""Training sets as Lhotse Shar: what is written, who reads what of it, what is said of damage, what is learned."""

import dataclasses
import gzip
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from lhotse.utils import fastcopy
from shard_runs import SMALL, config, cuts_for, epochs_of, shar_job, shards_folder, sources
from training_runs import assert_near, run_program, scalars, unify_toy_data

from speecheq.cli.main import main
from speecheq.cluster import distributed
from speecheq.cluster.job_files import TASKS
from speecheq.common.errors import InputError
from speecheq.common.stages import require
from speecheq.config.layers import learned, resolve
from speecheq.config.schema import Config, SharConfig
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset import shard_reader, shard_writer
from speecheq.dataset.batch import collate
from speecheq.dataset.loader import Stream, endless_stream
from speecheq.dataset.shard_reader import Shards
from speecheq.dataset.shard_writer import missing_shards, shard_folder, write_shards
from speecheq.features.audio import load_waveform
from speecheq.features.storage import compute_features, load_features
from speecheq.models import checkpoint
from speecheq.reporting.recipe_status import DAMAGED, DONE, Status
from speecheq.training import trainer
from speecheq.training.job import check
from speecheq.training.train import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 on toy SEQD and AISHELL-1, of several lengths and with some clips without a gender; as shards."""
    folder = tmp_path_factory.mktemp("toy")
    rows = [row if number % 7 else [row[0], "X01", "F", *row[3:]] for number, row in enumerate(toys.seqd_rows(clips=5))]
    made = {
        "seqd": toys.seqd(folder / "corpora" / "seqd", rows),
        "aishell": toys.aishell(folder / "corpora" / "aishell", utterances=31),
    }
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        toys.write_wav(path, 0.2 + 0.01 * (number % 40))
    for name, corpus in made.items():
        script = toys.script(name)

        def utterances(*given):
            return [
                dataclasses.replace(of, gender=None) if of.speaker.endswith("X01") else of
                for of in script.find_utterances(*given)
            ]

        prepare(
            getattr(script, name.upper()), utterances, PrepareRequest(corpus, partial=True), folder / "manifests" / name
        )
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify_toy_data(folder, "seqd", "official")
    for source in sources(folder).values():
        for kind in ("stored", "waveform"):
            write_shards(source, shard_folder(folder / "shar", kind, source), kind, 9)
    return folder


# ---- writing


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


CONF = ROOT / "egs" / "mandarin" / "conf"


@pytest.mark.parametrize("where", [[], ["--cmd", "sge", "--jobs-folder", "jobs"]])
def test_the_command_writes_what_the_systems_read_here_or_as_jobs(data, grid_engine, where):
    shutil.copytree(data, "data", ignore=shutil.ignore_patterns("shar", "corpora"))
    command = [
        "shar",
        "--config",
        str(CONF / "small.yaml"),
        "--systems-file",
        str(CONF / "systems.yaml"),
        "--target",
        "seqd",
        "--protocol",
        "official",
        "--phonemes",
        "aishell",
        "--shard-clips",
        "40",
        "--nj",
        "2",
        *where,
    ]
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


def test_a_system_that_lacks_its_phonemes_is_told_of(data, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "shar",
                "--data",
                str(data),
                "--config",
                str(CONF / "small.yaml"),
                "--systems-file",
                str(CONF / "systems.yaml"),
                "--target",
                "seqd",
                "--protocol",
                "official",
                "--systems",
                "speecheq",
            ]
        )
        == 1
    )
    assert "no phoneme corpus is given" in capsys.readouterr().err


# ---- reading


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stream", ["emotion", "gender", "phoneme"])
def test_every_clip_comes_once_an_epoch_with_its_own_features_and_labels(data, stream, workers):
    stored = {cut.id: cut for cut in cuts_for(data, stream)}
    batches = epochs_of(stream, 2, Shards(shards_folder(data, stream), SMALL), workers=workers, max_seconds=9.0)
    for epoch in (0, 1):
        of_epoch = [batch for batch in batches if batch.position.epoch == epoch]
        assert Counter(name for batch in of_epoch for name in batch.ids) == Counter(stored.keys())
        assert [batch.position.batch for batch in of_epoch] == list(range(len(of_epoch)))
        assert [batch.last for batch in of_epoch] == [False] * (len(of_epoch) - 1) + [True]
    for batch in batches[:6]:
        expected = collate(stream, [stored[name] for name in batch.ids])
        assert torch.equal(batch.inputs, expected.inputs) and torch.equal(batch.lengths, expected.lengths)
        assert batch.all_ids == batch.ids and batch.targets.keys() == expected.targets.keys()
        for name, values in expected.targets.items():
            assert all(torch.equal(a, b) for a, b in zip(values, batch.targets[name]))
    assert [b.ids for b in batches if b.position.epoch == 0] != [b.ids for b in batches if b.position.epoch == 1]


def test_the_gender_stream_lacks_the_clips_without_a_gender(data):
    emotion, gender = (
        Counter(
            name for batch in epochs_of(stream, 1, Shards(shards_folder(data, stream), SMALL)) for name in batch.ids
        )
        for stream in ("emotion", "gender")
    )
    assert 0 < len(gender) < len(emotion)


def test_the_clips_of_one_corpus_only(data):
    folder = shards_folder(data, "emotion")
    whole = epochs_of("emotion", 1, Shards(folder, SMALL))
    of_one = epochs_of("emotion", 1, Shards(folder, SMALL, "seqd"))
    assert [batch.ids for batch in of_one] == [batch.ids for batch in whole]
    with pytest.raises(InputError, match="holds 0 clips"):
        epochs_of("emotion", 1, Shards(folder, SMALL, "casia"))


def test_a_loader_for_which_no_part_is_left_ends_at_once(data):
    shards = Shards(shards_folder(data, "emotion"), SMALL)
    planned = [shards.planned_batches(Stream("emotion", config(), 1), loader, 3) for loader in range(3)]
    assert [next(batches, None) is None for batches in planned] == [False, False, True]
    assert len(epochs_of("emotion", 1, shards, workers=3)) == len(epochs_of("emotion", 1, shards))


def test_audio_is_cropped_at_the_same_places_as_features_are(data):
    def first(kind):
        return epochs_of("emotion", 1, Shards(shards_folder(data, "emotion", kind), SMALL), input=kind, max_seconds=0.3)

    stored = {cut.id: cut for cut in cuts_for(data, "emotion")}
    cropped = 0
    for features, audio in zip(first("stored"), first("waveform")):
        assert features.ids == audio.ids and features.lengths.max() <= 30
        assert ((audio.lengths - 160 * features.lengths).abs() <= 160).all()
        whole = load_features(stored[features.ids[0]])
        piece = features.inputs[0][: features.lengths[0]]
        assert any(torch.equal(whole[place : place + len(piece)], piece) for place in range(len(whole)))
        cropped += len(whole) > len(piece)
    assert cropped


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stream", ["gender", "phoneme"])
def test_a_stream_goes_on_from_every_position(data, stream, workers):
    shards = Shards(shards_folder(data, stream), SMALL)
    whole = epochs_of(stream, 2, shards)
    taken = range(len(whole) - 1) if not workers else (3, len(whole) // 2)
    for number in taken:
        rest = endless_stream(stream, shards, config(workers), 1, whole[number].next_position)
        for expected in whole[number + 1 : number + 4]:
            found = next(rest)
            assert (found.position, found.last, found.ids) == (expected.position, expected.last, expected.ids)
            assert torch.equal(found.inputs, expected.inputs)


def test_going_on_opens_no_shard_of_what_is_passed_over(data, monkeypatch):
    opened, read = [], shard_reader._read_shard
    monkeypatch.setattr(shard_reader, "_read_shard", lambda *a: opened.append(a[0].name) or read(*a))
    shards = Shards(shards_folder(data, "phoneme"), dataclasses.replace(SMALL, parts=1, lanes=1, buffer=8))
    whole = epochs_of("phoneme", 1, shards)
    number = len(shards.first) - 1
    assert len(set(opened[:number])) == number == 7  # what follows is of the next epoch
    opened.clear()
    next(endless_stream("phoneme", shards, config(), 1, whole[-2].next_position))
    assert len(opened) <= 4


@contextmanager
def process(rank, size):
    """While it is entered this is that process of so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "rank", lambda: rank)
        patch.setattr(distributed, "size", lambda: size)
        yield


@given(
    shard_clips=st.integers(1, 200),
    lanes=st.sampled_from([1, 2, 4, 6]),
    parts=st.integers(1, 4),
    most=st.integers(1, 6),
    loaders=st.integers(1, 3),
    buffer=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_processes_and_loaders_share_an_epoch_and_none_sees_another_ones_clips(
    data, tmp_path_factory, shard_clips, lanes, parts, most, loaders, buffer, seed
):
    """The mini-batches are those of one process with one loader; each clip is read by one of them, once."""
    processes = max(number for number in range(1, most + 1) if lanes % number == 0)
    folder = tmp_path_factory.mktemp("shards")
    write_shards(sources(data)["phoneme"], folder, "stored", shard_clips)
    shards = Shards(folder, SharConfig(True, lanes, parts, buffer))
    alone = first_epoch(shards, seed, 0, 1)
    shares = {}
    for rank in range(processes):
        with process(rank, processes):
            for loader in range(loaders):
                for batch in first_epoch(shards, seed, loader, loaders):
                    shares.setdefault(batch.position, []).append(batch)
    assert [batch.position for batch in alone] == sorted(shares)
    assert sorted(name for batch in alone for name in batch.all_ids) == sorted(
        cut.id for cut in cuts_for(data, "phoneme")
    )
    for batch in alone:
        found = [[cut.id for cut in share.cuts] for share in shares[batch.position]]
        assert len(found) == processes and distributed.interleaved(found) == batch.all_ids
        assert all((share.all_ids, share.last) == (batch.all_ids, batch.last) for share in shares[batch.position])


def first_epoch(shards, seed, loader, loaders):
    """The mini-batches of the first epoch that a loader loads."""
    stream = Stream("phoneme", config(batch_size=12), seed)
    batches = len(shards._epoch(stream, shards._clips(stream), 0).round_robin())
    own = list(islice(shards.loader_order(stream, loaders), batches)).count(loader)
    return list(islice(shards.planned_batches(stream, loader, loaders), own))


def test_too_few_lanes_for_the_processes_are_told_of(data):
    settings_of = Config()
    settings_of.shar = SMALL
    shard_reader.check_processes(settings_of, 2)
    with pytest.raises(InputError, match="shar.lanes is 4, but 3 processes train.*--set shar.lanes=3"):
        shard_reader.check_processes(settings_of, 3)


# ---- damage


@pytest.fixture
def damaged(data, tmp_path):
    """A copy of the phoneme set's shards: (its folder, the manifest and the archive of shard 2)."""
    folder = tmp_path / "aishell"
    shutil.copytree(shards_folder(data, "phoneme"), folder)
    return folder, next(folder.glob("shards-*/cuts.000002.jsonl.gz")), next(folder.glob("shards-*/features.000002.tar"))


def test_a_shard_that_is_truncated_or_gone_is_named_and_only_that_is_written_anew(data, damaged):
    folder, manifest, archive = damaged
    whole = {path: path.stat().st_mtime_ns for path in folder.glob("shards-*/*")}
    for spoil in (lambda: os.truncate(archive, archive.stat().st_size - 512), archive.unlink, manifest.unlink):
        gone = manifest if spoil == manifest.unlink else archive
        spoil()
        with pytest.raises(InputError) as refused:
            Shards(folder, SMALL)
        assert str(gone) in str(refused.value) and "run stage 3 again" in str(refused.value)
        assert missing_shards(sources(data)["phoneme"], folder, "stored", 9) == [2]
        write_shards(sources(data)["phoneme"], folder, "stored", 9)
        assert sum(1 for batch in epochs_of("phoneme", 1, Shards(folder, SMALL)) for _ in batch.ids) == 62
    after = {path: path.stat().st_mtime_ns for path in folder.glob("shards-*/*")}
    assert {path for path in whole if whole[path] != after[path]} == {manifest, archive}


def tar_of(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda m, a: os.truncate(a, 3000), r"features.000002.tar: cannot be read \(.*run stage 3 again"),
        (lambda m, a: os.truncate(a, 0), "features.000002.tar: .*run stage 3 again"),
        (lambda m, a: a.unlink(), "features.000002.tar: cannot be read"),
        (lambda m, a: m.unlink(), "cuts.000002.jsonl.gz: cannot be read"),
        (lambda m, a: os.truncate(m, m.stat().st_size // 2), "cuts.000002.jsonl.gz: cannot be read"),
        (
            lambda m, a: m.write_bytes(gzip.compress(gzip.decompress(m.read_bytes()).splitlines(True)[0])),
            "features.000002.tar: it or cuts.000002.jsonl.gz ends after 1 clips",
        ),
        (
            lambda m, a: a.write_bytes(tar_of(*[(name + end, b"") for name in "ab" for end in (".llc", ".json")])),
            "features.000002.tar: ",
        ),
    ],
)
def test_damage_that_comes_after_the_start_is_one_sentence(damaged, spoil, sentence, workers):
    folder, manifest, archive = damaged
    shards = Shards(folder, SMALL)
    spoil(manifest, archive)
    with pytest.raises(InputError, match=sentence) as refused:
        epochs_of("phoneme", 1, shards, workers=workers)
    assert len(str(refused.value).splitlines()) == 1


def test_features_that_cannot_be_decoded_name_their_shard(damaged):
    folder, _, archive = damaged
    content = bytearray(archive.read_bytes())
    with tarfile.open(archive) as tar:
        member = tar.getmembers()[0]
    content[member.offset_data + 4 : member.offset_data + 40] = bytes(36)
    archive.write_bytes(content)
    with pytest.raises(InputError, match=rf"features.000002.tar: the features of {member.name[:-4]} cannot be read"):
        epochs_of("phoneme", 1, Shards(folder, SMALL))


def test_nothing_in_a_shard_is_unpickled(damaged, tmp_path):
    """A foreign archive with a pickled array in place of lilcom's bytes."""
    folder, manifest, archive = damaged
    escaped, shards = tmp_path / "escaped", Shards(damaged[0], SMALL)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(escaped),)

    pickled = io.BytesIO()
    np.save(pickled, np.array([Trap()], dtype=object), allow_pickle=True)
    with tarfile.open(archive) as tar:
        (first, _), *others = [(member.name, tar.extractfile(member).read()) for member in tar]
    for ending, says in ((".npy", "is expected by"), (".llc", "cannot be read")):
        archive.write_bytes(tar_of((first[:-4] + ending, pickled.getvalue()), *others))
        with pytest.raises(InputError, match=says):
            epochs_of("phoneme", 1, shards)
        assert not escaped.exists()
    np.save(folder / "clips.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    stamp = json.loads((folder / "stage.json").read_text())
    stamp["outputs"] = {"clips.npy": (folder / "clips.npy").stat().st_size}
    (folder / "stage.json").write_text(json.dumps(stamp))
    with pytest.raises(InputError, match="clips.npy: cannot be read"):
        Shards(folder, SMALL)
    assert not escaped.exists()


# ---- settings


def test_the_settings_of_shards_change_a_training_only_where_they_are_used():
    plain, other = Config(), Config()
    other.shar.lanes = 16
    assert learned(plain) == learned(other) and "shar" not in learned(plain)
    plain.shar.use = other.shar.use = True
    assert learned(plain) != learned(other)


@pytest.mark.parametrize(
    "assignments, sentence",
    [
        (
            ["data.batch_size=20"],
            "data.batch_size is 20, but from shards it must be a multiple of shar.lanes, which is 8",
        ),
        (["data.workers=5"], "data.workers is 5, but only shar.parts, which is 4, can load from shards"),
        (["shar.lane=8"], "did you mean shar.lanes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(assignments, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve(CONF / "small.yaml", CONF / "systems.yaml", "speecheq", {"shar.use": True}, assignments)


# ---- training


@pytest.fixture
def in_processes(data, tmp_path):
    """``in_processes(program)``: what a program that reads shards in several processes printed, and its log."""
    return lambda program: run_program("shards_in_processes", program, data, tmp_path)


def test_four_processes_with_two_loaders_each_see_every_clip_of_an_epoch_once(data, in_processes, tmp_path):
    told, shown = in_processes("""
        for size in (4, 1):
            print(json.dumps(processes(size, listing)[0]), flush=True)
    """)
    assert told == [[0] * 4, [0]], shown
    alone = json.loads((tmp_path / "listing1.0.json").read_text())
    of_four = [json.loads((tmp_path / f"listing4.{rank}.json").read_text()) for rank in range(4)]
    for stream, (rows, again) in alone.items():
        clips = Counter(cut.id for cut in cuts_for(data, stream))
        for epoch in (0, 1):
            seen = Counter(name for found in of_four for row in found[stream][0] if row[0] == epoch for name in row[3])
            assert seen == clips, stream
        for number, row in enumerate(rows):
            shares = [found[stream][0][number] for found in of_four]
            assert all([*share[:3], share[4]] == [*row[:3], row[4]] for share in shares)
            assert distributed.interleaved([share[3] for share in shares]) == row[4] == row[3]
        assert all(len(found[stream][0]) == len(rows) for found in of_four), "the same number of steps"
        going_on = [number for number, row in enumerate(rows) if row[:2] == [1, 2]][0]
        assert again == rows[going_on:] and len(again) > 3
        assert all(found[stream][1] == found[stream][0][going_on:] for found in of_four)


@pytest.fixture(scope="module")
def trainings(data, tmp_path_factory):
    """The same training from shards in one process, in two and in four."""
    folder = tmp_path_factory.mktemp("trainings")
    program = """
        for size, workers in ((1, 0), (2, 2), (4, 0)):
            trained_from_shards(size, f"of{size}", data__workers=workers)
        trained_from_shards(3, "three")
    """
    told, shown = run_program("shards_in_processes", program, data, folder)
    assert told == [[0], [0, 0], [0, 0, 0, 0], [1, 1, 1]], shown
    assert "shar.lanes is 4, but 3 processes train" in shown
    return folder


def test_processes_train_from_shards_as_one_does(trainings):
    for size in (2, 4):
        assert_near(trainings / "of1", trainings / f"of{size}")
        one, other = (checkpoint.read(trainings / name / "last.pt") for name in ("of1", f"of{size}"))
        assert one["positions"] == other["positions"] and other["epoch"] == 1


def test_a_training_from_shards_goes_on_with_another_number_of_processes(
    data, trainings, in_processes, tmp_path, monkeypatch
):
    """It is stopped in its second epoch, whose mini-batches before that place are not made again."""
    steps, original = [], trainer.train_step

    def step(*arguments):
        steps.append(1)
        if len(steps) == 15:
            raise InputError("broken off")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step)
        with pytest.raises(InputError, match="broken off"):
            train(shar_job(data, tmp_path / "broken", run__checkpoint_steps=1))
    told, shown = in_processes("trained_from_shards(2, 'broken', run__checkpoint_steps=1)")
    assert told == [[0, 0]] and "going on after step 14" in shown, shown
    assert_near(trainings / "of1", tmp_path / "broken")


def test_a_system_of_the_target_alone_learns_from_its_shards_and_a_missing_stage_is_named(data, tmp_path):
    settings_of = {"data__corpora": "target", "loss__beta": 0.0, "optim__max_steps": 2}
    train(shar_job(data, tmp_path / "run", **settings_of))
    stamp = require(tmp_path / "run", "train")
    assert str(shards_folder(data, "emotion")) in stamp["inputs"]
    with pytest.raises(InputError, match=r"stage 3 \(shar\) has not been run"):
        check(dataclasses.replace(shar_job(data, tmp_path / "other"), shards=tmp_path / "nowhere"))
    other = shar_job(data, tmp_path / "run", use=False, **settings_of)
    train(other)  # the mini-batches are others, so it is another training
    assert str(shards_folder(data, "emotion")) not in require(tmp_path / "run", "train")["inputs"]


def test_other_shards_train_anew_and_the_same_do_not(data, tmp_path):
    shutil.copytree(data / "shar", tmp_path / "shar")
    made = shar_job(data, tmp_path / "run", loss__beta=0.0, optim__max_steps=1)
    made = dataclasses.replace(made, shards=tmp_path / "shar")

    def trained():
        train(made)
        return (tmp_path / "run" / "stage.json").stat().st_mtime_ns

    first = trained()
    assert trained() == first
    write_shards(sources(data)["emotion"], made.shards_of(sources(data)["emotion"]), "stored", 30)
    second = trained()
    assert second != first and trained() == second


def test_a_training_on_waveforms_reads_audio_from_shards(data, tmp_path):
    train(shar_job(data, tmp_path, data__input="waveform", augment__noise_probability=0.0, optim__max_steps=2))
    assert "stored" not in " ".join(require(tmp_path, "train")["inputs"])


def test_a_training_from_shards_learns_as_one_from_cuts_does(data, tmp_path):
    """Other mini-batches of the same clips: neither the same steps nor a worse end."""
    last = {}
    for use in (True, False):
        train(shar_job(data, tmp_path / str(use), use, optim__max_steps=40, optim__learning_rate=3e-3))
        curve = [value for _, value in scalars(tmp_path / str(use))["train/total"]]
        last[use] = np.mean(curve[-10:]), np.mean(curve[:5])
    assert last[True][0] != last[False][0]
    assert all(end < 0.9 * beginning for end, beginning in last.values())
    assert last[True][0] == pytest.approx(last[False][0], rel=0.2)

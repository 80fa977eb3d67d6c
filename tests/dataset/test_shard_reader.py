"""Who reads what of shards, in which order, and how damage is reported."""

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

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_runs import SMALL, config, cuts_for, epochs_of, shards_folder, sources

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.config.schema import Config, SharConfig
from speecheq.dataset import shard_reader
from speecheq.dataset.batch import collate
from speecheq.dataset.loader import Stream, endless_stream
from speecheq.dataset.shard_reader import Shards
from speecheq.dataset.shard_writer import missing_shards, write_shards
from speecheq.features.storage import load_features


@pytest.fixture(scope="module")
def data(shards_data):
    return shards_data


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


def test_a_loader_for_which_no_group_is_left_ends_at_once(data):
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


def test_too_few_readers_for_the_processes_are_refused(data):
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

"""Fixtures that several test modules of the package share."""

import dataclasses

import pytest
from shard_runs import sources
from training_runs import unify_toy_data

from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset.shard_writer import shard_folder, write_shards
from speecheq.features.storage import compute_features


@pytest.fixture(scope="session")
def shards_data(toys, tmp_path_factory):
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
            found = script.find_utterances(*given)
            return [dataclasses.replace(u, gender=None) if u.speaker.endswith("X01") else u for u in found]

        request = PrepareRequest(corpus, partial=True)
        prepare(getattr(script, name.upper()), utterances, request, folder / "manifests" / name)
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify_toy_data(folder, "seqd", "official")
    for source in sources(folder).values():
        for kind in ("stored", "waveform"):
            write_shards(source, shard_folder(folder / "shar", kind, source), kind, 9)
    return folder

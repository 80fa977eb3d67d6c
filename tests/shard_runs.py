"""What tests of training from shards share: the toy shards and jobs that learn from them."""

import dataclasses

from training_runs import seqd_job

from speecheq.config.schema import DataConfig, SharConfig
from speecheq.dataset.batch import Position
from speecheq.dataset.loader import endless_stream, training_cuts
from speecheq.dataset.shard_writer import shard_folder

LANES, PARTS = 4, 2
SMALL = SharConfig(True, LANES, PARTS, buffer=32)


def sources(data):
    return {"emotion": data / "msud" / "seqd.official" / "fold1", "phoneme": data / "phonemes" / "aishell"}


def cuts_for(data, stream):
    return training_cuts(
        sources(data)["phoneme"] / "train.jsonl.gz"
        if stream == "phoneme"
        else sources(data)["emotion"] / f"{stream}.jsonl.gz"
    )


def shards_folder(data, stream, kind="stored"):
    return shard_folder(data / "shar", kind, sources(data)["phoneme" if stream == "phoneme" else "emotion"])


def config(workers=0, **named):
    of_tests = {"batch_size": 8, "max_seconds": 0.4, "phoneme_batch_seconds": 2.5, "workers": workers}
    return DataConfig(**{**of_tests, **named})


def epochs_of(stream, number, shards, start=Position(), **named):
    """The mini-batches of the first ``number`` epochs."""
    found = []
    for batch in endless_stream(stream, shards, config(**named), 1, start):
        if batch.position.epoch == number:
            return found
        found.append(batch)


def shar_job(data, folder, use=True, **named):
    named = {"data__batch_size": 8, "optim__max_steps": 16, **named}
    made = dataclasses.replace(seqd_job(data, folder, **named), shards=data / "shar")
    made.config.shar = dataclasses.replace(SMALL, use=use)
    return made

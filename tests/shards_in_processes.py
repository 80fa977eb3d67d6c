"""Names for programs that read shards in several processes (training_runs.run_program)."""

import json

from several_processes import *  # noqa: F403
from several_processes import data, distributed, folder, processes, train
from shard_runs import SMALL, epochs_of, shar_job, shards_folder

from speecheq.dataset.batch import Position
from speecheq.dataset.shard_reader import Shards


def listing(rank):
    """Write what a process is given in two epochs, with two loaders a stream, and from a place in the second one."""
    found = {}
    for stream in ("emotion", "gender", "phoneme"):
        shards = Shards(shards_folder(data, stream), SMALL)
        found[stream] = [
            [
                [*batch.position, batch.last, batch.ids, batch.all_ids]
                for batch in epochs_of(stream, 2, shards, start, workers=2)
            ]
            for start in (Position(), Position(1, 2))
        ]
    (folder / f"listing{distributed.size()}.{rank}.json").write_text(json.dumps(found))


def trained_from_shards(size, out, **settings):
    def work(rank):
        train(shar_job(data, folder / out, **settings))

    print(json.dumps(processes(size, work)[0]), flush=True)

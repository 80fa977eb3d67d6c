#!/usr/bin/env python3
"""Time of intervals and paired tests over made-up answers, as stage 5 takes them for a table."""

import argparse
import itertools
import time

import numpy as np

from speecheq.evaluation.significance import (
    RESAMPLES,
    PooledPredictions,
    bootstrap_accuracies,
    bootstrap_interval,
    difference,
    holm,
)

CLASSES = 6
# clips, test speakers, seeds: CASIA, RAVDESS, ESD, one of a large crowd
SIZES = ((1_200, 4, 1), (1_200, 4, 3), (1_440, 24, 3), (35_000, 20, 3), (35_000, 500, 3))


def made_up(clips: int, speakers: int, seeds: int, system: int) -> PooledPredictions:
    """Two thirds of the answers are right; ``system`` sets which."""
    random, gold = np.random.default_rng(system), np.random.default_rng(0).integers(CLASSES, size=clips)
    answers = [np.where(random.random(clips) < 2 / 3, gold, random.integers(CLASSES, size=clips)) for _ in range(seeds)]
    return PooledPredictions.from_rows(
        [
            (seed, clip % 10, f"{clip:06d}", f"s{clip % speakers}", int(gold[clip]), int(answer))
            for seed in range(seeds)
            for clip, answer in enumerate(answers[seed])
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=6)
    given = parser.parse_args()
    print(f"{RESAMPLES} resamples; {given.systems} systems, {given.systems * (given.systems - 1) // 2} pairs")
    for clips, speakers, seeds in SIZES:
        systems = [made_up(clips, speakers, seeds, system) for system in range(given.systems)]
        started = time.perf_counter()
        bootstrap_interval(bootstrap_accuracies(systems[0]).ua, systems[0].units)
        one, started = time.perf_counter() - started, time.perf_counter()
        found = [difference(first, second) for first, second in itertools.combinations(systems, 2)]
        holm([of.mcnemar for of in found])
        print(
            f"{clips:7d} clips, {speakers:4d} speakers, {seeds} seeds: intervals of a system {one:6.3f} s, all pairs "
            f"{time.perf_counter() - started:6.2f} s"
        )


if __name__ == "__main__":
    main()

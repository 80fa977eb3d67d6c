#!/usr/bin/env python3
"""A folder of room impulse responses: audio files of any format, rate and number of channels, at any depth."""

from speecheq.sounds import run

if __name__ == "__main__":
    run("rir", "room impulse responses")

#!/usr/bin/env python3
"""A folder of noises to add to speech: audio files of any format, rate and length, in folders of any depth."""

from speecheq.sounds import run

if __name__ == "__main__":
    run("noise", "noises")

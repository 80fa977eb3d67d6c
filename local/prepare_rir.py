#!/usr/bin/env python3
"""A folder of room impulse responses: audio files of any format, rate and number of channels, at any depth."""

from speecheq.corpora.audio_folder import run

if __name__ == "__main__":
    run("rir", "room impulse responses")

#!/usr/bin/env python3
"""A folder of room impulse responses: audio files of any format, rate and number of channels, at any depth."""

from speecheq.corpora import run_audio_folder

if __name__ == "__main__":
    run_audio_folder("rir", "room impulse responses")

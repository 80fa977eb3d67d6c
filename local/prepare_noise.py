#!/usr/bin/env python3
"""A folder of noises to add to speech: audio files of any format, rate and length, in folders of any depth."""

from speecheq.corpora import run_audio_folder

if __name__ == "__main__":
    run_audio_folder("noise", "noises")

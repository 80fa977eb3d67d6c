#!/usr/bin/env python3
"""A folder of noises to add to speech: audio files of any format, rate and length, in folders of any depth."""

from speecheq.corpora.audio_folder import run

if __name__ == "__main__":
    run("noise", "noises")

#!/usr/bin/env python3
"""Unlabelled speech, for MTL-AUG: audio files of any format, rate and length, in folders of any depth (LibriSpeech)."""

from speecheq.corpora.audio_folder import run

if __name__ == "__main__":
    run("unlabelled", "unlabelled speech", speech=True)

#!/usr/bin/env python3
"""Unlabelled speech, for MTL-AUG: audio files of any format, rate and length, in folders of any depth (LibriSpeech)."""

from speecheq.corpora import run_audio_folder

if __name__ == "__main__":
    run_audio_folder("unlabelled", "unlabelled speech", speech=True)

"""Declaring, preparing, checking, downloading, importing and synthesising corpora.

What a prep script needs is imported from here. lhotse, soundfile and numpy are imported only when audio is read.
"""

from speecheq.common.digests import iter_tree
from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.audio_headers import read_header
from speecheq.corpora.declaration import Corpus, Utterance
from speecheq.corpora.layout import find_root, index_clips, iter_clips, iter_folders, keep_matched, read_csv, read_lines
from speecheq.corpora.prep_script import run, run_audio_folder, run_parts

__all__ = [
    "Corpus",
    "Drops",
    "InputError",
    "Utterance",
    "find_root",
    "index_clips",
    "iter_clips",
    "iter_folders",
    "iter_tree",
    "keep_matched",
    "log",
    "read_csv",
    "read_header",
    "read_lines",
    "run",
    "run_audio_folder",
    "run_parts",
]

"""Digests of values and of trees of files."""

import os

from speecheq.common.digests import digest, iter_tree, tree_sizes
from speecheq.common.files import write_text


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_sizes_of_a_tree_with_links(tmp_path):
    source = tmp_path / "source"
    write_text(source / "clip.wav", "12345")
    write_text(source / "labels.tsv", "a\tF\n")
    os.symlink(source, tmp_path / "link")
    os.symlink(source, source / "loop")
    os.symlink(source / "nowhere", source / "dead.wav")
    assert tree_sizes(tmp_path / "link") == {"clip.wav": 5, "labels.tsv": 4}
    left_out = []
    assert list(iter_tree(tmp_path / "link", left_out)) == ["clip.wav", "labels.tsv"] and left_out == ["dead.wav"]

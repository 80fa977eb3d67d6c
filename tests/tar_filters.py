"""Pythons before 3.10.12 and 3.11.4, such as Debian 12's, cannot unpack tar archives safely: downloads refuse them."""

import tarfile

import pytest

needs_tar_filters = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="this Python has no filters for tar archives"
)

"""What the tests of the mini corpora share: every corpus in nano, one in mini, the voices in use."""

import random

import pytest

from speecheq.corpora.synthetic import CORPORA, synthesise

SEED = 3


@pytest.fixture(scope="session", autouse=True)
def demo_extra():
    for package in ("espeakng_loader", "scipy"):
        pytest.importorskip(package, reason=f"{package} is absent: install the extra `demo`")


@pytest.fixture(scope="session")
def nano(demo_extra, tmp_path_factory):
    """The nano version of every corpus: name -> (folder, counts)."""
    root = tmp_path_factory.mktemp("nano")
    return {corpus: (root / corpus, synthesise(corpus, root / corpus, "nano", seed=SEED)) for corpus in CORPORA}


@pytest.fixture(scope="session")
def mini(demo_extra, tmp_path_factory):
    """``mini(corpus)``: the folder of its mini version and its counts, written once."""
    root, written = tmp_path_factory.mktemp("mini"), {}

    def folder_and_counts(corpus):
        if corpus not in written:
            written[corpus] = (root / corpus, synthesise(corpus, root / corpus, "mini", seed=SEED))
        return written[corpus]

    return folder_and_counts


@pytest.fixture(scope="session")
def speakers():
    """Every (speaker, language) of the mini corpora, one for each voice, by corpus in their order."""
    plans = {corpus: plan("mini", random.Random(0)) for corpus, plan in CORPORA.items()}
    spoken = [(clip.speaker, clip.language) for plan in plans.values() for clip in plan.clips]
    voices = {(speaker.variant, speaker.pitch, language): (speaker, language) for speaker, language in spoken}
    return list(voices.values())

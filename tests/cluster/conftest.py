"""What tests of trainings in several processes share."""

import pytest
from training_runs import make_toy_data


@pytest.fixture(scope="session")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 on toy SEQD, which has EIS labels, and AISHELL-1: 17 emotion clips, an epoch is three steps."""
    return make_toy_data(toys, tmp_path_factory.mktemp("toy"), "seqd", "official")

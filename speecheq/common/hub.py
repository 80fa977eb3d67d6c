"""Models of the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from speecheq.common.errors import InputError, first_line, optional_package


def fetch_model(model: str, files: Sequence[str], missing: str) -> Path:
    """The folder with the ``files``, which may be patterns, of a model of the hub, from its cache if it is there.

    ``model`` is its id, OWNER/NAME. ``missing`` is the beginning of the sentence of the InputError where there is none.
    """
    with optional_package("huggingface_hub", f"{missing}; a model of the hub"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(model, allow_patterns=list(files)))
    except Exception as error:  # of the network, of the hub, of the disk
        raise InputError(
            f"{missing}, and no model of that id could be downloaded from the hub ({first_line(error)})."
        ) from error

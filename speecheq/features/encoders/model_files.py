"""The files of a pretrained model: found in a folder or on the hub, checked, read tensor by tensor."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from speecheq.common.errors import InputError, first_line
from speecheq.common.files import read_json
from speecheq.common.hub import fetch_model
from speecheq.features.encoders.settings import EncoderSettings

CONFIG, PREPROCESSOR, WEIGHTS = FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def find_model(model: str) -> Path:
    """The folder of ``model``, a folder or the id of a model of the hub; of a folder nothing asks the network.

    From the hub come the three files of ``FILES``, unless its cache has them. Raises InputError where there is none.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    missing = f"{model}: there is no such folder"
    if model.startswith((".", "~")) or folder.is_absolute() or len(folder.parts) != 2:
        raise InputError(f"{missing}; name the folder of a model, or a model of the Hugging Face hub as OWNER/NAME.")
    return fetch_model(model, FILES, missing)


def check_layers(folder: Path, layers: tuple[int, ...], last: int) -> None:
    """Raise InputError for a layer that the model in ``folder``, whose last layer is ``last``, does not have."""
    if max(layers) > last:
        raise InputError(f"{folder}: has no layer {max(layers)}; its layers are 0 to {last}.")


def check_no_whisper_settings(folder: Path, settings: EncoderSettings) -> None:
    """Raise InputError for settings that only Whisper models take: the model in ``folder`` is of another kind."""
    if settings.padding != "none":
        raise InputError(f"{folder}: is no Whisper model, and only those are padded to 30 s: padding=none.")
    if settings.normalise == "level":
        raise InputError(f"{folder}: is no Whisper model, and only those take normalise=level: set yes.")


class ModelTable(dict[str, Any]):
    """A JSON table of a model. A key that it lacks is an InputError."""

    def __init__(self, path: Path) -> None:
        try:
            table = read_json(path)
        except InputError:
            table = None
        if not isinstance(table, dict):
            raise InputError(f"{path}: is not the table of a model; copy it again.")
        super().__init__(table)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.path}: lacks {key}; copy it again.")


class Tensors:
    """Tensors of an open file of weights, without the prefix of their names."""

    def __init__(self, path: Path, opened: Any, prefix: str) -> None:
        self.path, self.prefix = path, prefix
        self._opened, self._names = opened, set(opened.keys())

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self._names

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor ``name``. Raises InputError if there is none or it has another shape."""
        full = self.prefix + name
        if name not in self:
            raise InputError(f"{self.path}: lacks the tensor {full}, which its config.json asks for; copy both again.")
        tensor = self._opened.get_tensor(full)
        if tuple(tensor.shape) != tuple(shape):
            raise InputError(
                f"{self.path}: {full} has the shape {tuple(tensor.shape)}, but its config.json asks for "
                f"{tuple(shape)}; the two files are not of the same model."
            )
        return tensor


class ModelFiles:
    """What the folder of a model holds; its two tables are read at once, its weights when they are asked for.

    Attributes:
        folder: where it lies. config, preprocessor: what config.json and preprocessor_config.json hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            if not (self.folder / name).is_file():
                raise InputError(self._missing(name))
        self.config = ModelTable(self.folder / CONFIG)
        self.preprocessor = ModelTable(self.folder / PREPROCESSOR)

    def _missing(self, name: str) -> str:
        if name != WEIGHTS:
            return f"{self.folder}: lacks {name}; copy it from where the model comes from."
        if not list(self.folder.glob("*.bin")):
            return f"{self.folder}: lacks {WEIGHTS}; copy it from where the model comes from (.bin is not read)."
        return (
            f"{self.folder}: has its weights as .bin, which can run code when it is read; write them as safetensors "
            "where you trust the file: transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)."
        )

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def check_preprocessor(self, **expected: int) -> None:
        """Raise InputError if preprocessor_config.json has another value for one of ``expected``."""
        for name, value in expected.items():
            if self.preprocessor.get(name, value) != value:
                raise InputError(
                    f"{self.preprocessor.path}: {name} is {self.preprocessor[name]}, but this package reads "
                    f"such models with {value} only."
                )

    def normalises(self, setting: str, default: bool) -> bool:
        """Whether clips get mean 0 and variance 1: yes, or auto if preprocessor_config.json says so."""
        return setting == "yes" or (setting == "auto" and bool(self.preprocessor.get("do_normalize", default)))

    @contextmanager
    def tensors(self, prefixes: tuple[str, ...], known: str) -> Iterator[Tensors]:
        """The tensors of the weights, opened; of ``prefixes`` the first with which there is one named ``known``."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.weights), framework="pt") as opened:
                names = set(opened.keys())
                found = [prefix for prefix in prefixes if prefix + known in names]
                if not found:
                    raise InputError(
                        f"{self.weights}: holds no tensor {prefixes[0]}{known}; it is not of the model that its "
                        "config.json names."
                    )
                yield Tensors(self.weights, opened, found[0])
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{self.weights}: is not a whole file of safetensors ({first_line(error)}); copy it again."
            ) from error

    def digest(self) -> str:
        """A digest of the content of all three files."""
        found = hashlib.sha256()
        for name in FILES:
            path = self.folder / name
            status = path.stat()
            found.update(_digest_of_file(os.fspath(path), status.st_size, status.st_mtime_ns).encode())
        return found.hexdigest()[:16]


@lru_cache(maxsize=32)
def _digest_of_file(path: str, _size: int, _changed: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()

"""The raw content of a weight file of any format, before its keys are recognised."""

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlnet.errors import WeightsError
from nlnet.weights.formats.caffe2 import read_blobs
from nlnet.weights.formats.safetensors import is_safetensors, read_safetensors
from nlnet.weights.formats.torch import as_state_dict, is_torch, read_torch

STATE_KEYS = ("state_dict", "model_state", "model")
"""Keys under which projects keep the state dict when a file has more than that."""


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """The state dict of a weight file and what else the file holds."""

    values: Mapping[str, Any]
    """The state dict, by the file's keys."""
    beside: tuple[str, ...] = ()
    """Keys of the file beside the state dict."""
    text: str = ""
    """The configuration in the file, if it has one, and the file's name."""
    metadata: Mapping[str, str] | None = None
    """The metadata of a .safetensors file."""


def read_file(path: Path) -> FileContent:
    """Read a file of any known format, or the last checkpoint of a run directory of nlnet.

    Raises:
        WeightsError: not a file that can be read safely, or no state dict in it.
        FileNotFoundError: no such file.
    """
    if path.is_dir():
        path = path / "checkpoints" / "last.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            errno.ENOENT, "no such file; expected a weight file or a run directory", str(path)
        )
    if is_safetensors(path):
        tensors, metadata = read_safetensors(path)
        return FileContent(values=tensors, metadata=metadata)
    # A Caffe2 pickle has no signature to look for, so it is the last guess.
    if not is_torch(path):
        return FileContent(values=read_blobs(path), text=path.name)
    values = _state_dict(path, read_torch(path))
    for key in STATE_KEYS:
        if isinstance(values.get(key), Mapping):
            beside = tuple(name for name in values if name != key)
            text = f"{_configuration(values)}\n{path.name}"
            return FileContent(values=_state_dict(path, values[key]), beside=beside, text=text)
    return FileContent(values=values, text=path.name)


def _state_dict(path: Path, values: object) -> Mapping[str, Any]:
    """Check that `values` is a state dict, and name the file if it is not."""
    try:
        return as_state_dict(values)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _configuration(values: Mapping[str, Any]) -> str:
    """The configuration that PySlowFast (`cfg`) and OpenMMLab (`meta`) keep beside the weights, as text."""
    meta = values.get("meta")
    kept = meta if isinstance(meta, Mapping) else {}
    found = (values.get("cfg"), kept.get("config"), kept.get("cfg"))
    # the readers of configurations expect Unix line ends
    return next((re.sub(r"\r\n?", "\n", text) for text in found if isinstance(text, str)), "")


def without_prefix(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove the prefix of a wrapper (DataParallel's `module.`, PySlowFast's `model.`) if all keys have it."""
    for prefix in ("module.", "model."):
        if values and all(name.startswith(prefix) for name in values):
            values = {name.removeprefix(prefix): value for name, value in values.items()}
    return values

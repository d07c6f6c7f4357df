"""Weight files of this and other projects, read and written by name (`nlnet.weights.projects.table` has the names).

A file is recognised by its keys. Every key of it is accounted for: a weight under our name, bookkeeping (momentum,
counters, an optimiser's state), or unmatched, which makes loading fail. What the keys cannot say and the source
fixes (padding, strides, where a block pools) comes along as options of `create_model`, each with its reason.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.models.options import OPTIONS
from nlnet.weights.formats.caffe2 import read_blobs
from nlnet.weights.formats.safetensors import is_safetensors, read_safetensors
from nlnet.weights.formats.torch import dictionaries, is_torch, read_torch
from nlnet.weights.keymap import check_numbers
from nlnet.weights.projects.project import Settings, has_blocks
from nlnet.weights.projects.table import SOURCES

STATE_KEYS = ("state_dict", "model_state", "model")
"""Where projects keep the weights among other things."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A weight file, in our names."""

    tensors: dict[str, Tensor]
    """By our keys; kernels of a 2-D network have four axes."""
    source: str
    """A name of `SOURCES`."""
    settings: Settings
    """Options of `create_model` that the source or the tensors fix, with the reason."""
    unmatched: dict[str, Tensor]
    """By the file's keys: weights that have no name with us."""
    bookkeeping: tuple[str, ...]
    """Keys of the file that hold no weights."""
    config: Mapping[str, Any] | None = None
    """The run's configuration in a file of nlnet."""
    classes: tuple[str, ...] | None = None
    """Class names in a file of nlnet."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings' values."""
        return {name: value for name, (value, _) in self.settings.items()}

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that must find a place, for `load_weights`: what is unmatched stands under the file's key."""
        return self.tensors | self.unmatched

    @property
    def statistics(self) -> tuple[Any, Any] | None:
        """Mean and deviation of RGB in [0, 1] that the network saw; None where nobody says."""
        if self.source != "nlnet":
            return SOURCES[self.source].statistics
        data = (self.config or {}).get("data", {})
        return (data["mean"], data["std"]) if {"mean", "std"} <= data.keys() else None

    @property
    def stills(self) -> bool:
        """Whether this is a network of images, whose kernels inflate and whose options are not a video's."""
        conv1 = self.tensors.get("conv1.weight")
        return conv1 is not None and conv1.ndim == 4 and self.source != "mmaction2"


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file's content, whatever its format."""

    values: Mapping[str, Any]
    beside: tuple[str, ...] = ()
    """What stands beside the state dict."""
    text: str = ""
    metadata: Mapping[str, str] | None = None


def read_weights(
    origin: Path | str | Mapping[str, Any],
    *,
    source: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Weights:
    """Read a weight file of any project in `SOURCES`, or a state dict.

    Args:
        origin: a Caffe2 pickle, a torch file, a .safetensors file, a run directory of nlnet, or what such a file
            holds, by name.
        source: the project, where its keys alone do not say it (`slowfast_pkl`, else taken for `caffe2`).
        options: options of `create_model` that are known better than from the file.

    Raises:
        WeightsError: not a file that can be read safely; no weights in it; an unknown source or option.
        FileNotFoundError: no such file.
    """
    file = _File(values=origin) if isinstance(origin, Mapping) else _read(Path(origin))
    if source is not None and source not in SOURCES:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(SOURCES)}")
    unknown = [name for name in options or {} if name not in OPTIONS]
    if unknown:
        raise WeightsError(f"option {unknown[0]!r}: expected one of {', '.join(OPTIONS)}")
    values = without_prefix(file.values)
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    chosen, which = recognise(tensors, source)
    found = SOURCES[chosen]
    known, left = found.keymaps[which].read(tensors)
    known = {name: _shaped(name, value) for name, value in known.items()}
    check_numbers(known, found.keymaps[which].pairs)
    others = [*left, *(name for name in values if name not in tensors)]
    bookkeeping = [name for name in others if found.bookkeeping(name, values)]
    strange = [name for name in others if name not in bookkeeping and name not in tensors]
    if strange:
        raise WeightsError(f"{strange[0]!r} is a {type(values[strange[0]]).__name__}, expected a tensor")
    config, classes = _ours(file.metadata or {})
    settings: Settings = {}
    if "conv1.weight" in known:
        settings = found.options(known, which, file.text)
    settings |= visible(known, chosen)
    if config is not None:
        settings |= {k: (v, "in the file") for k, v in config["model"].items() if k in OPTIONS}
    settings |= {name: (value, "given") for name, value in (options or {}).items()}
    settings = found.following(known, settings) | settings
    return Weights(
        tensors=known,
        source=chosen,
        settings=settings,
        unmatched={name: tensors[name] for name in left if name not in bookkeeping},
        bookkeeping=(*bookkeeping, *file.beside),
        config=config,
        classes=classes,
    )


def recognise(tensors: Mapping[str, Tensor], source: str | None = None) -> tuple[str, int]:
    """The source whose names fit most keys, and which of its key maps; `nlnet` if none fits any."""
    sources = SOURCES if source is None else {source: SOURCES[source]}
    fits = {
        (name, which): sum(key in keymap.ours for key in tensors)
        for name, found in sources.items()
        for which, keymap in enumerate(found.keymaps)
    }
    best = max(fits, key=lambda candidate: fits[candidate])
    conv1 = tensors.get("conv1.weight")
    if best[0] == "nlnet" and source is None and conv1 is not None and conv1.ndim == 4:
        return "torchvision", 0
    return best


def visible(tensors: Mapping[str, Tensor], source: str) -> Settings:
    """The options that keys and shapes show. Without statistics, only foreign norms are surely affine."""
    settings: Settings = {}
    if "bn1.running_mean" in tensors:
        settings["norm"] = ("batch", "the norms have running statistics")
    elif "bn1.weight" in tensors and source != "nlnet":
        settings["norm"] = ("affine", "the norms have no running statistics")
    if not has_blocks(tensors):
        return settings
    parts = {key.split(".nonlocal_block.")[1] for key in tensors if ".nonlocal_block." in key}
    if "norm.running_mean" in parts:
        settings["nonlocal_norm"] = ("batch", "the blocks' norms have running statistics")
    elif source != "nlnet" or "norm.weight" not in parts:
        kind = "affine" if "norm.weight" in parts else "none"
        settings["nonlocal_norm"] = (kind, "the blocks' norms have no running statistics")
    settings["out_bias"] = ("W_z.bias" in parts, "whether W_z has a bias")
    if "w_f" in parts:
        settings["pairwise"] = ("concatenation", "the blocks have w_f")
    elif "theta.weight" not in parts:
        settings["pairwise"] = ("gaussian", "the blocks have no θ")
    return settings


def without_prefix(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same without the name of a wrapper (`module.`, PySlowFast's `model.`) that stands before every key."""
    for prefix in ("module.", "model."):
        if values and all(name.startswith(prefix) for name in values):
            values = {name.removeprefix(prefix): value for name, value in values.items()}
    return values


def _shaped(name: str, value: Tensor) -> Tensor:
    """A classifier as a matrix and w_f as a vector, which some projects hold as 1×1×1 convolutions."""
    if name.endswith("w_f"):
        return value.reshape(-1)
    if name == "fc.weight" and value.ndim > 2:
        return value.reshape(value.shape[0], -1)
    return value


def _read(path: Path) -> _File:
    if path.is_dir():
        path = path / "checkpoints" / "last.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected weights")
    if is_safetensors(path):
        tensors, metadata = read_safetensors(path)
        return _File(values=tensors, metadata=metadata)
    if not is_torch(path):
        return _File(values=read_blobs(path), text=path.name)
    values = _dictionary(path, read_torch(path))
    for key in STATE_KEYS:
        if isinstance(values.get(key), Mapping):
            beside = tuple(name for name in values if name != key)
            text = f"{_configuration(values)}\n{path.name}"
            return _File(values=_dictionary(path, values[key]), beside=beside, text=text)
    return _File(values=values, text=path.name)


def _ours(metadata: Mapping[str, str]) -> tuple[dict[str, Any] | None, tuple[str, ...] | None]:
    """The configuration and class names that a file of nlnet carries."""
    if "config" not in metadata:
        return None, None
    try:
        config, classes = json.loads(metadata["config"]), json.loads(metadata["classes"])
        if isinstance(config["model"], dict) and all(isinstance(name, str) for name in classes):
            return config, tuple(classes)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise WeightsError("the file's metadata are not a configuration and class names of nlnet; write it anew")


def _dictionary(path: Path, values: object) -> Mapping[str, Any]:
    try:
        return dictionaries(values)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _configuration(values: Mapping[str, Any]) -> str:
    """The configuration that PySlowFast (`cfg`) and OpenMMLab (`meta`) keep beside the weights, as text."""
    meta = values.get("meta")
    kept = meta if isinstance(meta, Mapping) else {}
    found = (values.get("cfg"), kept.get("config"), kept.get("cfg"))
    return next((re.sub(r"\r\n?", "\n", text) for text in found if isinstance(text, str)), "")

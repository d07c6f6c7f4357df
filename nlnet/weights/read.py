"""Read weight files of nlnet and other projects (`PROJECTS`), and rename their keys to ours.

A file is recognised by its keys. Every key of it is accounted for: a weight under our name, bookkeeping (momentum,
counters, an optimiser's state), or unmatched, which makes loading fail. What the keys do not show and the project's
code determines (padding, strides, where a block pools) is returned as options of `create_model`, each with its reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.models.options import OPTIONS
from nlnet.weights.file_content import FileContent, read_file, without_prefix
from nlnet.weights.keymap import check_values
from nlnet.weights.projects import PROJECTS
from nlnet.weights.projects.project import Settings, has_blocks


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of a file under our keys, and everything else that the file holds."""

    tensors: dict[str, Tensor] = field(repr=False)
    """Our key → weight; kernels of a 2-D network have four axes."""
    source: str
    """The project, a name of `PROJECTS`."""
    settings: Settings
    """Options of `create_model` that the project or the tensors fix, each with the reason."""
    unmatched: dict[str, Tensor] = field(repr=False)
    """The file's key → weight, for keys that our networks do not have."""
    bookkeeping: tuple[str, ...]
    """Keys of the file that hold no weights."""
    config: Mapping[str, Any] | None = None
    """The run's configuration, in a file of nlnet."""
    classes: tuple[str, ...] | None = None
    """Class names, in a file of nlnet."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings without their reasons."""
        return {name: value for name, (value, _) in self.settings.items()}

    @property
    def state(self) -> dict[str, Tensor]:
        """All tensors that `load_weights` has to account for; the unmatched ones have the file's keys."""
        return self.tensors | self.unmatched

    @property
    def statistics(self) -> tuple[Any, Any] | None:
        """Mean and standard deviation of RGB in [0, 1] with which the network was trained; None if unknown."""
        if self.source != "nlnet":
            return PROJECTS[self.source].statistics
        data = (self.config or {}).get("data", {})
        return (data["mean"], data["std"]) if {"mean", "std"} <= data.keys() else None

    @property
    def is_image_network(self) -> bool:
        """Whether this is a 2-D network of images, whose kernels inflate and whose options do not hold for videos."""
        conv1 = self.tensors.get("conv1.weight")
        # mmaction2's C2D has 2-D kernels too, but is a network of videos
        return conv1 is not None and conv1.ndim == 4 and self.source != "mmaction2"


def read_weights(
    origin: Path | str | Mapping[str, Any],
    *,
    source: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Weights:
    """Read the weights of a network from a file of nlnet or of another project, or from a state dict.

    The other projects are Caffe2 (the paper's release), PySlowFast, PyTorchVideo, mmaction2 and torchvision; the
    project is recognised by the file and its keys.

        model = nlnet.create_model("c2d_mini_nl1")
        weights = nlnet.read_weights(model.state_dict())   # or a path
        weights.source, weights.options

    Args:
        origin: a Caffe2 pickle, a torch file, a .safetensors file, a run directory of nlnet, or the state dict of such
            a file.
        source: the project, where its keys alone do not tell it (`slowfast_pkl`, which has the keys of `caffe2`).
        options: options of `create_model` that win over those of the file.

    Raises:
        WeightsError: not a file that can be read safely; no weights in it; an unknown source or option.
        FileNotFoundError: no such file.
    """
    file = FileContent(values=origin) if isinstance(origin, Mapping) else read_file(Path(origin))
    if source is not None and source not in PROJECTS:
        raise WeightsError(f"source: got {source!r}, expected one of {', '.join(PROJECTS)}")
    unknown = [name for name in options or {} if name not in OPTIONS]
    if unknown:
        raise WeightsError(f"option {unknown[0]!r}: expected one of {', '.join(OPTIONS)}")
    values = without_prefix(file.values)
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    name, index = recognise(tensors, source)
    project = PROJECTS[name]
    known, left = project.keymaps[index].read(tensors)
    known = {key: _reshaped(key, value) for key, value in known.items()}
    check_values(known, project.keymaps[index].pairs)
    others = [*left, *(key for key in values if key not in tensors)]
    bookkeeping = [key for key in others if project.bookkeeping(key, values)]
    strange = [key for key in others if key not in bookkeeping and key not in tensors]
    if strange:
        raise WeightsError(f"{strange[0]!r} is a {type(values[strange[0]]).__name__}, expected a tensor")
    config, classes = _run_metadata(file.metadata or {})
    # From the least to the most certain: what the project determines, what the tensors show, our own configuration in the
    # file, and the caller. Derived options come last, since they depend on the others, but replace none of them.
    settings: Settings = {}
    if "conv1.weight" in known:
        settings = project.options(known, index, file.text)
    settings |= shown_options(known, name)
    if config is not None:
        settings |= {k: (v, "in the file") for k, v in config["model"].items() if k in OPTIONS}
    settings |= {option: (value, "given") for option, value in (options or {}).items()}
    settings = project.derived(known, settings) | settings
    return Weights(
        tensors=known,
        source=name,
        settings=settings,
        unmatched={key: tensors[key] for key in left if key not in bookkeeping},
        bookkeeping=(*bookkeeping, *file.beside),
        config=config,
        classes=classes,
    )


def recognise(tensors: Mapping[str, Tensor], source: str | None = None) -> tuple[str, int]:
    """Return the project whose key names match most keys, and the index of its key map; `nlnet` if none matches."""
    candidates = PROJECTS if source is None else {source: PROJECTS[source]}
    fits = {
        (name, index): sum(key in keymap.ours for key in tensors)
        for name, project in candidates.items()
        for index, keymap in enumerate(project.keymaps)
    }
    best = max(fits, key=lambda candidate: fits[candidate])  # ties go to the first
    # torchvision has our names, but 2-D kernels
    conv1 = tensors.get("conv1.weight")
    if best[0] == "nlnet" and source is None and conv1 is not None and conv1.ndim == 4:
        return "torchvision", 0
    return best


def shown_options(tensors: Mapping[str, Tensor], source: str) -> Settings:
    """The options of `create_model` that keys and shapes show.

    A norm without running statistics is a frozen affine layer in another project's file. In ours it can be a group
    norm or layer norm as well, so the option is left open.
    """
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


def _reshaped(key: str, value: Tensor) -> Tensor:
    """Reshape a classifier to a matrix and w_f to a vector; some projects store them as 1×1×1 convolutions."""
    if key.endswith("w_f"):
        return value.reshape(-1)
    if key == "fc.weight" and value.ndim > 2:
        return value.reshape(value.shape[0], -1)
    return value


def _run_metadata(metadata: Mapping[str, str]) -> tuple[dict[str, Any] | None, tuple[str, ...] | None]:
    """The configuration and class names that a file of nlnet carries; (None, None) without them."""
    if "config" not in metadata:
        return None, None
    try:
        config, classes = json.loads(metadata["config"]), json.loads(metadata["classes"])
        if isinstance(config["model"], dict) and all(isinstance(name, str) for name in classes):
            return config, tuple(classes)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise WeightsError(
        "the file's metadata is not a configuration and class names of nlnet; save the checkpoint again"
    )

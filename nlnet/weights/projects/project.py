"""What is said of a project whose weight files are read and written: its names, and what makes the logits its own.

Keys and shapes say what a file holds; what they cannot say (strides, padding of pool1, where a non-local block
pools, its temperature) each project fixes in its code. `Source.options` are those points as `create_model`'s
options, each with the reason (docs/paper.md says which of them the paper has).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.weights.keymap import KeyMap

Settings = dict[str, tuple[Any, str]]
"""Option → (value, why)."""
ASSUMED_PAIRWISE = ("embedded_gaussian", "assumed: the keys do not say; else give pairwise=dot_product")
RELEASE_STATISTICS = (0.45, 0.225)
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Source:
    """One project's files."""

    title: str
    keymaps: tuple[KeyMap, ...]
    """The first is the one that is written."""
    options: Callable[[Mapping[str, Tensor], int, str], Settings]
    """From our tensors, the key map's place in `keymaps`, and the file's text (its configuration, or its name)."""
    following: Callable[[Mapping[str, Tensor], Settings], Settings] = lambda tensors, settings: {}
    """Options that follow from other ones, once all of these are known, the given ones too."""
    statistics: tuple[Any, Any] = RELEASE_STATISTICS
    """Mean and deviation of RGB in [0, 1] that its networks see."""
    bookkeeping: Callable[[str, Mapping[str, Any]], bool] = lambda name, file: False
    """Whether a key without a counterpart belongs there and holds no weight."""


def residual_modules(
    conv: str, norm: str, short: str, short_norm: str, letters: tuple[str, ...]
) -> dict[str, str]:
    """The modules of a residual block; `{n}` in `conv` and `norm` is the letter of the convolution."""
    named = {}
    for number, letter in enumerate(letters, start=1):
        named[f"layer{{L}}.{{B}}.conv{number}"] = conv.replace("{n}", letter)
        named[f"layer{{L}}.{{B}}.bn{number}"] = norm.replace("{n}", letter)
    return named | {"layer{L}.{B}.downsample.0": short, "layer{L}.{B}.downsample.1": short_norm}


def block_modules(theta: str, phi: str, g: str, out: str, norm: str) -> dict[str, str]:
    """The modules of a non-local block."""
    names = {"theta": theta, "phi": phi, "g": g, "W_z": out, "norm": norm}
    return {f"layer{{L}}.{{B}}.nonlocal_block.{ours}": theirs for ours, theirs in names.items()}


def has_blocks(tensors: Mapping[str, Tensor]) -> bool:
    return any(".nonlocal_block." in key for key in tensors)


def stages_with_blocks(tensors: Mapping[str, Tensor]) -> list[int]:
    """The stages that have one, counted from 0 (res2)."""
    return sorted({int(key[5]) - 1 for key in tensors if re.match(r"layer\d\.\d+\.nonlocal_block\.", key)})


def unsupported(setting: str, got: object, expected: object) -> WeightsError:
    """A setting in a file's configuration that makes it another network than we can build."""
    return WeightsError(f"{setting} in the file's configuration: got {got}, expected {expected}")

"""A project whose weight files we read and write: the names of its keys, and the options that its code determines.

Keys and shapes tell most of what a file holds. The rest (strides, padding of pool1, where a non-local block pools,
its scale) is determined by each project's code: `Project.options` returns it as options of `create_model`, each
with the reason (docs/paper.md says which of them the paper has).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.weights.keymap import KeyMap

Settings = dict[str, tuple[Any, str]]
"""Option → (value, reason)."""
ASSUMED_PAIRWISE = (
    "embedded_gaussian",
    "assumed: the keys do not say; for the dot product give pairwise=dot_product",
)
RELEASE_STATISTICS = (0.45, 0.225)
"""Mean and standard deviation of RGB in [0, 1], the same for each channel."""
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project whose weight files are read and written."""

    title: str
    """Its name in messages."""
    keymaps: tuple[KeyMap, ...]
    """One for each layout of its networks."""
    options: Callable[[Mapping[str, Tensor], int, str], Settings]
    """Called with our tensors, the index in `keymaps` and the file's text: its configuration and name."""
    derived: Callable[[Mapping[str, Tensor], Settings], Settings] = lambda tensors, settings: {}
    """Options that follow from others, computed once these are known, the user's included."""
    statistics: tuple[Any, Any] = RELEASE_STATISTICS
    """Mean and standard deviation by which its networks normalise RGB in [0, 1]."""
    bookkeeping: Callable[[str, Mapping[str, Any]], bool] = lambda name, file: False
    """Whether a key that is not in the key map holds no weight but momentum, a counter or the like."""


def residual_modules(
    conv: str, norm: str, short: str, short_norm: str, letters: tuple[str, ...]
) -> dict[str, str]:
    """Map our modules of a residual block to theirs; each of `letters` replaces `{n}` in `conv` and `norm`."""
    named = {}
    for number, letter in enumerate(letters, start=1):
        named[f"layer{{L}}.{{B}}.conv{number}"] = conv.replace("{n}", letter)
        named[f"layer{{L}}.{{B}}.bn{number}"] = norm.replace("{n}", letter)
    return named | {"layer{L}.{B}.downsample.0": short, "layer{L}.{B}.downsample.1": short_norm}


def nonlocal_modules(theta: str, phi: str, g: str, out: str, norm: str) -> dict[str, str]:
    """Map our modules of a non-local block to theirs; `out` is their name of W_z."""
    names = {"theta": theta, "phi": phi, "g": g, "W_z": out, "norm": norm}
    return {f"layer{{L}}.{{B}}.nonlocal_block.{ours}": theirs for ours, theirs in names.items()}


def has_blocks(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the network has non-local blocks."""
    return any(".nonlocal_block." in key for key in tensors)


def stages_with_blocks(tensors: Mapping[str, Tensor]) -> list[int]:
    """Stages that have non-local blocks, counted from 0 (res2)."""
    return sorted({int(key[5]) - 1 for key in tensors if re.match(r"layer\d\.\d+\.nonlocal_block\.", key)})


def unsupported(setting: str, got: object, expected: object) -> WeightsError:
    """Make the error for a configuration setting that our networks cannot have."""
    return WeightsError(f"{setting} in the file's configuration: got {got}, expected {expected}")

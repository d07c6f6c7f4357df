"""Which network a weight file holds, read off its keys and shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nlnet.errors import WeightsError
from nlnet.models.names import SCALES, places


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network's name for `create_model`, and what goes with it."""

    name: str
    num_classes: int | None
    """None without a classifier."""
    stage: str | None
    where: tuple[str, ...] | None
    """Places of the blocks, where they are not the name's usual ones."""


def architecture_of(tensors: Mapping[str, Tensor]) -> Architecture:
    """The network of a state dict in our names.

    Raises:
        WeightsError: no conv1, or stages, widths or a number of blocks that no name stands for.
    """
    if "conv1.weight" not in tensors:
        raise WeightsError(
            "no network's weights: there is no conv1 in the keys of nlnet, the release, PySlowFast, "
            f"PyTorchVideo, mmaction2 or torchvision; got {', '.join(list(tensors)[:4]) or 'no keys'}"
        )
    for key, value in tensors.items():
        axes = (4, 5) if re.search(r"conv\d\.weight$", key) else (2,) if key == "fc.weight" else ()
        if axes and (value.ndim not in axes or not value.numel()):
            expected = " or ".join(map(str, axes))
            raise WeightsError(f"{key} has shape {tuple(value.shape)}, expected {expected} axes, none empty")
    scale = _scale(tensors)
    kind, where = added_blocks(tensors)
    classifier = tensors.get("fc.weight")
    name, stage, unusual = f"{_net(tensors)}_{scale}", None, None
    if kind is not None:
        if len(where) not in (1, 5, 10):
            raise WeightsError(f"{len(where)} blocks at {', '.join(where)}: names are for 1, 5 or 10 blocks")
        name += f"_{kind}{len(where)}"
        stage, unusual = usual(scale, where)
    return Architecture(
        name=name,
        num_classes=None if classifier is None else classifier.shape[0],
        stage=stage,
        where=unusual,
    )


def _scale(tensors: Mapping[str, Tensor]) -> str:
    found = {(int(m[1]), int(m[2])) for key in tensors if (m := re.match(r"layer(\d)\.(\d+)\.conv1\.", key))}
    blocks = tuple(
        sum(layer == number for layer, _ in found) for number in sorted({layer for layer, _ in found})
    )
    width, kernel = tensors["conv1.weight"].shape[0], tensors["conv1.weight"].shape[-1]
    for name, scale in SCALES.items():
        if (scale.blocks, scale.width, scale.stem_kernel) == (blocks, width, kernel):
            return name
    raise WeightsError(
        f"no network has stages of {blocks} blocks, width {width} and a {kernel}×{kernel} conv1"
    )


def _net(tensors: Mapping[str, Tensor]) -> str:
    conv1, conv2 = tensors["conv1.weight"], tensors.get("layer1.0.conv2.weight")
    if conv1.ndim == 4 or conv1.shape[2] == 1:
        return "c2d"
    return "i3d333" if conv2 is not None and conv2.shape[2] == 3 else "i3d"


def added_blocks(tensors: Mapping[str, Tensor]) -> tuple[str | None, tuple[str, ...]]:
    """Whether the blocks are non-local ("nl"), their control ("rb") or not there, and after which modules."""
    for kind, child in (("nl", "nonlocal_block"), ("rb", "control")):
        found = {m[1] for key in tensors if (m := re.match(rf"(layer\d\.\d+)\.{child}\.", key))}
        if found:
            return kind, tuple(sorted(found, key=lambda path: tuple(map(int, path[5:].split(".")))))
    return None, ()


def usual(scale: str, where: tuple[str, ...]) -> tuple[str | None, tuple[str, ...] | None]:
    """(stage, None) where the name's own places are these, else (None, the places)."""
    stages = [None] + ([f"res{n + 2}" for n in range(len(SCALES[scale].blocks))] if len(where) == 1 else [])
    for stage in stages:
        try:
            if tuple(places(scale, len(where), stage)) == where:
                return stage, None
        except ValueError:  # a number of blocks that this depth has no places for
            continue
    return None, where

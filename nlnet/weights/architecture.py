"""Recognise the network whose weights a file holds, by the keys and shapes of its state dict."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nlnet.errors import NlnetError, WeightsError
from nlnet.models.names import SCALES, block_positions


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The name of a network for `create_model`, and the options that its state dict shows."""

    name: str
    num_classes: int | None
    """None without a classifier."""
    stage: str | None
    """The stage of a single block, where it is not the default one."""
    where: tuple[str, ...] | None
    """Modules after which the blocks are, where neither the name nor a stage gives these positions."""


def architecture_of(tensors: Mapping[str, Tensor]) -> Architecture:
    """Recognise the network of a state dict that has our keys.

    Raises:
        WeightsError: no conv1, or stages, widths or a number of blocks that no name stands for.
    """
    if "conv1.weight" not in tensors:
        raise WeightsError(
            "not a known network: expected a key for conv1, by its name in nlnet, the Caffe2 release, "
            f"PySlowFast, PyTorchVideo, mmaction2 or torchvision; got {', '.join(list(tensors)[:4]) or 'no keys'}"
        )
    # the checks below read channels and kernel sizes off these shapes
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
            raise WeightsError(
                f"the network has {len(where)} added blocks, after {', '.join(where)}; expected 1, 5 or 10"
            )
        name += f"_{kind}{len(where)}"
        stage, unusual = stage_or_where(scale, where)
    return Architecture(
        name=name,
        num_classes=None if classifier is None else classifier.shape[0],
        stage=stage,
        where=unusual,
    )


def _scale(tensors: Mapping[str, Tensor]) -> str:
    """The part of the name that stands for depth, width and stem ("r50")."""
    found = {(int(m[1]), int(m[2])) for key in tensors if (m := re.match(r"layer(\d)\.(\d+)\.conv1\.", key))}
    blocks = tuple(
        sum(layer == number for layer, _ in found) for number in sorted({layer for layer, _ in found})
    )
    width, kernel = tensors["conv1.weight"].shape[0], tensors["conv1.weight"].shape[-1]
    for name, scale in SCALES.items():
        if (scale.blocks, scale.width, scale.stem_kernel) == (blocks, width, kernel):
            return name
    raise WeightsError(
        f"no known network has stages of {blocks} residual blocks, width {width} and a {kernel}×{kernel} conv1"
    )


def _net(tensors: Mapping[str, Tensor]) -> str:
    """The part of the name that stands for the inflation ("i3d"), from the kernels' sizes in time."""
    conv1, conv2 = tensors["conv1.weight"], tensors.get("layer1.0.conv2.weight")
    if conv1.ndim == 4 or conv1.shape[2] == 1:
        return "c2d"
    return "i3d333" if conv2 is not None and conv2.shape[2] == 3 else "i3d"


def added_blocks(tensors: Mapping[str, Tensor]) -> tuple[str | None, tuple[str, ...]]:
    """Return the kind of the added blocks and the modules that they follow.

    The kind is "nl" for non-local blocks, "rb" for the residual control, None without blocks.
    """
    for kind, child in (("nl", "nonlocal_block"), ("rb", "control")):
        found = {m[1] for key in tensors if (m := re.match(rf"(layer\d\.\d+)\.{child}\.", key))}
        if found:
            # by numbers: layer3.10 comes after layer3.9
            return kind, tuple(sorted(found, key=lambda path: tuple(map(int, path[5:].split(".")))))
    return None, ()


def stage_or_where(scale: str, where: tuple[str, ...]) -> tuple[str | None, tuple[str, ...] | None]:
    """The options `stage` and `where` of `create_model` that put the blocks after these modules.

    (None, None) if these are the name's own positions, (stage, None) if they are those of a stage, else (None, where).
    """
    stages = [None] + ([f"res{n + 2}" for n in range(len(SCALES[scale].blocks))] if len(where) == 1 else [])
    for stage in stages:
        try:
            if tuple(block_positions(scale, len(where), stage)) == where:
                return stage, None
        except NlnetError:  # a number of blocks that this depth has no positions for
            continue
    return None, where

"""Which network a weight file holds, read off its keys and shapes, and that network built."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nlnet.models.checkpoints import Weights
from nlnet.models.count import Skeleton
from nlnet.models.inflate import LoadReport, WeightsError, load_weights
from nlnet.models.resnet import VideoResNet
from nlnet.models.zoo import SCALES, create_model, places
from nlnet.norms import fold_batch_norms
from nlnet.surgery import nonlocal_blocks


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
    kind, where = _blocks(tensors)
    classifier = tensors.get("fc.weight")
    name, stage, unusual = f"{_net(tensors)}_{scale}", None, None
    if kind is not None:
        if len(where) not in (1, 5, 10):
            raise WeightsError(f"{len(where)} blocks at {', '.join(where)}: names are for 1, 5 or 10 blocks")
        name += f"_{kind}{len(where)}"
        stage, unusual = _usual(scale, where)
    return Architecture(
        name=name,
        num_classes=None if classifier is None else classifier.shape[0],
        stage=stage,
        where=unusual,
    )


def network_of(
    weights: Weights, *, num_classes: int | None = None, options: Mapping[str, Any] | None = None
) -> tuple[VideoResNet, LoadReport]:
    """The network that `weights` are the weights of, with them in it: its logits are the source's own.

    Args:
        num_classes: of the classifier, for weights that have none.
        options: of `create_model`, against what the source fixes.

    Raises:
        WeightsError: see `architecture_of`; a key on either side without a counterpart.
    """
    found = architecture_of(weights.tensors)
    model = create_model(
        found.name,
        num_classes=num_classes or found.num_classes or 400,
        **({"stage": found.stage, "where": found.where} | weights.options | dict(options or {})),
    )
    missing = () if found.num_classes else ("fc.*",)
    return model, load_weights(model, fold_batch_norms(model, weights.state), may_miss=missing)


def differences(model: VideoResNet, weights: Weights) -> list[str]:
    """Points in which `model` computes something else than the foreign network that `weights` come from.

    Loading by name cannot see them; weights that are fine-tuned may bear them, weights that are tested may not.
    """
    if weights.source == "nlnet" or weights.stills or "conv1.weight" not in weights.tensors:
        return []
    found = architecture_of(weights.tensors)
    with Skeleton():
        theirs = create_model(found.name, stage=found.stage, where=found.where, **weights.options)
    points = [
        ("stride of conv1", theirs.conv1.stride, model.conv1.stride),
        ("pool1", str(theirs.pool1), str(model.pool1)),
        ("pool2", str(theirs.pool2), str(model.pool2)),
    ]
    own = nonlocal_blocks(model)
    for path, block in nonlocal_blocks(theirs).items():
        if path in own:
            mine = own[path].settings()
            points += [
                (f"{path} {name}", value, mine[name])
                for name, value in block.settings().items()
                if name in ("pairwise", "axis", "subsample", "groups", "pool_position", "scale")
            ]
    return [f"{name} {there} there, {here} here" for name, there, here in points if there != here]


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


def _blocks(tensors: Mapping[str, Tensor]) -> tuple[str | None, tuple[str, ...]]:
    """Whether the blocks are non-local ("nl"), their control ("rb") or not there, and after which modules."""
    for kind, child in (("nl", "nonlocal_block"), ("rb", "control")):
        found = {m[1] for key in tensors if (m := re.match(rf"(layer\d\.\d+)\.{child}\.", key))}
        if found:
            return kind, tuple(sorted(found, key=lambda path: tuple(map(int, path[5:].split(".")))))
    return None, ()


def _usual(scale: str, where: tuple[str, ...]) -> tuple[str | None, tuple[str, ...] | None]:
    """(stage, None) where the name's own places are these, else (None, the places)."""
    stages = [None] + ([f"res{n + 2}" for n in range(len(SCALES[scale].blocks))] if len(where) == 1 else [])
    for stage in stages:
        try:
            if tuple(places(scale, len(where), stage)) == where:
                return stage, None
        except ValueError:  # a number of blocks that this depth has no places for
            continue
    return None, where

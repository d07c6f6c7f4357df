"""In what a network computes something else than the one that weights come from: what loading by name cannot see."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.insertion.insert import nonlocal_blocks
from nlnet.layers.norms import FrozenAffine
from nlnet.models.flops import Skeleton
from nlnet.models.resnet import VideoResNet
from nlnet.weights.architecture import architecture_of
from nlnet.weights.read import Weights
from nlnet.zoo import create_model

SETTINGS = ("pairwise", "axis", "subsample", "groups", "pool_position", "scale")
"""Of a block."""


def differences(model: VideoResNet, weights: Weights) -> list[str]:
    """Points in which `model` computes something else, in evaluation, than the network that `weights` come from.

    Weights that are fine-tuned may bear them, weights that are tested may not. Weights of ours that say nothing of
    their configuration are taken at their word.
    """
    silent = weights.source == "nlnet" and weights.config is None
    if silent or weights.stills or "conv1.weight" not in weights.tensors:
        return []
    found = architecture_of(weights.tensors)
    with Skeleton():
        theirs = create_model(found.name, stage=found.stage, where=found.where, **weights.options)
    points: list[tuple[str, Any, Any]] = [
        ("stride of conv1", theirs.conv1.stride, model.conv1.stride),
        ("pool1", str(theirs.pool1), str(model.pool1)),
        ("pool2", str(theirs.pool2), str(model.pool2)),
        ("norm", *_norms(theirs.bn1, model.bn1)),
    ]
    own = nonlocal_blocks(model)
    for path, block in nonlocal_blocks(theirs).items():
        if path in own:
            mine, settings = own[path].settings(), block.settings()
            points += [(f"{path} {name}", settings[name], mine[name]) for name in SETTINGS]
            points.append(("nonlocal_norm", *_norms(block.norm, own[path].norm)))
    lines = [f"{name} {there} there, {here} here" for name, there, here in points if there != here]
    return list(dict.fromkeys(lines))


def _norms(theirs: nn.Module, mine: nn.Module) -> tuple[str, str]:
    """The two norms by what they compute in evaluation: a batch norm folds into an affine layer."""
    there, here = _norm(theirs), _norm(mine)
    return ("affine", "affine") if (there, here) == ("batch", "affine") else (there, here)


def _norm(module: nn.Module) -> str:
    if isinstance(module, _BatchNorm):
        return "batch"
    if isinstance(module, nn.GroupNorm):
        return "layer" if module.num_groups == 1 else "group"
    return "affine" if isinstance(module, FrozenAffine) else "none"

"""Compare a network with the one that its weights come from: find what loading by name does not detect."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.insertion.insert import nonlocal_blocks
from nlnet.layers.norms import FrozenAffine
from nlnet.models.flops import ShapesOnly
from nlnet.models.resnet import VideoResNet
from nlnet.weights.architecture import architecture_of
from nlnet.weights.read import Weights
from nlnet.zoo import create_model

SETTINGS = ("pairwise", "axis", "subsample", "groups", "pool_position", "scale")
"""Settings of a block that change what it computes, but not the names and shapes of its weights."""


def differences(model: VideoResNet, weights: Weights) -> list[str]:
    """List what `model` computes differently, in evaluation, from the network that `weights` come from.

    "norm is group instead of affine": `model` has group norm, the other network affine. Differences do not prevent
    fine-tuning, but make a test of the weights meaningless. Empty if nothing is known about the other network: weights
    of an image network, of a part of a network, or our own without a configuration.
    """
    unknown = weights.source == "nlnet" and weights.config is None
    if unknown or weights.is_image_network or "conv1.weight" not in weights.tensors:
        return []
    found = architecture_of(weights.tensors)
    with ShapesOnly():  # its settings are compared, not its weights
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
    lines = [f"{name} is {here} instead of {there}" for name, there, here in points if there != here]
    return list(dict.fromkeys(lines))


def _norms(theirs: nn.Module, mine: nn.Module) -> tuple[str, str]:
    """The kinds of the two norms, taken as equal if they compute the same in evaluation."""
    there, here = _norm(theirs), _norm(mine)
    # loading folds the batch norms of the weights into the affine layers of the model (`fold_batch_norms`)
    return ("affine", "affine") if (there, here) == ("batch", "affine") else (there, here)


def _norm(module: nn.Module) -> str:
    """The kind of a norm, as `create_norm` names it; "sync" is "batch"."""
    if isinstance(module, _BatchNorm):
        return "batch"
    if isinstance(module, nn.GroupNorm):
        return "layer" if module.num_groups == 1 else "group"
    return "affine" if isinstance(module, FrozenAffine) else "none"

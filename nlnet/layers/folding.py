"""Batch norms folded into the weights before them: the same function in evaluation, with fewer layers.

Letters: C channels in, D channels out; m, v, γ, β a norm's running mean and variance, scale and shift.
"""

from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.errors import WeightsError
from nlnet.layers.norms import EPS, FrozenAffine

Network = TypeVar("Network", bound=nn.Module)


def fold(model: Network) -> Network:
    """Copy a network for inference, with its norms folded into the convolutions before them.

    Batch norms and frozen affines that follow a convolution become part of its weight and bias (`folded`), which saves
    a pass over every map. Logits are those of `model.eval()` but for rounding: in float32 they agree to 1e-5 of the
    largest. Norms of other kinds stay. The copy is in evaluation mode; its state dict has other keys than `model`, so
    it is not meant to be trained or saved.

    A norm counts as following a convolution if it is the next child of the same module, as in `VideoResNet`.
    """
    copy = deepcopy(model).eval()
    for parent in list(copy.modules()):
        children = list(parent.named_children())
        for (_, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv3d) and isinstance(norm, _BatchNorm | FrozenAffine):
                weight, bias = folded(convolution.weight, convolution.bias, norm)
                convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
                # the child keeps its name, because the network's forward calls it
                setattr(parent, name, nn.Identity())
    return copy.requires_grad_(False)


def folded(
    weight: Float[Tensor, "D C *kernel"], bias: Float[Tensor, "D"] | None, norm: "_BatchNorm | FrozenAffine"
) -> tuple[Float[Tensor, "D C *kernel"], Float[Tensor, "D"]]:
    """Weight and bias of the one convolution that equals a convolution followed by a norm, in evaluation.

    w' = s w and b' = s (b − m) + β. For batch norm s = γ/√(v + eps); for the frozen affine s is its weight, β its
    bias, and m = 0. s and b' are computed in float64 and rounded once.
    """
    if isinstance(norm, FrozenAffine):
        scale, shift = norm.weight.double(), norm.bias.double()
    else:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        shift = shift if norm.bias is None else shift + norm.bias.double()
    if bias is not None:
        shift = shift + bias.double() * scale
    shape = (-1,) + (1,) * (weight.ndim - 1)
    return weight * scale.view(shape).to(weight.dtype), shift.to(weight.dtype)


def fold_batch_norms(
    model: nn.Module, weights: Mapping[str, Tensor], *, eps: float = EPS
) -> dict[str, Tensor]:
    """Convert the batch norms of a state dict to the frozen affine layers that `model` has under the same names.

    w' = γ/√(v + eps), b' = β − m·w': in evaluation the outputs stay those of the network with batch norms (release:
    `modify_caffe2_ftvideo.py`). Weights without running statistics under such a name are affine already and stay
    as they are.

    Raises:
        WeightsError: a norm of the weights has a running mean but not all of variance, weight and bias.
    """
    folded = dict(weights)
    for path, module in model.named_modules():
        if not isinstance(module, FrozenAffine) or f"{path}.running_mean" not in weights:
            continue
        names = {name: f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
        absent = [key for key in names.values() if key not in weights]
        if absent:
            raise WeightsError(
                f"weights: {path}.running_mean comes without {', '.join(absent)}; expected weight, bias, running_mean and "
                "running_var of a batch norm"
            )
        weight, bias, mean, variance = (weights[key].double() for key in names.values())
        scale = weight / (variance + eps).sqrt()
        dtype = weights[names["weight"]].dtype
        folded[names["weight"]] = scale.to(dtype)
        folded[names["bias"]] = (bias - mean * scale).to(dtype)
        # an affine layer has no such keys, and loading reports every key without a counterpart
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            folded.pop(f"{path}.{name}", None)
    return folded

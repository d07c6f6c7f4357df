"""Networks for inference: every batch norm folded into the convolution before it."""

from copy import deepcopy
from itertools import pairwise

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.layers.norms import FrozenAffine, folded
from nlnet.models.resnet import VideoResNet


def fold(model: VideoResNet) -> VideoResNet:
    """A copy in evaluation mode whose norms are gone; the model itself stays as it is.

    Batch norms and frozen affines after a convolution become part of its weight and bias, w' = s w and
    b' = s (b − m) + β: a pass over every map less. Logits are those of `model.eval()` but for rounding: in float32
    they agree to 1e-5 of the largest. Norms of other kinds stay. The copy is no network to train or to save: its
    keys are others.
    """
    copy = deepcopy(model).eval()
    for parent in list(copy.modules()):
        children = list(parent.named_children())
        for (_, convolution), (name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv3d) and isinstance(norm, _BatchNorm | FrozenAffine):
                weight, bias = folded(convolution.weight, convolution.bias, norm)
                convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
                setattr(parent, name, nn.Identity())
    return copy.requires_grad_(False)

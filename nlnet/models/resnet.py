"""C2D and I3D: residual networks for video, as in the release of Non-local Neural Networks.

One class covers the 2-D network for images (clips of one frame), C2D, I3D 3×1×1 and I3D 3×3×3, at every depth and
width. Parameters have the names of torchvision's ResNets, so that ImageNet weights can be inflated by name
(`nlnet.weights.load`). Non-local blocks are inserted by `nlnet.insert_nonlocal`; this file has none.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nlnet.axes import max_pool3d
from nlnet.errors import NlnetError, did_you_mean
from nlnet.layers.conv3d import Convolution
from nlnet.layers.norms import create_norm, untracked_statistics

Inflation = Literal["none", "3x1x1", "3x3x3"]
Padding = Literal["released", "padded", "paper", "mmaction2"]
EXPANSION = 4
"""Outer channels of a bottleneck for each inner channel."""

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The frames of a clip and the temporal strides of a network (from the release's two architecture files)."""

    frames: int
    """Frames of a training clip."""
    stride: int
    """Distance between two frames of a clip, in frames of the video."""
    conv1_stride: int
    """Temporal stride of conv1."""
    pool1_stride: int
    """Temporal kernel and stride of pool1."""


TIMINGS = {
    "32x2": Timing(frames=32, stride=2, conv1_stride=2, pool1_stride=2),
    "128x1": Timing(frames=128, stride=1, conv1_stride=2, pool1_stride=2),
    "8x8": Timing(frames=8, stride=8, conv1_stride=1, pool1_stride=1),
    "32x4": Timing(frames=32, stride=4, conv1_stride=1, pool1_stride=1),
}


def inflated(stage: int, index: int) -> bool:
    """Whether residual block `index` (from 0) of `res{stage}` has a temporal kernel in an I3D of the release.

    All blocks of res2 have one, every second block of res3 and res4 (0, 2, …), and the odd blocks of res5. The paper
    says "one kernel for every 2 residual blocks" (§4.1).
    """
    if stage == 2:
        return True
    return index % 2 == (1 if stage == 5 else 0)


class MaxPool(nn.Module):
    """Max pooling that does not pool time if there is only one frame, so that images can be network inputs."""

    def __init__(self, kernel: Triple, stride: Triple, padding: Triple = (0, 0, 0)) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def settings(self, frames: int) -> tuple[Triple, Triple, Triple]:
        """Kernel, stride and padding for a map with `frames` frames."""
        if frames > 1:
            return self.kernel, self.stride, self.padding
        return (1, *self.kernel[1:]), (1, *self.stride[1:]), (0, *self.padding[1:])

    def forward(self, x: Tensor) -> Tensor:
        return max_pool3d(x, *self.settings(x.shape[2]))

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


def convolution(in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """Create a convolution without bias that keeps the size at stride 1, with He initialisation over the fan-out."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = Convolution(in_channels, out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Bottleneck(nn.Module):
    """A residual block, ReLU(x + BN(1×1×1(ReLU(BN(1×3×3(ReLU(BN(k×1×1 x)))))))), with the spatial stride on the 3×3.

    The last BN starts with γ = 0, as in the release, so that an untrained block is ReLU(shortcut).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int = 1,
        inflation: Inflation = "none",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        first = 3 if inflation == "3x1x1" else 1
        second = 3 if inflation == "3x3x3" else 1
        self.conv1 = convolution(in_channels, width, (first, 1, 1))
        self.bn1 = create_norm(norm, width, ndim=3)
        self.conv2 = convolution(width, width, (second, 3, 3), (1, stride, stride))
        self.bn2 = create_norm(norm, width, ndim=3)
        self.conv3 = convolution(width, out_channels, (1, 1, 1))
        self.bn3 = create_norm(norm, out_channels, ndim=3, zero_init=True)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                convolution(in_channels, out_channels, (1, 1, 1), (1, stride, stride)),
                create_norm(norm, out_channels, ndim=3),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut  # in place: no gradient needs the output of bn3
        return self.relu(x)


class VideoResNet(nn.Module):
    """A residual network for (B, 3, T, H, W) clips: conv1, pool1, res2, pool2, res3, res4[, res5], average, fc.

    Args:
        blocks: residual blocks per stage, from res2 on; (3, 4, 6, 3) is R50, (3, 4, 23, 3) is R101.
        inflation: "none" is C2D; "3x1x1" and "3x3x3" are the two I3Ds (Table 2e), with a 5×k×k conv1.
        timing: the temporal strides (`TIMINGS`).
        padding: how pool1 and pool2 pad. "released": not at all (res2 is 55×55 at 224); "padded": pool1 by
            (0, 1, 1) (56×56, as in the ports); "paper": Table 1 taken literally, with kernels 3×3×3 and 3×1×1;
            "mmaction2": "padded" with a 1×3×3 kernel in pool1, whose stride in time then skips frames.
        pool2: whether pool2 halves the number of frames after res2 (the "nopool" networks of the ports have none).
        num_classes: K.
        dropout: probability before the classifier, in training.
        norm: a kind of `nlnet.layers.norms.create_norm`.
        width: channels of conv1; stage s has 2^(s-2)·width inner and four times as many outer channels.
        stem_kernel: spatial kernel of conv1.
        stem_pool: whether there is a pool1 (a small network may have none).

    Raises:
        NlnetError: an unknown inflation or padding, not one to four stages, or an empty stage.

    Source: Table 1 and §4.1 of the paper; the released architecture where the two differ (docs/paper.md).
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        inflation: Inflation = "none",
        timing: Timing = TIMINGS["32x2"],
        padding: Padding = "released",
        pool2: bool = True,
        num_classes: int = 400,
        dropout: float = 0.5,
        norm: str = "batch",
        width: int = 64,
        stem_kernel: int = 7,
        stem_pool: bool = True,
    ) -> None:
        super().__init__()
        _check("inflation", inflation, get_args(Inflation))
        _check("padding", padding, get_args(Padding))
        if not 1 <= len(blocks) <= 4 or min(blocks) < 1:
            raise NlnetError(
                f"blocks: got {tuple(blocks)}, expected one to four stages of at least one block"
            )
        self.conv1 = convolution(
            3,
            width,
            (
                1 if inflation == "none" else 5,
                stem_kernel,
                stem_kernel,
            ),  # the I3Ds of the release have a temporal kernel of 5
            (timing.conv1_stride, 2, 2),
        )
        self.bn1 = create_norm(norm, width, ndim=3)
        self.relu = nn.ReLU(inplace=True)
        self.pool1 = _pool1(timing.pool1_stride, padding) if stem_pool else nn.Identity()
        self.pool2 = _pool2(padding) if pool2 else nn.Identity()
        channels = width
        self.stages: list[str] = []
        for number, count in enumerate(blocks, start=1):
            inner = width * 2 ** (number - 1)
            stage = nn.Sequential()
            for index in range(count):
                block = Bottleneck(
                    channels,
                    inner,
                    inner * EXPANSION,
                    stride=2 if number > 1 and index == 0 else 1,
                    inflation=inflation if inflated(number + 1, index) else "none",
                    norm=norm,
                )
                stage.add_module(str(index), block)
                channels = inner * EXPANSION
            self.add_module(f"layer{number}", stage)
            self.stages.append(f"layer{number}")
        self.checkpointing = False
        """Activation checkpointing: save only the inputs of the stem and of residual blocks, and recompute the rest for
        the gradient."""
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)  # as in the release
        nn.init.zeros_(self.fc.bias)

    def stem(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B C t h w"]:
        """The map that is the input of res2."""
        return self.pool1(self.relu(self.bn1(self.conv1(x))))

    def features(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B C t h w"]:
        """The map after the last stage."""
        recomputes = self.checkpointing and torch.is_grad_enabled()
        x = recomputed(self.stem, x, self.bn1) if recomputes else self.stem(x)
        for name in self.stages:
            stage = self.get_submodule(name)
            if recomputes:
                for block in stage.children():
                    x = recomputed(block, x, block)
            else:
                x = stage(x)
            if name == "layer1":
                x = self.pool2(x)
        return x

    def forward(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B K"]:
        """Class logits from the mean over all positions."""
        return self.fc(self.dropout(self.features(x).mean(dim=(2, 3, 4))))

    def dense_logits(self, x: Float[Tensor, "B 3 T H W"], window: Triple) -> Float[Tensor, "B K t h w"]:
        """Logits at every position of a window that slides over the last map: fully convolutional testing.

        `window` is the size (t, h, w) of the last map for a training clip (`window_of`), the stride is 1: a 256 crop
        and a network trained at 224 give a 2×2 grid of logits. Average the softmax over the grid, not the logits.
        """
        pooled = F.avg_pool3d(self.features(x), window, stride=1)
        # nn.Linear works on the last axis: as a 1×1×1 convolution, without another set of weights
        return self.fc(self.dropout(pooled).movedim(1, -1)).movedim(-1, 1)


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, norms: nn.Module) -> Tensor:
    """run(x) with activation checkpointing: autograd saves x only, and calls `run` again for the gradient.

    The second run has the random numbers and the autocast of the first, and does not change the running statistics of
    `norms`. `run` is called as a module, so that its hooks, and with them a non-local block, run as well.
    """
    y: Tensor = checkpoint(
        run, x, use_reentrant=False, context_fn=lambda: (nullcontext(), untracked_statistics(norms))
    )
    return y


def window_of(model: VideoResNet, clip: Triple) -> Triple:
    """The size (t, h, w) of the last map for a clip of (T, H, W), computed from the layers' settings.

    Raises:
        NlnetError: a clip that is too small for the network.
    """
    # only these layers change the size; in a stage it is the 3×3 of the first block, which has the stride
    layers: list[nn.Module] = [model.conv1, model.pool1]
    for name in model.stages:
        layers.append(model.get_submodule(f"{name}.0.conv2"))
        if name == "layer1":
            layers.append(model.pool2)
    size = clip
    for layer in layers:
        if isinstance(layer, MaxPool):
            size = _output_size(size, *layer.settings(size[0]))
        elif isinstance(layer, nn.Conv3d):
            size = _output_size(size, layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]
    if min(size) < 1:
        raise NlnetError(
            f"a clip of {clip} (frames, rows, columns) is too small for this network: its last map would be {size}, "
            "expected 1 or more along each axis; take a larger crop"
        )
    return size


def _output_size(size: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    t, h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return t, h, w


def _pool1(stride: int, padding: Padding) -> MaxPool:
    if padding == "paper":
        # Table 1 pools time by 3 with stride 2; where time has stride 1 in pool1 it is not pooled
        return MaxPool((3 if stride == 2 else 1, 3, 3), (stride, 2, 2), (1 if stride == 2 else 0, 1, 1))
    kernel = (1 if padding == "mmaction2" else stride, 3, 3)
    return MaxPool(kernel, (stride, 2, 2), (0, 0, 0) if padding == "released" else (0, 1, 1))


def _pool2(padding: Padding) -> MaxPool:
    if padding == "paper":
        return MaxPool((3, 1, 1), (2, 1, 1), (1, 0, 0))
    return MaxPool((2, 1, 1), (2, 1, 1))


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = did_you_mean(value, allowed, most=1)
        raise NlnetError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}{near}")

"""C2D and I3D residual networks on video, as the release of Non-local Neural Networks builds them.

One class serves the 2-D network on stills (a clip of one frame), C2D, I3D 3×1×1, I3D 3×3×3, and every
depth and width. Parameter names are torchvision's ResNet names, so that ImageNet weights inflate by name
(`nlnet.weights.load`). The class knows nothing of non-local blocks: `nlnet.insert_nonlocal` puts them in.

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
from nlnet.layers.conv3d import Convolution
from nlnet.layers.norms import create_norm, untracked_statistics

Inflation = Literal["none", "3x1x1", "3x3x3"]
Padding = Literal["released", "padded", "paper", "mmaction2"]
EXPANSION = 4

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How a network samples and shortens time (the release's two architecture files)."""

    frames: int
    """Frames of a training clip."""
    stride: int
    """Distance between them in the video, in frames."""
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
    """Whether residual block `index` of `res{stage}` has a temporal kernel in an I3D of the release.

    All of res2, every second block of res3 and res4 (0, 2, …), and only the odd blocks of res5. The paper
    says "one kernel for every 2 residual blocks" (§4.1).
    """
    if stage == 2:
        return True
    return index % 2 == (1 if stage == 5 else 0)


class MaxPool(nn.Module):
    """Max pooling that leaves time alone where there is only one frame, so that a still passes."""

    def __init__(self, kernel: Triple, stride: Triple, padding: Triple = (0, 0, 0)) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def settings(self, frames: int) -> tuple[Triple, Triple, Triple]:
        """Kernel, stride and padding for a map of that many frames."""
        if frames > 1:
            return self.kernel, self.stride, self.padding
        return (1, *self.kernel[1:]), (1, *self.stride[1:]), (0, *self.padding[1:])

    def forward(self, x: Tensor) -> Tensor:
        return max_pool3d(x, *self.settings(x.shape[2]))

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


def convolution(in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """A convolution without bias, padded to keep the size at stride 1; He initialisation over the fan-out."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = Convolution(in_channels, out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Bottleneck(nn.Module):
    """ReLU(x + BN(1×1×1(ReLU(BN(1×3×3(ReLU(BN(k×1×1 x)))))))); the spatial stride sits on the 3×3.

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
        x += shortcut
        return self.relu(x)


class VideoResNet(nn.Module):
    """A residual network over (B, 3, T, H, W) clips: conv1, pool1, res2, pool2, res3, res4[, res5], average, fc.

    Args:
        blocks: residual blocks per stage from res2 on; (3, 4, 6, 3) is R50, (3, 4, 23, 3) is R101.
        inflation: "none" is C2D; "3x1x1" and "3x3x3" are the two I3Ds (Table 2e), with a 5×k×k conv1.
        timing: the temporal strides (`TIMINGS`).
        padding: pool1 and pool2. "released" pads nothing (res2 is 55×55 at 224); "padded" pads pool1 by
            (0, 1, 1) (56×56, the ports); "paper" is Table 1 read literally: kernels 3×3×3 and 3×1×1;
            "mmaction2" is "padded" with a pool1 that strides in time without looking: kernel 1×3×3.
        pool2: whether pool2 halves time after res2 (only the ports' "nopool" networks leave it out).
        num_classes: K.
        dropout: probability before the classifier, in training.
        norm: a kind of `nlnet.layers.norms.create_norm`.
        width: channels of conv1; stage s has 2^(s-2)·width inner and four times as many outer channels.
        stem_kernel: spatial kernel of conv1.
        stem_pool: whether pool1 exists (only a small network leaves it out).

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
            raise ValueError(
                f"blocks: got {tuple(blocks)}, expected one to four stages of at least one block"
            )
        self.conv1 = convolution(
            3,
            width,
            (1 if inflation == "none" else 5, stem_kernel, stem_kernel),
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
        """Keep the inputs of the stem and of residual blocks only, and compute the rest again for the gradient."""
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def stem(self, x: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B C t h w"]:
        """The map that enters res2."""
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
        """Logits of a window that slides over the map with stride 1: the fully convolutional test head.

        `window` is the map's size (t, h, w) at the training clip (`window_of`); a 256 crop on a network
        trained at 224 gives a 2×2 grid. Average the softmax over the grid, not the logits.
        """
        pooled = F.avg_pool3d(self.features(x), window, stride=1)
        return self.fc(self.dropout(pooled).movedim(1, -1)).movedim(-1, 1)


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, norms: nn.Module) -> Tensor:
    """run(x), of which autograd keeps x alone and computes the rest again when the gradient needs it.

    A residual block runs with its hooks, so with the non-local block attached to it. The second forward pass has
    the first one's random numbers and autocast, and does not count in the running statistics of `norms`.
    """
    y: Tensor = checkpoint(
        run, x, use_reentrant=False, context_fn=lambda: (nullcontext(), untracked_statistics(norms))
    )
    return y


def window_of(model: VideoResNet, clip: Triple) -> Triple:
    """The size (t, h, w) of the last map for a clip of (T, H, W)."""
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
        raise ValueError(
            f"a clip of {clip} (frames, rows, columns) is too small: its last map would be {size}"
        )
    return size


def _output_size(size: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Triple:
    t, h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return t, h, w


def _pool1(stride: int, padding: Padding) -> MaxPool:
    if padding == "paper":
        return MaxPool((3 if stride == 2 else 1, 3, 3), (stride, 2, 2), (1 if stride == 2 else 0, 1, 1))
    kernel = (1 if padding == "mmaction2" else stride, 3, 3)
    return MaxPool(kernel, (stride, 2, 2), (0, 0, 0) if padding == "released" else (0, 1, 1))


def _pool2(padding: Padding) -> MaxPool:
    if padding == "paper":
        return MaxPool((3, 1, 1), (2, 1, 1), (1, 0, 0))
    return MaxPool((2, 1, 1), (2, 1, 1))


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}")

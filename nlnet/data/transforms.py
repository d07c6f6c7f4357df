"""From decoded frames to the clip a network sees: scale, crop, flip on uint8; normalise on the device.

One draw a clip: every frame of a clip is scaled, cut and mirrored alike. Draws come from a `random.Random`
that the caller seeds, so a sample is a function of its seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nlnet.data.clips import crop_offsets, pick, scaled_size
from nlnet.data.protocols import Protocol, protocol_of

Scales = tuple[float | None, float | None]
AT_ONCE = 4  # frames whose scaled pixels stay in a core's cache until they are cut
MEAN, STD = 0.45, 0.225  # 114.75 and 57.375 on [0, 255], the constants of the paper's release


def resize(
    frames: UInt8[Tensor, "T H W 3"], size: tuple[int, int], scales: Scales = (None, None)
) -> UInt8[Tensor, "T h w 3"]:
    """Bilinear resize to (height, width), OpenCV's rule: pixel centres at half integers, no smoothing first.

    Two passes, each rounded to the nearest integer: off by 1 grey level at most (1.02, as weights are integers too).
    Frames that have the size already come back as they are. Pixel i lies at (i + ½)/scale − ½ of the source, where
    the scale is new/old along a side, or what `scales` says: so the first pixels of a frame are resized alone.
    """
    if frames.shape[1:3] == size:
        return frames
    if min(size) < 1:
        raise ValueError(f"a frame is resized to 1×1 or more, got {size[0]}×{size[1]}")
    planes = frames.permute(0, 3, 1, 2)
    scaled = torch.ops.aten.upsample_bilinear2d(planes, size, False, *scales)
    return scaled.permute(0, 2, 3, 1)


def leading(side: int, scaled: int, end: int) -> tuple[int, int]:
    """(source, out): a side's first `source` pixels of `side` give the first `out` ≥ `end` of all `scaled`.

    Pixel end − 1 is made of the pixels below end·side/scaled + 1. The whole side is taken where it shrinks, since the
    precision of the integer weights is chosen by the largest of them, which is 1, at the first pixel, where a side
    grows; and where source = out, which would read as nothing to do.
    """
    if scaled == side:
        return end, end
    source = min(-(-end * side // scaled) + 1, side)
    return (side, scaled) if scaled < side or source == end else (source, end)


@dataclass(frozen=True)
class Framing:
    """Which pixels of frames of `size` a clip takes: they are scaled to `scaled`, the crop×crop window that begins at
    `corner` (top, left) is cut out, and `mirrored` says whether left and right change places."""

    size: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    crop: int
    mirrored: bool

    @property
    def source(self) -> tuple[int, int]:
        """(rows, columns), from a frame's first, that hold all that the window is made of."""
        (rows, _), (columns, _) = self._leading()
        return rows, columns

    def __call__(self, frames: UInt8[Tensor, "T h w 3"]) -> UInt8[Tensor, "3 T crop crop"]:
        """The clip of frames that are whole, or cut to `source`. Its channels lie beside each other in memory."""
        (rows, high), (columns, wide) = self._leading()
        scales = self.scaled[0] / self.size[0], self.scaled[1] / self.size[1]
        (top, left), crop = self.corner, self.crop
        clip = torch.empty((len(frames), crop, crop, 3), dtype=torch.uint8)
        for part, out in zip(frames[:, :rows, :columns].split(AT_ONCE), clip.split(AT_ONCE), strict=True):
            window = resize(part, (high, wide), scales)[:, top : top + crop, left : left + crop]
            out.copy_(window.contiguous().flip(2) if self.mirrored else window)
        return clip.permute(3, 0, 1, 2)

    def _leading(self) -> list[tuple[int, int]]:
        sides = zip(self.size, self.scaled, self.corner, strict=True)
        return [leading(side, scaled, first + self.crop) for side, scaled, first in sides]


@dataclass(frozen=True)
class TrainTransform:
    """Scale jitter, random crop, mirror: the release's training transform (original code, data pipeline 4–6).

    The short side becomes an integer uniform in `scales`, both ends included; a crop×crop window is cut at a
    uniform place; the clip is mirrored with `flip_probability` if `flip`. Four draws, always in this order:
    scale, top, left, flip.
    """

    crop: int
    scales: tuple[int, int] = (256, 320)
    flip: bool = True
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scales
        if self.crop < 1 or low > high or low < self.crop:
            raise ValueError(
                f"expected 1 ≤ crop ≤ smallest scale ≤ largest scale, got crop {self.crop}, scales {self.scales}; "
                "raise the scales or lower the crop"
            )
        if not 0.0 <= self.flip_probability <= 1.0:
            raise ValueError(f"flip_probability lies in [0, 1], got {self.flip_probability}")

    def framing(self, height: int, width: int, rng: random.Random) -> Framing:
        """What is drawn for a clip of frames of this size."""
        low, high = self.scales
        scaled = scaled_size(height, width, low + pick(high - low + 1, rng.random()))
        top = pick(scaled[0] - self.crop + 1, rng.random())
        left = pick(scaled[1] - self.crop + 1, rng.random())
        mirrored = rng.random() < self.flip_probability and self.flip
        return Framing((height, width), scaled, (top, left), self.crop, mirrored)

    def __call__(
        self, frames: UInt8[Tensor, "T H W 3"], rng: random.Random
    ) -> UInt8[Tensor, "3 T crop crop"]:
        return self.framing(frames.shape[1], frames.shape[2], rng)(frames)


@dataclass(frozen=True)
class EvalTransform:
    """Short side to `short_side`, then 1 centre crop or 3 along the longer side: no randomness.

    `protocol` decides the rounding of the longer side and the places of the crops. Under `paper` the whole scaled
    frame is the one view of a clip, its shape the video's own; `crop` is then the shorter side.
    """

    crop: int
    short_side: int
    num_crops: int = 3
    protocol: Protocol = "released"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.short_side:
            raise ValueError(
                f"expected 1 ≤ crop ≤ short_side, got crop {self.crop}, short_side {self.short_side}; "
                "the released test uses 256 for both"
            )
        if self.num_crops not in (1, 3):
            raise ValueError(
                f"crops come as 1 (centre) or 3 (along the longer side), got num_crops {self.num_crops}"
            )
        if protocol_of(self.protocol).crop == "whole" and (self.crop, self.num_crops) != (self.short_side, 1):
            raise ValueError(
                f"protocol {self.protocol!r} takes the whole frame, so crop is short_side ({self.short_side}) and "
                f"num_crops 1, got crop {self.crop}, num_crops {self.num_crops}"
            )

    def scale(self, frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "T h w 3"]:
        """The resize alone, for callers that share scaled frames among clips."""
        rounding = protocol_of(self.protocol).scaled
        return resize(frames, scaled_size(frames.shape[1], frames.shape[2], self.short_side, rounding))

    def crops(self, frames: UInt8[Tensor, "T h w 3"]) -> list[UInt8[Tensor, "T th tw 3"]]:
        """The crops of frames that `scale` made: views of them, not copies."""
        reach = protocol_of(self.protocol).crop
        if reach == "whole":
            return [frames]
        places = crop_offsets(frames.shape[1], frames.shape[2], self.crop, self.num_crops, reach)
        return [frames[:, top : top + self.crop, left : left + self.crop] for top, left in places]

    def __call__(self, frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "crops 3 T th tw"]:
        return torch.stack(self.crops(self.scale(frames))).permute(0, 4, 1, 2, 3)


def normalize(
    clips: UInt8[Tensor, "B 3 T H W"],
    mean: float | Sequence[float] = MEAN,
    std: float | Sequence[float] = STD,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B 3 T H W"]:
    """(x/255 − mean)/std, on the device the clips are on; computed in float32, returned in `dtype`.

    `mean` and `std` are on [0, 1]: one number for all channels, or three (red, green, blue).
    """
    shift, scale = (_per_channel(name, value, clips.device) for name, value in (("mean", mean), ("std", std)))
    if min([std] if isinstance(std, int | float) else std) <= 0:
        raise ValueError(f"std is above 0, got {std}")
    return clips.to(torch.float32).div_(255).sub_(shift).div_(scale).to(dtype)


def _per_channel(name: str, value: float | Sequence[float], device: torch.device) -> Tensor:
    numbers = torch.tensor(value, dtype=torch.float32)
    if numbers.shape not in ((), (3,)):
        raise ValueError(f"{name} is one number or three (red, green, blue), got {value}")
    return numbers.to(device).reshape(-1, 1, 1, 1)

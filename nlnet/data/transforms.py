"""Training and test transforms: scale, crop and flip uint8 frames on the CPU; normalise clips on the device.

All frames of a clip get the same scale, crop and flip. Random numbers come from a `random.Random` that the caller
seeds, so a sample is a function of its seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nlnet.data.clips import crop_offsets, pick, scaled_size
from nlnet.data.protocols import Protocol, protocol_of
from nlnet.errors import NlnetError

Scales = tuple[float | None, float | None]
CHUNK_FRAMES = 4
"""Frames scaled at a time: few enough that their scaled pixels are still in a core's cache when they are cropped."""
MEAN, STD = 0.45, 0.225
"""The constants of the paper's release: 114.75 and 57.375 on [0, 255]."""


def resize(
    frames: UInt8[Tensor, "T H W 3"], size: tuple[int, int], scales: Scales = (None, None)
) -> UInt8[Tensor, "T h w 3"]:
    """Bilinear resize to (height, width) by OpenCV's rule: pixel centres at half integers, no antialiasing.

    Two passes, each rounded to the nearest integer: off by at most 1 grey level (1.02, since weights are integers too).
    Frames that already have the size are returned as they are. Output pixel i lies at (i + ½)/scale − ½ in the source.
    The scale is new/old along a side unless `scales` gives it: then frames may be the first rows and columns of larger
    frames, and the result is the same part of the resized larger frames.
    """
    if frames.shape[1:3] == size:
        return frames
    if min(size) < 1:
        raise NlnetError(f"the size of a resized frame must be 1×1 or more, got {size[0]}×{size[1]}")
    # permuted, not copied: torch has a fast uint8 kernel for the memory layout channels last
    planes = frames.permute(0, 3, 1, 2)
    scaled = torch.ops.aten.upsample_bilinear2d(planes, size, False, *scales)
    return scaled.permute(0, 2, 3, 1)


def source_pixels(side: int, scaled: int, end: int) -> tuple[int, int]:
    """How much of a side, from its start, must be resized to get the first `end` pixels of the result.

    Returns (source, out): the first `source` of `side` pixels, resized alone, give the first `out` ≥ `end` of `scaled`
    pixels. Output pixel end − 1 depends on the pixels below end·side/scaled + 1. The whole side is taken in two cases:
    - it shrinks: the kernel chooses the precision of its integer weights by the largest weight. Where a side grows,
      that is the weight 1 of the first pixel, which every part contains; where it shrinks, a part may have another;
    - source = out: `resize` would take the part for frames that already have the size.
    """
    if scaled == side:
        return end, end
    source = min(-(-end * side // scaled) + 1, side)  # −(−a // b) is ⌈a/b⌉
    return (side, scaled) if scaled < side or source == end else (source, end)


@dataclass(frozen=True)
class ScaleCropFlip:
    """The scale, crop and flip drawn for one training clip.

    Frames of `size` are scaled to `scaled`; the crop×crop window whose (top, left) is `corner` is cut out, and flipped
    horizontally if `flipped`.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    crop: int
    flipped: bool

    @property
    def source(self) -> tuple[int, int]:
        """(rows, columns) of the top-left part of a frame that contains every pixel needed for the crop."""
        (rows, _), (columns, _) = self._source_pixels()
        return rows, columns

    def __call__(self, frames: UInt8[Tensor, "T h w 3"]) -> UInt8[Tensor, "3 T crop crop"]:
        """Scale, crop and flip frames, whole or cut to `source`, into a clip in channels-last memory layout."""
        (rows, high), (columns, wide) = self._source_pixels()
        # the scale of the whole frame: computed from the part's size, it would shift every pixel
        scales = self.scaled[0] / self.size[0], self.scaled[1] / self.size[1]
        (top, left), crop = self.corner, self.crop
        clip = torch.empty((len(frames), crop, crop, 3), dtype=torch.uint8)
        parts = frames[:, :rows, :columns].split(CHUNK_FRAMES)
        for part, out in zip(parts, clip.split(CHUNK_FRAMES), strict=True):
            window = resize(part, (high, wide), scales)[:, top : top + crop, left : left + crop]
            out.copy_(window.contiguous().flip(2) if self.flipped else window)
        return clip.permute(3, 0, 1, 2)

    def _source_pixels(self) -> list[tuple[int, int]]:
        sides = zip(self.size, self.scaled, self.corner, strict=True)
        return [source_pixels(side, scaled, first + self.crop) for side, scaled, first in sides]


@dataclass(frozen=True)
class TrainTransform:
    """Scale jitter, random crop and horizontal flip: the training transform of the paper's release.

    The shorter side is scaled to an integer uniform in `scales`, both ends included; a crop×crop window is cut at a
    uniform position; the clip is flipped with `flip_probability` if `flip`. Always four draws, in this order:
    scale, top, left, flip.
    """

    crop: int
    scales: tuple[int, int] = (256, 320)
    flip: bool = True
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scales
        if self.crop < 1 or low > high or low < self.crop:
            raise NlnetError(
                f"expected 1 ≤ crop ≤ smallest scale ≤ largest scale, got crop {self.crop}, scales {self.scales}; "
                "raise the scales or lower the crop"
            )
        if not 0.0 <= self.flip_probability <= 1.0:
            raise NlnetError(f"flip_probability must lie in [0, 1], got {self.flip_probability}")

    def draw(self, height: int, width: int, rng: random.Random) -> ScaleCropFlip:
        """Draw scale, crop and flip for a clip of frames of this size."""
        low, high = self.scales
        scaled = scaled_size(height, width, low + pick(high - low + 1, rng.random()))
        top = pick(scaled[0] - self.crop + 1, rng.random())
        left = pick(scaled[1] - self.crop + 1, rng.random())
        # the number is drawn even without `flip`, so that later draws of this generator do not depend on the option
        flipped = rng.random() < self.flip_probability and self.flip
        return ScaleCropFlip((height, width), scaled, (top, left), self.crop, flipped)

    def __call__(
        self, frames: UInt8[Tensor, "T H W 3"], rng: random.Random
    ) -> UInt8[Tensor, "3 T crop crop"]:
        return self.draw(frames.shape[1], frames.shape[2], rng)(frames)


@dataclass(frozen=True)
class EvalTransform:
    """Scale the shorter side to `short_side`, then cut 1 centre crop or 3 crops along the longer side: no randomness.

    `protocol` decides the rounding of the longer side and the offsets of the crops. Under `paper` the whole scaled
    frame is the only view of a clip, and its shape differs from video to video; `crop` then equals `short_side`.
    """

    crop: int
    short_side: int
    num_crops: int = 3
    protocol: Protocol = "released"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.short_side:
            raise NlnetError(
                f"expected 1 ≤ crop ≤ short_side, got crop {self.crop}, short_side {self.short_side}; "
                "the released test uses 256 for both"
            )
        if self.num_crops not in (1, 3):
            raise NlnetError(
                f"num_crops must be 1 (centre) or 3 (along the longer side), got {self.num_crops}"
            )
        if protocol_of(self.protocol).crop == "whole" and (self.crop, self.num_crops) != (self.short_side, 1):
            raise NlnetError(
                f"protocol {self.protocol!r} takes the whole frame: crop must be short_side ({self.short_side}) and "
                f"num_crops 1, got crop {self.crop}, num_crops {self.num_crops}"
            )

    def scale(self, frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "T h w 3"]:
        """Scale frames without cropping, for callers that share scaled frames among clips."""
        rounding = protocol_of(self.protocol).rounding
        return resize(frames, scaled_size(frames.shape[1], frames.shape[2], self.short_side, rounding))

    def crops(self, frames: UInt8[Tensor, "T h w 3"]) -> list[UInt8[Tensor, "T th tw 3"]]:
        """The crops of scaled frames, as slices that share their memory."""
        placement = protocol_of(self.protocol).crop
        if placement == "whole":
            return [frames]
        offsets = crop_offsets(frames.shape[1], frames.shape[2], self.crop, self.num_crops, placement)
        return [frames[:, top : top + self.crop, left : left + self.crop] for top, left in offsets]

    def __call__(self, frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "crops 3 T th tw"]:
        return torch.stack(self.crops(self.scale(frames))).permute(0, 4, 1, 2, 3)


def normalize(
    clips: UInt8[Tensor, "B 3 T H W"],
    mean: float | Sequence[float] = MEAN,
    std: float | Sequence[float] = STD,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B 3 T H W"]:
    """Normalise clips to (x/255 − mean)/std on their device; computed in float32, returned in `dtype`.

    `mean` and `std` refer to pixels in [0, 1]: one number for all channels, or three (red, green, blue).
    """
    shift, scale = (_per_channel(name, value, clips.device) for name, value in (("mean", mean), ("std", std)))
    if min([std] if isinstance(std, int | float) else std) <= 0:
        raise NlnetError(f"std must be above 0, got {std}")
    return clips.to(torch.float32).div_(255).sub_(shift).div_(scale).to(dtype)


def _per_channel(name: str, value: float | Sequence[float], device: torch.device) -> Tensor:
    numbers = torch.tensor(value, dtype=torch.float32)
    if numbers.shape not in ((), (3,)):
        raise NlnetError(f"{name} must be one number or three (red, green, blue), got {value}")
    return numbers.to(device).reshape(-1, 1, 1, 1)

"""From decoded frames to the clip a network sees: scale, crop, flip on uint8; normalise on the device.

One draw a clip: every frame of a clip is scaled, cut and mirrored alike. Draws come from a `random.Random`
that the caller seeds, so a sample is a function of its seed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nlnet.data.clips import crop_offsets, pick, scaled_size
from nlnet.data.protocols import Protocol, protocol_of

MEAN, STD = 0.45, 0.225  # 114.75 and 57.375 on [0, 255], the constants of the paper's release


def resize(frames: UInt8[Tensor, "T H W 3"], size: tuple[int, int]) -> UInt8[Tensor, "T h w 3"]:
    """Bilinear resize to (height, width), OpenCV's rule: pixel centres at half integers, no smoothing first.

    Two passes, each rounded to the nearest integer: off by 1 grey level at most (1.02, as weights are integers too).
    Frames that have the size already come back as they are.
    """
    if frames.shape[1:3] == size:
        return frames
    if min(size) < 1:
        raise ValueError(f"a frame is resized to 1×1 or more, got {size[0]}×{size[1]}")
    planes = frames.permute(0, 3, 1, 2)
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def cut(frames: UInt8[Tensor, "T H W 3"], top: int, left: int, crop: int) -> UInt8[Tensor, "3 T h w"]:
    """The crop×crop window whose first pixel is (top, left), channels first. A view, not a copy."""
    return frames[:, top : top + crop, left : left + crop].permute(3, 0, 1, 2)


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

    def __call__(
        self, frames: UInt8[Tensor, "T H W 3"], rng: random.Random
    ) -> UInt8[Tensor, "3 T crop crop"]:
        low, high = self.scales
        short_side = low + pick(high - low + 1, rng.random())
        frames = resize(frames, scaled_size(frames.shape[1], frames.shape[2], short_side))
        top = pick(frames.shape[1] - self.crop + 1, rng.random())
        left = pick(frames.shape[2] - self.crop + 1, rng.random())
        clip = cut(frames, top, left, self.crop)
        mirrored = rng.random() < self.flip_probability and self.flip
        return (clip.flip(-1) if mirrored else clip).contiguous()


@dataclass(frozen=True)
class TestTransform:
    """Short side to `short_side`, then 1 centre crop or 3 along the longer side: no randomness.

    `protocol` decides the rounding of the longer side and the places of the crops. Under `paper` the whole scaled
    frame is the one view of a clip, its shape the video's own; `crop` is then the shorter side.
    """

    __test__ = False  # not a test case, whatever its name looks like to pytest

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

    def crops(self, frames: UInt8[Tensor, "T h w 3"]) -> UInt8[Tensor, "crops 3 T th tw"]:
        """The crops of frames that `scale` made."""
        reach = protocol_of(self.protocol).crop
        if reach == "whole":
            return frames.permute(3, 0, 1, 2)[None]
        places = crop_offsets(frames.shape[1], frames.shape[2], self.crop, self.num_crops, reach)
        return torch.stack([cut(frames, top, left, self.crop) for top, left in places])

    def __call__(self, frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "crops 3 T th tw"]:
        return self.crops(self.scale(frames))


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

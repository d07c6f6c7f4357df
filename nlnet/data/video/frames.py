"""The frames of a video one by one, as its decoder gives them, and gathered into one tensor."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

Pictures = Iterator[tuple[list[int], np.ndarray]]
"""(places, picture): uint8 RGB (H, W, 3), good until the next one, and where it stands among the frames asked for."""


class ToRGB:
    """Decoded frames as uint8 RGB (H, W, 3), which may be views of memory that the next frame overwrites."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        # FFmpeg would start a pool of scaling threads for every file
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def gathered(
    pictures: Pictures, count: int, part: Callable[[np.ndarray], np.ndarray] = lambda picture: picture
) -> UInt8[Tensor, "count h w 3"]:
    """`part` of every picture at its places among `count`; the rest of a picture is never kept."""
    out = np.empty((count, 0, 0, 3), dtype=np.uint8)
    for places, picture in pictures:
        piece = part(picture)
        if out.size == 0:
            out = np.empty((count, *piece.shape), dtype=np.uint8)
        for place in places:
            out[place] = piece
    return torch.from_numpy(out)

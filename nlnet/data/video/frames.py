"""Decoded frames: their conversion to RGB arrays, and stacking them into one tensor."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

FrameIterator = Iterator[tuple[list[int], np.ndarray]]
"""(rows, frame) pairs: a frame, uint8 RGB (H, W, 3), valid until the next pair, and its positions in the request."""


class ToRGB:
    """Convert decoded frames to uint8 RGB (H, W, 3) arrays, which may be views of memory that the next call overwrites."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # one for all frames: it reuses its conversion tables

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        # threads=1: else FFmpeg would start a pool of scaling threads for every file
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        # FFmpeg pads the lines of a frame: line_size bytes of memory hold 3·width bytes of pixels
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)


def stack_frames(
    frames: FrameIterator, count: int, part: Callable[[np.ndarray], np.ndarray] = lambda frame: frame
) -> UInt8[Tensor, "count h w 3"]:
    """Stack `part(frame)` of every frame into one tensor of `count` rows; whole frames are not kept."""
    out = np.empty((count, 0, 0, 3), dtype=np.uint8)
    for rows, frame in frames:
        piece = part(frame)
        if out.size == 0:  # the size is known with the first frame
            out = np.empty((count, *piece.shape), dtype=np.uint8)
        for row in rows:
            out[row] = piece
    return torch.from_numpy(out)

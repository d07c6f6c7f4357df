"""The frames of a video one by one, as its decoder gives them, and gathered into one tensor."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Pictures = Iterator[tuple[list[int], np.ndarray]]
"""(places, picture): uint8 RGB (H, W, 3), good until the next one, and where it stands among the frames asked for."""


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

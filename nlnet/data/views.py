"""The views of one test video, stored compactly: each needed frame once, and which frames and crops form a view."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data.transforms import EvalTransform
from nlnet.data.video_list import Label


@dataclass(frozen=True, eq=False)
class Views:
    """All views of one test video, or the message why the video could not be read.

    `frames` is uint8 (n, h, w, 3): each needed frame once, scaled; or None with the `failure` "path: reason; fix".
    `rows[clip]` lists the rows of `frames` that form a clip. Why: the 30 views of 32 frames of a 10 s video at 256²
    take 189 MB, the 150 frames of 256×340 that they share take 39 MB.

    V = clips × crops; view v is crop v mod crops of the clip that begins at frame starts[v // crops]. H and W are
    the crop's, or under the protocol `paper` the scaled frame's, which differ from video to video.
    """

    index: int
    frames: Tensor | None
    label: Label
    starts: tuple[int, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()
    transform: EvalTransform | None = None
    failure: str | None = None

    @property
    def clips(self) -> Tensor | None:
        """All views as one tensor, uint8 (V, 3, T, H, W)."""
        if self.frames is None:
            return None
        (views,) = self.parts(len(self.rows) * self._crops, self.frames.device)
        return views.contiguous()

    def parts(self, size: int, device: torch.device) -> Iterator[UInt8[Tensor, "v 3 T H W"]]:
        """The views in order, at most `size` at a time, cut on the device; the frames are copied to it once."""
        if self.frames is None or self.transform is None:
            raise ValueError(f"video {self.index} has no views: it could not be read ({self.failure})")
        crops = self.transform.crops(self.frames.to(device, non_blocking=True))
        rows = [torch.tensor(clip, device=device) for clip in self.rows]
        for first in range(0, len(rows) * len(crops), size):
            views = range(first, min(first + size, len(rows) * len(crops)))
            # the crops are slices that share memory; index_select copies only the frames of the view
            cut = [crops[v % len(crops)].index_select(0, rows[v // len(crops)]) for v in views]
            yield torch.stack(cut).permute(0, 4, 1, 2, 3)

    @property
    def _crops(self) -> int:
        return 0 if self.transform is None else self.transform.num_crops

    def pin_memory(self) -> "Views":
        """Copy to pinned memory; called by a DataLoader with pin_memory=True."""
        return self if self.frames is None else replace(self, frames=self.frames.pin_memory())

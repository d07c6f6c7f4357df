"""Training clips together: what could be read as one tensor, and why the rest could not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data.video_list import Label

Room = Callable[[tuple[int, ...]], Tensor]
"""uint8 memory of a shape (B, T, H, W, 3), to be written over."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A training clip, uint8 (3, T, H, W), or None with the `failure` "path: reason; fix". `index` is the video's."""

    index: int
    clip: Tensor | None
    label: Label
    failure: str | None = None


@dataclass(frozen=True)
class Failure:
    """Which video could not be read, and the "path: reason; fix" of it."""

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples that could be read: clips uint8 (B, 3, T, H, W), indices int64 (B,), in order.

    The three colours of a pixel lie beside each other in the memory of `clips`, as convolutions like it best.
    `labels` is int64 (B,), or float32 (B, K) of zeros and ones where a video has any number of the K classes; None
    when the videos have no labels. `clips` is None when not one could be read.
    """

    clips: Tensor | None
    labels: Tensor | None
    indices: Tensor
    failures: tuple[Failure, ...]

    def pin_memory(self) -> "Batch":
        """What a DataLoader with pin_memory=True calls."""
        clips = None if self.clips is None else self.clips.pin_memory()
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, clips=clips, labels=labels)


def new_room(shape: tuple[int, ...]) -> Tensor:
    """Memory of its own for every batch."""
    return torch.empty(shape, dtype=torch.uint8)


def collate(
    samples: Sequence[Sample],
    *,
    num_classes: int | None = None,
    room: Room = new_room,
) -> Batch:
    """One batch of the samples that could be read, and the failures of the others.

    Labels that are tuples of classes need `num_classes`, the width K of a multi-hot row. `room` gives the memory
    for the clips.
    """
    read = [sample for sample in samples if sample.clip is not None]
    failures = tuple(Failure(sample.index, sample.failure or "") for sample in samples if sample.clip is None)
    labels = [sample.label for sample in read if sample.label is not None]
    if labels and len(labels) != len(read):
        raise ValueError(
            f"either all videos of a batch have labels or none has, got {len(labels)} of {len(read)}"
        )
    return Batch(
        clips=_batched([sample.clip for sample in read if sample.clip is not None], room) if read else None,
        labels=_label_tensor(labels, num_classes) if labels or not read else None,
        indices=torch.tensor([sample.index for sample in read], dtype=torch.int64),
        failures=failures,
    )


def _batched(clips: Sequence[UInt8[Tensor, "3 T H W"]], room: Room) -> UInt8[Tensor, "B 3 T H W"]:
    """The clips in the memory layout that they come in, channels last."""
    last = [clip.permute(1, 2, 3, 0) for clip in clips]
    out = room((len(last), *last[0].shape))
    return torch.stack(last, out=out).permute(0, 4, 1, 2, 3)


def _label_tensor(labels: Sequence[int | tuple[int, ...]], num_classes: int | None) -> Tensor:
    """int64 (B,) of class numbers, or float32 (B, K) multi-hot of tuples of them."""
    tuples = [label for label in labels if isinstance(label, tuple)]
    if not tuples:
        return torch.tensor(labels, dtype=torch.int64)
    if len(tuples) != len(labels) or num_classes is None:
        raise ValueError(
            f"labels are all tuples of classes below num_classes, or all class numbers, got {len(tuples)} tuples of "
            f"{len(labels)} and num_classes {num_classes}"
        )
    rows = torch.zeros(len(tuples), num_classes)
    for row, label in zip(rows, tuples, strict=True):
        row[list(label)] = 1.0
    return rows

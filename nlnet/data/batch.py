"""Training batches: one tensor of the clips that could be read, and the failures of the other videos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data.video_list import Label

Allocate = Callable[[tuple[int, ...]], Tensor]
"""A function from a shape (B, T, H, W, 3) to uint8 memory of that shape, which is then overwritten."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One training sample: a clip of a video, or the message why the video could not be read.

    `index` is the video's. `clip` is uint8 (3, T, H, W), or None with the `failure` "path: reason; fix".
    """

    index: int
    clip: Tensor | None
    label: Label
    failure: str | None = None


@dataclass(frozen=True)
class Failure:
    """A video that could not be read: its index, and the message "path: reason; fix"."""

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples that could be read: clips uint8 (B, 3, T, H, W), indices int64 (B,), in order.

    The memory layout of `clips` is channels last, which convolutions are fastest with. `labels` is int64 (B,), or
    float32 (B, K) multi-hot if a video has any number of the K classes; None if the videos have no labels. `clips` is
    None if no sample could be read.
    """

    clips: Tensor | None
    labels: Tensor | None
    indices: Tensor
    failures: tuple[Failure, ...]

    def pin_memory(self) -> "Batch":
        """Copy to pinned memory; called by a DataLoader with pin_memory=True."""
        clips = None if self.clips is None else self.clips.pin_memory()
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, clips=clips, labels=labels)


def new_memory(shape: tuple[int, ...]) -> Tensor:
    """Newly allocated uint8 memory of a shape."""
    return torch.empty(shape, dtype=torch.uint8)


def collate(
    samples: Sequence[Sample],
    *,
    num_classes: int | None = None,
    allocate: Allocate = new_memory,
) -> Batch:
    """Collect the samples that could be read, and the failures of the others, in one batch.

    Labels that are tuples of classes need `num_classes`, the width K of a multi-hot row. The clips are written to the
    memory that `allocate` returns.
    """
    read = [sample for sample in samples if sample.clip is not None]
    failures = tuple(Failure(sample.index, sample.failure or "") for sample in samples if sample.clip is None)
    labels = [sample.label for sample in read if sample.label is not None]
    if labels and len(labels) != len(read):
        raise ValueError(
            f"either all videos of a batch have labels or none has, got {len(labels)} labels for {len(read)} videos"
        )
    return Batch(
        clips=_batched([sample.clip for sample in read if sample.clip is not None], allocate)
        if read
        else None,
        labels=_label_tensor(labels, num_classes) if labels or not read else None,
        indices=torch.tensor([sample.index for sample in read], dtype=torch.int64),
        failures=failures,
    )


def _batched(clips: Sequence[UInt8[Tensor, "3 T H W"]], allocate: Allocate) -> UInt8[Tensor, "B 3 T H W"]:
    """The clips as one tensor, in the memory layout that they come in, channels last."""
    # permuted so that each clip is one block of memory, which `stack` copies as it is
    last = [clip.permute(1, 2, 3, 0) for clip in clips]
    out = allocate((len(last), *last[0].shape))
    return torch.stack(last, out=out).permute(0, 4, 1, 2, 3)


def _label_tensor(labels: Sequence[int | tuple[int, ...]], num_classes: int | None) -> Tensor:
    """Labels as int64 (B,) class numbers, or as float32 (B, K) multi-hot rows if they are tuples."""
    tuples = [label for label in labels if isinstance(label, tuple)]
    if not tuples:
        return torch.tensor(labels, dtype=torch.int64)
    if len(tuples) != len(labels) or num_classes is None:
        raise ValueError(
            "labels are either all class numbers, or all tuples of class numbers below num_classes; "
            f"got {len(tuples)} tuples among {len(labels)} labels, and num_classes {num_classes}"
        )
    rows = torch.zeros(len(tuples), num_classes)
    for row, label in zip(rows, tuples, strict=True):
        row[list(label)] = 1.0
    return rows

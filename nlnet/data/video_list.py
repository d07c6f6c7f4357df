"""Labelled videos in a fixed order: what every reader of annotations gives, and all that data sets and training need."""

from dataclasses import dataclass
from pathlib import Path

Label = int | tuple[int, ...] | None
"""The index of the class; every class that the video shows, ascending, perhaps none; None where it is not known."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".asf", ".vob", ".gif"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class VideoItem:
    """One video, a file or a folder of frames, and its `Label`."""

    path: Path
    label: Label
    num_frames: int | None = None
    """How many frames the folder of frames has to hold, where the annotations say so."""
    fps: float | None = None
    """Frames a second of a folder of frames, where that is known."""


@dataclass(frozen=True)
class VideoList:
    """Videos in a fixed order, the names of the classes by index, and the folder or file they were read from.

    Either every item has a label or none has; without labels `classes` is what was passed in, or empty.
    """

    items: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    source: Path
    layout: str = "videos"
    """What `source` was read as, in words."""
    absent: tuple[VideoItem, ...] = ()
    """Videos that `source` names and the disk lacks, left out because the reader was told to."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def missing(self) -> tuple[Path, ...]:
        """Where the disk lacks them."""
        return tuple(item.path for item in self.absent)

    @property
    def multilabel(self) -> bool:
        """The labels are tuples: a video may show any number of classes."""
        return any(isinstance(item.label, tuple) for item in self.items)

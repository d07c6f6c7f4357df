"""Labelled videos in a fixed order: the result of every annotation reader, and the input of data sets and training."""

from dataclasses import dataclass
from pathlib import Path

Label = int | tuple[int, ...] | None
"""A class index; or a tuple of all class indices of the video, ascending, possibly empty; or None if unknown."""

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
    """Number of frames that a folder of frames must hold, if the annotations give it."""
    fps: float | None = None
    """Frames per second of a folder of frames, if known."""


@dataclass(frozen=True)
class VideoList:
    """Videos in a fixed order, class names by index, and the folder or file that they were read from.

    Either every item has a label or none has. Without labels, `classes` is what the caller passed in, or empty.
    """

    items: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    source: Path
    layout: str = "videos"
    """How `source` was read, for messages, such as "videos in class folders"."""
    missing_items: tuple[VideoItem, ...] = ()
    """Videos that `source` names but that are not on disk, left out because of `missing="leave_out"`."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def missing(self) -> tuple[Path, ...]:
        """The paths of `missing_items`."""
        return tuple(item.path for item in self.missing_items)

    @property
    def multilabel(self) -> bool:
        """Whether labels are tuples: a video may have any number of classes."""
        return any(isinstance(item.label, tuple) for item in self.items)

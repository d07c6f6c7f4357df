"""A folder of numbered images read as a video: `ID/ID-000001.jpg`, `clip/img_00001.jpg`, `clip/0.png`, …"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from av import CodecContext, Packet
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data.video.decode import Video
from nlnet.data.video.frames import FrameIterator, ToRGB, stack_frames
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import IMAGE_SUFFIXES, VideoItem

CODECS = {
    **dict.fromkeys((".jpg", ".jpeg"), "mjpeg"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".png": "png",
    ".bmp": "bmp",
    ".webp": "webp",
}


class FrameFolder:
    """A folder of images with the interface of `Video`. A context manager.

    Files are ordered by their number, with or without leading zeros: the first is 0 or 1, and none is missing. All have
    one file type and size. Files that are not images, and hidden files, are ignored.

    `path`; `num_frames`; `fps`, frames per second, or None if unknown. Images are decoded by FFmpeg with strict error
    detection: an image that is cut short or damaged is an error, never a frame that is half grey.

    Raises VideoError for anything that keeps the folder, or one of its frames, from being read, also if the folder does
    not hold `expected_frames` images.
    """

    def __init__(
        self, path: Path | str, *, expected_frames: int | None = None, fps: float | None = None
    ) -> None:
        self.path, self.fps = Path(path), fps
        self.files = _numbered(self.path)
        if expected_frames is not None and expected_frames != len(self.files):
            raise VideoError(
                self.path,
                f"holds {len(self.files)} frames, but the list says {expected_frames}",
                "extract the frames again or correct the list",
            )
        self._codec: VideoCodecContext = CodecContext.create(CODECS[self.files[0].suffix.lower()], "r")  # type: ignore[assignment]
        self._codec.thread_count = 1
        self._codec.options = {"err_detect": "explode"}  # else FFmpeg fills damaged parts with grey
        self._to_rgb = ToRGB()
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> "FrameFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""

    @property
    def num_frames(self) -> int:
        """Number of images."""
        return len(self.files)

    @property
    def height(self) -> int:
        """Rows of a frame. The first call decodes one."""
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        """Columns of a frame. The first call decodes one."""
        return self._shown_size()[1]

    @property
    def nbytes(self) -> int:
        """Size in bytes of all frames as `frames` returns them. The first call decodes one."""
        return self.num_frames * self.height * self.width * 3

    @property
    def duration_seconds(self) -> float | None:
        """Number of frames divided by the frame rate, in seconds; None if the rate is unknown."""
        return None if self.fps is None else self.num_frames / self.fps

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "n H W 3"]:
        """The frames with these numbers from 0, RGB, in this order. A number may occur twice; each is decoded once."""
        return stack_frames(self.iter_frames(indices), len(indices))

    def iter_frames(self, indices: Sequence[int]) -> FrameIterator:
        """Yield the frames with these numbers one by one as they are decoded (`FrameIterator`)."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise ValueError(f"{self.path} has frames 0 to {self.num_frames - 1}, got {index}")
            rows.setdefault(index, []).append(row)
        for index in sorted(rows):
            yield rows[index], self._read_frame(index)

    def verify(self) -> None:
        """Decode every frame and keep none. Raises VideoError at the first that cannot be decoded."""
        self._shown_size()  # frame 0 first: the others are compared with its size
        for index in range(self.num_frames):
            self._read_frame(index)

    def _read_frame(self, index: int) -> np.ndarray:
        """Decode one image to RGB (H, W, 3); may be a view of the decoder's memory, valid until the next call."""
        file = self.files[index]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise VideoError(file, f"cannot be read ({error.strerror})") from error
        if not data:
            raise VideoError(file, "is empty (0 bytes)")
        try:
            packet = Packet(data)
            packet.is_keyframe = (
                True  # else FFmpeg takes a PNG for an animation frame, a change to the one before
            )
            decoded = self._codec.decode(packet)
        except FFmpegError as error:
            raise VideoError(file, f"is damaged or cut short ({error.strerror})") from error
        if len(decoded) != 1:
            raise VideoError(file, f"holds {len(decoded)} images, expected 1")
        frame = self._to_rgb(decoded[0])
        size = (frame.shape[0], frame.shape[1])
        if self._size is not None and size != self._size:
            sizes = f"{size[0]}×{size[1]}, but other frames are {self._size[0]}×{self._size[1]}"
            raise VideoError(file, f"is {sizes}", "extract the frames again at one size")
        self._size = size
        return frame

    def _shown_size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        if self._size is None:
            self._read_frame(0)
        assert self._size is not None
        return self._size


def open_video(item: VideoItem) -> Video | FrameFolder:
    """Open an item's video: a `FrameFolder` if its path is a folder, else a `Video`."""
    if item.path.is_dir():
        return FrameFolder(item.path, expected_frames=item.num_frames, fps=item.fps)
    return Video(item.path)


def _numbered(path: Path) -> list[Path]:
    """The images of a folder in the order of their numbers.

    Raises VideoError unless they are one series: one prefix and file type, numbers from 0 or 1 without gap or repeat.
    """
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise VideoError(path, f"cannot be read as a folder of frames ({error.strerror})") from error
    images = sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    if not images:
        raise VideoError(path, "is a folder without images", "name a folder of frames or a video file")
    by_number: dict[int, str] = {}
    series: dict[tuple[str, str], str] = {}  # (prefix, suffix) → first file name
    for name in images:
        found = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
        if found is None:
            raise VideoError(
                path, f"the name of {name} does not end in a number", "name the frames 000001.jpg and so on"
            )
        series.setdefault((found[1], found[3]), name)
        # with a second series, equal numbers are expected: that there are two is then the error to report
        if int(found[2]) in by_number and len(series) == 1:
            raise VideoError(
                path, f"{by_number[int(found[2])]} and {name} have the same number", "remove one"
            )
        by_number[int(found[2])] = name
    if len(series) > 1:
        first, second = list(series.values())[:2]
        raise VideoError(
            path, f"holds two series of images, {first} and {second}, …", "keep one series in the folder"
        )
    begin = min(by_number)
    if begin > 1:
        raise VideoError(
            path,
            f"begins at {by_number[begin]}, but frames are numbered from 0 or 1",
            "extract the frames again or renumber them",
        )
    gap = next((k for k in range(begin, begin + len(by_number)) if k not in by_number), None)
    if gap is not None:
        before = by_number[gap - 1]
        raise VideoError(path, f"lacks frame number {gap} after {before}", "extract the frames again")
    return [path / by_number[k] for k in sorted(by_number)]

"""A video kept as a folder of numbered images: `ID/ID-000001.jpg`, `clip/img_00001.jpg`, `clip/0.png`, …"""

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
from nlnet.data.video.frames import Pictures, ToRGB, gathered
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
    """The images of a folder as a video, with the interface of `Video`. A context manager.

    Files are ordered by their number, whatever its width: the first is 0 or 1, and none is missing. All are of one
    kind and size. Other files than images, and hidden ones, are passed over.

    `path`; `num_frames`; `fps`, frames a second, or None where nobody says. Images are decoded by FFmpeg, strictly:
    one that is cut short is an error, not a picture that is half grey, and so is damage that the code cannot mean.

    Raises VideoError for anything that keeps the folder, or a frame of it, from being read; `expected_frames` other
    than what the folder holds is such.
    """

    def __init__(
        self, path: Path | str, *, expected_frames: int | None = None, fps: float | None = None
    ) -> None:
        self.path, self.fps = Path(path), fps
        self.files = _numbered(self.path)
        if expected_frames is not None and expected_frames != len(self.files):
            raise VideoError(
                self.path,
                f"holds {len(self.files)} frames where the list says {expected_frames}",
                "extract the frames again or correct the list",
            )
        self._codec: VideoCodecContext = CodecContext.create(CODECS[self.files[0].suffix.lower()], "r")  # type: ignore[assignment]
        self._codec.thread_count = 1
        self._codec.options = {"err_detect": "explode"}
        self._to_rgb = ToRGB()
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> "FrameFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between frames."""

    @property
    def num_frames(self) -> int:
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
        """Size of all frames as `frames` gives them. The first call decodes one."""
        return self.num_frames * self.height * self.width * 3

    @property
    def duration_seconds(self) -> float | None:
        """None where the frame rate is not known."""
        return None if self.fps is None else self.num_frames / self.fps

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "n H W 3"]:
        """The frames with these numbers from 0, RGB, in this order. A number may come twice; each is decoded once."""
        return gathered(self.pictures(indices), len(indices))

    def pictures(self, indices: Sequence[int]) -> Pictures:
        """The same frames as they are decoded."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise ValueError(f"{self.path} has frames 0 to {self.num_frames - 1}, got {index}")
            rows.setdefault(index, []).append(row)
        for index in sorted(rows):
            yield rows[index], self._picture(index)

    def verify(self) -> None:
        """Decode every frame and keep none. Raises VideoError at the first that cannot be had."""
        self._shown_size()
        for index in range(self.num_frames):
            self._picture(index)

    def _picture(self, index: int) -> np.ndarray:
        """RGB (H, W, 3). May be a view of the decoder's memory, good until the next call."""
        file = self.files[index]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise VideoError(file, f"cannot be read ({error.strerror})") from error
        if not data:
            raise VideoError(file, "is empty (0 bytes)")
        try:
            packet = Packet(data)
            packet.is_keyframe = True  # else FFmpeg takes a PNG for a difference from the one before
            decoded = self._codec.decode(packet)
        except FFmpegError as error:
            raise VideoError(file, f"is damaged or cut short ({error.strerror})") from error
        if len(decoded) != 1:
            raise VideoError(file, f"holds {len(decoded)} pictures where 1 was expected")
        frame = decoded[0]
        picture = self._to_rgb(frame)
        size = (picture.shape[0], picture.shape[1])
        if self._size is not None and size != self._size:
            sizes = f"{size[0]}×{size[1]}, other frames {self._size[0]}×{self._size[1]}"
            raise VideoError(file, f"is {sizes}", "extract the frames again at one size")
        self._size = size
        return picture

    def _shown_size(self) -> tuple[int, int]:
        if self._size is None:
            self._picture(0)
        assert self._size is not None
        return self._size


def open_video(item: VideoItem) -> Video | FrameFolder:
    """A video file, or a folder of frames where the item's path is a folder."""
    if item.path.is_dir():
        return FrameFolder(item.path, expected_frames=item.num_frames, fps=item.fps)
    return Video(item.path)


def _numbered(path: Path) -> list[Path]:
    """The images of a folder in the order of their numbers."""
    try:
        names = [name for name in os.listdir(path) if not name.startswith(".")]
    except OSError as error:
        raise VideoError(path, f"cannot be read as a folder of frames ({error.strerror})") from error
    images = sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    if not images:
        raise VideoError(path, "is a folder without images", "name a folder of frames or a video file")
    by_number: dict[int, str] = {}
    series: dict[tuple[str, str], str] = {}
    for name in images:
        found = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
        if found is None:
            raise VideoError(path, f"{name} has no number at its end", "name frames such as 000001.jpg")
        series.setdefault((found[1], found[3]), name)
        if int(found[2]) in by_number and len(series) == 1:
            raise VideoError(
                path, f"{by_number[int(found[2])]} and {name} have the same number", "remove one"
            )
        by_number[int(found[2])] = name
    if len(series) > 1:
        first, second = list(series.values())[:2]
        raise VideoError(
            path, f"holds two series of images, {first} and {second}, …", "keep one in the folder"
        )
    begin = min(by_number)
    if begin > 1:
        raise VideoError(path, f"begins at {by_number[begin]}; frames are numbered from 0 or 1")
    gap = next((k for k in range(begin, begin + len(by_number)) if k not in by_number), None)
    if gap is not None:
        before = by_number[gap - 1]
        raise VideoError(path, f"lacks frame number {gap}, after {before}", "extract the frames again")
    return [path / by_number[k] for k in sorted(by_number)]

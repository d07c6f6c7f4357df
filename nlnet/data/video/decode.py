"""Frames of a video by exact number, through PyAV.

The times of all frames are read once per opened file, from the packets, without decoding. A frame asked for
is reached from the keyframe that surely yields it and is recognised by its own stamp, never by a frame rate:
variable frame rates, B-frames, open GOPs and shifted starts give the right frames. (A file whose stamps are
missing or equal is decoded once through and its frames are counted.)
"""

import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from av.sidedata.sidedata import SideData
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data.video.frame_table import FrameTable, counted_table, frame_table
from nlnet.data.video.frames import Pictures, ToRGB, gathered
from nlnet.data.video.packets import PacketSource, VideoError, as_fraction

__all__ = ["Video", "VideoError"]

# Codecs in which a picture that is no reference is one for no other picture at all: those are skipped unless
# asked for. (In HEVC the mark is relative to a temporal layer, so it does not say that.)
SKIPPABLE = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
# Old MPEG-4 .avi files pack two frames in a packet and fill the gap with a placeholder of at most this size.
PLACEHOLDER_BYTES = 19

_Run = Iterator[tuple[int, VideoFrame]]  # (stamp, frame) in the order the decoder puts them out


class Video:
    """An opened video; a still image is a video of one frame. A context manager.

    Decoding takes one thread: run more processes instead. Compressed data of up to `hold_bytes` stays in memory
    while the video is open; larger files are sought in. Rotation and mirroring recorded in the file are applied;
    pixels that are not square are not stretched.

    `path`; `num_frames`; `frames_decoded`, the pictures that the decoder has put out so far.
    Raises VideoError for anything that keeps the file, or a frame of it, from being read. Damage is noticed
    where the format can tell (VP9, for one, often cannot), in the frames asked for and on the way to them.
    """

    def __init__(self, path: Path | str, *, hold_bytes: int = 64 << 20) -> None:
        self.path = Path(path)
        self.frames_decoded = 0
        self._size: tuple[int, int] | None = None
        self._to_rgb = ToRGB()
        self._source = PacketSource(self.path, hold_bytes=hold_bytes)
        try:
            self._make_table()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    @property
    def num_frames(self) -> int:
        return len(self._table.stamps)

    @property
    def height(self) -> int:
        """Rows of a frame as `frames` gives it. The first call decodes a frame."""
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        """Columns of a frame as `frames` gives it. The first call decodes a frame."""
        return self._shown_size()[1]

    @property
    def nbytes(self) -> int:
        """Size of all frames as `frames` gives them."""
        return self.num_frames * self._source.codec.height * self._source.codec.width * 3

    @property
    def times_seconds(self) -> list[float]:
        """When each frame is shown, counted from the first."""
        first = self._table.stamps[0]
        return [float((stamp - first) * self._unit) for stamp in self._table.stamps]

    @property
    def duration_seconds(self) -> float:
        """From the first frame to the end of the last."""
        return float((self._table.end - self._table.stamps[0]) * self._unit)

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "n H W 3"]:
        """The frames with these numbers, RGB, in this order. A number may come twice; each frame is decoded once."""
        return gathered(self.pictures(indices), len(indices))

    def pictures(self, indices: Sequence[int]) -> Pictures:
        """The same frames as they are decoded, all of one size."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise ValueError(f"{self.path} has frames 0 to {self.num_frames - 1}, got {index}")
            rows.setdefault(self._table.stamps[index], []).append(row)
        size: tuple[int, ...] | None = None
        for stamp, frame in self._decode(sorted(rows)):
            picture = self._picture(frame)
            size = size or picture.shape[:2]
            if picture.shape[:2] != size:
                sizes = f"{picture.shape[0]}×{picture.shape[1]} after {size[0]}×{size[1]}"
                raise VideoError(self.path, f"{self._name(stamp)} is {sizes}", "re-encode it to one size")
            yield rows[stamp], picture

    def verify(self) -> None:
        """Decode every frame and keep none. Raises VideoError at the first that cannot be had."""
        for _ in self._decode(self._table.stamps):
            pass

    def _make_table(self) -> None:
        facts, codec = self._source.facts, self._source.codec
        first = next((position for position, fact in enumerate(facts) if fact.is_keyframe), None)
        if first is None:
            raise VideoError(
                self.path, "has no frame that decoding can start from" if facts else "has no frames"
            )
        packed = codec.name == "mpeg4" and any(fact.size_bytes <= PLACEHOLDER_BYTES for fact in facts)
        table = None if packed else frame_table(facts)
        self._counting = table is None
        rate = as_fraction(self._source.stream.average_rate, Fraction(25))
        self._unit = self._source.time_base if table else 1 / rate
        self._table = table or counted_table(len(facts), first)
        if table is None:
            self._table = counted_table(len(self._decodable(self._table)), first)
        elif leading := set(table.leading()):
            self._table = table.without(leading.difference(self._decodable(table, until=table.starts[0][0])))
        if not self._table.stamps:
            raise VideoError(self.path, "has no frame that can be decoded")

    def _decodable(self, table: FrameTable, until: int | None = None) -> list[int]:
        """The stamps that really come out of the decoder from the first keyframe on, up to `until`."""
        stamps = []
        for stamp, frame in self._run(table.starts[0]):
            if until is not None and stamp >= until:
                break
            if frame.is_corrupt and until is None:
                raise VideoError(self.path, f"{self._name(stamp)} is damaged")
            stamps.append(stamp)
        return stamps

    def _decode(self, stamps: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames at these stamps, which ascend. Jumps ahead where a keyframe allows it."""
        wanted = set(stamps)
        run: _Run | None = None
        sound_from = 0
        for stamp in stamps:
            starts = self._table.starts_for(stamp)
            if run is None or starts[0][1] > self._position:
                sound_from, run = starts[0][0], self._run(starts[0], wanted)
            frame, trouble = self._advance(run, stamp, sound_from)
            for start in starts:
                if frame is not None:
                    break
                sound_from, run = start[0], self._run(start)
                frame, trouble = self._advance(run, stamp, sound_from)
            if frame is None:
                raise VideoError(self.path, trouble)
            yield stamp, frame

    def _advance(self, run: _Run, stamp: int, sound_from: int) -> tuple[VideoFrame | None, str]:
        """The frame at `stamp`, or why it did not come. What is shown before `sound_from` may well be broken."""
        for got, frame in run:
            if frame.is_corrupt and got >= sound_from:
                return None, f"{self._name(got)} is damaged"
            if got == stamp:
                return frame, ""
            if got > stamp:
                break
        return None, f"{self._name(stamp)} does not come out of the decoder"

    def _run(self, start: tuple[int, int], wanted: Collection[int] | None = None) -> _Run:
        """(stamp, frame) as the decoder puts them out from a start on; with `wanted` it may skip others."""
        packets = self._source.packets_from(start[1])
        codec = self._source.codec
        codec.flush_buffers()
        codec.skip_frame = "DEFAULT"
        keep = wanted if codec.name in SKIPPABLE and not self._counting else None
        count = 0
        for position, packet in packets:
            self._position = position + 1
            if keep is not None:
                codec.skip_frame = "DEFAULT" if packet is None or packet.pts in keep else "NONREF"
            try:
                frames = codec.decode(packet)
            except FFmpegError as error:
                raise VideoError(
                    self.path, f"{self._place(position)} is damaged ({error.strerror})"
                ) from error
            for frame in frames:
                self.frames_decoded += 1
                stamp = count if self._counting else frame.pts
                count += 1
                if stamp is not None:
                    yield stamp, frame

    def _place(self, position: int) -> str:
        """The frame that a packet becomes, for a message."""
        facts = self._source.facts
        stamp = facts[position].pts if position < len(facts) and not self._counting else None
        return f"packet {position}" if stamp is None else self._name(stamp)

    def _name(self, stamp: int) -> str:
        index = bisect_left(self._table.stamps, stamp)
        return f"frame {index} ({float((stamp - self._table.stamps[0]) * self._unit):.2f} s)"

    def _picture(self, frame: VideoFrame) -> np.ndarray:
        """RGB (H, W, 3) the way up that it is to be shown. May be a view of the frame's memory."""
        picture = self._to_rgb(frame)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return self._turned(picture, bytes(matrix)) if isinstance(matrix, SideData) else picture

    def _turned(self, picture: np.ndarray, matrix: bytes) -> np.ndarray:
        """Applies a display matrix (nine int32; x' = a·x + c·y, y' = b·x + d·y with 16 fractional bits)."""
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        if (a or d) and (b or c):
            raise VideoError(
                self.path, "is to be shown at an angle that is no quarter turn", "re-encode it upright"
            )
        if b or c:
            picture = picture.transpose(1, 0, 2)
        return picture[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]

    def _shown_size(self) -> tuple[int, int]:
        if self._size is None:
            _, frame = next(self._decode(self._table.stamps[:1]))
            height, width, _ = self._picture(frame).shape
            self._size = height, width
        return self._size

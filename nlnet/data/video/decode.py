"""Frames of a video by exact number, through PyAV (FFmpeg).

Opening a file reads the time stamps of all frames from its packets, without decoding. To get a frame, decoding starts
at a keyframe from which the frame is certain to come out, and the frame is identified by its time stamp, never by a
frame rate. So variable frame rates, B-frames, open GOPs and shifted starts give the right frames. (A file whose stamps
are missing or equal is decoded once as a whole, and its frames are counted.)
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
from nlnet.data.video.frames import FrameIterator, ToRGB, stack_frames
from nlnet.data.video.packets import PacketSource, VideoError, as_fraction

__all__ = ["Video", "VideoError"]

# Codecs in which a frame marked as "no reference" is a reference for no other frame at all: such frames need no decoding
# unless they are requested. (HEVC marks frames relative to a temporal layer: other frames may still refer to them.)
SKIPPABLE = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
# Old MPEG-4 .avi files pack two frames in a packet and fill the gap with a placeholder packet of at most this size.
PLACEHOLDER_BYTES = 19

_Decoded = Iterator[tuple[int, VideoFrame]]  # (stamp, frame) in the order in which the decoder outputs them


class Video:
    """An opened video file; a still image is a video of one frame. A context manager.

    Decoding uses one thread: run more processes instead. Compressed data of up to `hold_bytes` stays in memory while
    the video is open; in larger files it is read by seeking. Rotation and mirroring recorded in the file are applied;
    pixels that are not square are not stretched.

    `path`; `num_frames`; `frames_decoded`, the number of frames that the decoder has output so far.
    Raises VideoError for anything that keeps the file, or one of its frames, from being read. Damage is detected
    if the format allows it (VP9, for one, often does not), in the requested frames and in those decoded on the way.
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
        """Close the file."""
        self._source.close()

    @property
    def num_frames(self) -> int:
        """Number of frames that can be decoded."""
        return len(self._table.stamps)

    @property
    def height(self) -> int:
        """Rows of a frame as `frames` returns it. The first call decodes a frame."""
        return self._shown_size()[0]

    @property
    def width(self) -> int:
        """Columns of a frame as `frames` returns it. The first call decodes a frame."""
        return self._shown_size()[1]

    @property
    def nbytes(self) -> int:
        """Size in bytes of all frames as `frames` returns them."""
        return self.num_frames * self._source.codec.height * self._source.codec.width * 3

    @property
    def times_seconds(self) -> list[float]:
        """When each frame is shown, in seconds from the first."""
        first = self._table.stamps[0]
        return [float((stamp - first) * self._unit) for stamp in self._table.stamps]

    @property
    def duration_seconds(self) -> float:
        """Time from the first frame to the end of the last, in seconds."""
        return float((self._table.end - self._table.stamps[0]) * self._unit)

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "n H W 3"]:
        """The frames with these numbers, RGB, in this order. A number may occur twice; each frame is decoded once."""
        return stack_frames(self.iter_frames(indices), len(indices))

    def iter_frames(self, indices: Sequence[int]) -> FrameIterator:
        """Yield the frames with these numbers one by one as they are decoded (`FrameIterator`), all of one size."""
        rows: dict[int, list[int]] = {}
        for row, index in enumerate(indices):
            if not 0 <= index < self.num_frames:
                raise ValueError(f"{self.path} has frames 0 to {self.num_frames - 1}, got {index}")
            rows.setdefault(self._table.stamps[index], []).append(row)
        size: tuple[int, ...] | None = None
        for stamp, decoded in self._decode(sorted(rows)):
            frame = self._upright_rgb(decoded)
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                sizes = f"{frame.shape[0]}×{frame.shape[1]} after {size[0]}×{size[1]}"
                raise VideoError(
                    self.path, f"{self._frame_name(stamp)} is {sizes}", "re-encode it to one size"
                )
            yield rows[stamp], frame

    def verify(self) -> None:
        """Decode every frame and keep none. Raises VideoError at the first that cannot be decoded."""
        for _ in self._decode(self._table.stamps):
            pass

    def _make_table(self) -> None:
        """Set the frame table, the unit of its stamps in seconds, and whether stamps are mere frame counts."""
        packets, codec = self._source.packets, self._source.codec
        first = next((position for position, packet in enumerate(packets) if packet.is_keyframe), None)
        if first is None:
            reason = "has no keyframe, so that decoding cannot start" if packets else "has no frames"
            raise VideoError(self.path, reason)
        # with packed frames a packet's stamp is not its frame's: frames have to be counted
        packed = codec.name == "mpeg4" and any(packet.size_bytes <= PLACEHOLDER_BYTES for packet in packets)
        table = None if packed else frame_table(packets)
        self._counting = table is None
        rate = as_fraction(self._source.stream.average_rate, Fraction(25))
        self._unit = self._source.time_base if table else 1 / rate
        self._table = table or counted_table(len(packets), first)
        if table is None:
            # the number of packets was a first guess, which decoding replaces by the number of frames
            self._table = counted_table(len(self._decodable(self._table)), first)
        elif leading := set(table.leading()):
            # a file that begins at an open GOP: frames whose references lie before the file do not come out
            self._table = table.without(leading.difference(self._decodable(table, until=table.starts[0][0])))
        if not self._table.stamps:
            raise VideoError(self.path, "has no frame that can be decoded")

    def _decodable(self, table: FrameTable, until: int | None = None) -> list[int]:
        """The stamps of the frames that the decoder outputs from the first keyframe on, up to `until`."""
        stamps = []
        for stamp, frame in self._decode_from(table.starts[0]):
            if until is not None and stamp >= until:
                break
            if frame.is_corrupt and until is None:
                raise VideoError(self.path, f"{self._frame_name(stamp)} is damaged")
            stamps.append(stamp)
        return stamps

    def _decode(self, stamps: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames at these ascending stamps. Skips to a later keyframe where one lies on the way."""
        wanted = set(stamps)
        decoded: _Decoded | None = None
        sound_from = 0
        for stamp in stamps:
            starts = self._table.starts_for(stamp)
            # jump only forwards: from where the decoder stands, going on costs less than starting behind it
            if decoded is None or starts[0][1] > self._position:
                sound_from, decoded = starts[0][0], self._decode_from(starts[0], wanted)
            frame, reason = self._advance(decoded, stamp, sound_from)
            # not there or damaged: try again from each start point, and without skipping any frame
            for start in starts:
                if frame is not None:
                    break
                sound_from, decoded = start[0], self._decode_from(start)
                frame, reason = self._advance(decoded, stamp, sound_from)
            if frame is None:
                raise VideoError(self.path, reason)
            yield stamp, frame

    def _advance(self, decoded: _Decoded, stamp: int, sound_from: int) -> tuple[VideoFrame | None, str]:
        """Continue decoding up to the frame at `stamp`; return (None, reason) if it does not come out.

        Frames shown before `sound_from`, the keyframe where decoding started, may be damaged without harm: they lack
        references from before it.
        """
        for got, frame in decoded:
            if frame.is_corrupt and got >= sound_from:
                return None, f"{self._frame_name(got)} is damaged"
            if got == stamp:
                return frame, ""
            if got > stamp:  # frames come out in the order of their stamps: it was left out
                break
        return None, f"{self._frame_name(stamp)} is not output by the decoder"

    def _decode_from(self, start: tuple[int, int], wanted: Collection[int] | None = None) -> _Decoded:
        """Decode from a start point to the end of the file; with `wanted`, other frames may be skipped."""
        packets = self._source.packets_from(start[1])
        codec = self._source.codec
        codec.flush_buffers()  # references of the previous position would be used otherwise
        codec.skip_frame = "DEFAULT"
        keep = wanted if codec.name in SKIPPABLE and not self._counting else None
        count = 0
        for position, packet in packets:
            self._position = position + 1
            if keep is not None:
                # NONREF decodes references only: a packet's stamp is its frame's, so wanted frames are known in advance
                codec.skip_frame = "DEFAULT" if packet is None or packet.pts in keep else "NONREF"
            try:
                frames = codec.decode(packet)
            except FFmpegError as error:
                raise VideoError(
                    self.path, f"{self._packet_name(position)} is damaged ({error.strerror})"
                ) from error
            # B-frames: the decoder outputs a frame some packets after it received it, in the order of showing
            for frame in frames:
                self.frames_decoded += 1
                stamp = count if self._counting else frame.pts
                count += 1
                if stamp is not None:
                    yield stamp, frame

    def _packet_name(self, position: int) -> str:
        """The name of a packet's frame, for a message; the number of the packet if its stamp is unknown."""
        packets = self._source.packets
        stamp = packets[position].pts if position < len(packets) and not self._counting else None
        return f"packet {position}" if stamp is None else self._frame_name(stamp)

    def _frame_name(self, stamp: int) -> str:
        """A frame's number and time, for a message: `frame 3 (0.12 s)`."""
        index = bisect_left(self._table.stamps, stamp)
        return f"frame {index} ({float((stamp - self._table.stamps[0]) * self._unit):.2f} s)"

    def _upright_rgb(self, decoded: VideoFrame) -> np.ndarray:
        """A decoded frame as RGB (H, W, 3), rotated and mirrored as it is to be shown; may be a view of its memory."""
        frame = self._to_rgb(decoded)
        matrix = decoded.side_data.get("DISPLAYMATRIX")
        return self._turned(frame, bytes(matrix)) if isinstance(matrix, SideData) else frame

    def _turned(self, frame: np.ndarray, matrix: bytes) -> np.ndarray:
        """Apply a display matrix (nine int32; x' = a·x + c·y, y' = b·x + d·y with 16 fractional bits)."""
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        # a quarter turn has either only a and d, or only b and c
        if (a or d) and (b or c):
            raise VideoError(
                self.path,
                "is rotated by an angle that is not a multiple of 90°",
                "re-encode it upright",
            )
        if b or c:  # x' = c·y, y' = b·x: rows and columns change places
            frame = frame.transpose(1, 0, 2)
        # one term of each sum is 0, and the sign of the other says whether the axis is reversed
        return frame[:: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]

    def _shown_size(self) -> tuple[int, int]:
        """(height, width) of the first frame as it is shown."""
        if self._size is None:
            _, frame = next(self._decode(self._table.stamps[:1]))
            height, width, _ = self._upright_rgb(frame).shape
            self._size = height, width
        return self._size

"""A video file as a sequence of compressed packets: open it, read its packets from any position, explain errors."""

import errno
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from nlnet.data.video.frame_table import PacketInfo
from nlnet.errors import NlnetError

# A metadata tag that is not UTF-8 must not make a video unreadable; PyAV ignores such tags by default from version 19 on.
_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_DEFAULT_FIX = "get the file again or take it out of the list"


class VideoError(NlnetError):
    """A video that cannot be read: its `path`, the `reason` and the `fix`, all in the message."""

    def __init__(self, path: Path | str, reason: str, fix: str = _DEFAULT_FIX) -> None:
        super().__init__(f"{path}: {reason}; {fix}")
        self.path, self.reason, self.fix = Path(path), reason, fix

    def __reduce__(self) -> tuple[type["VideoError"], tuple[Path, str, str]]:
        # the default would pickle the message alone, and a worker process could not send the error
        return type(self), (self.path, self.reason, self.fix)


class PacketSource:
    """The packets of a file's first video stream: a summary of each, and the packets from any position on.

    Packets stay in memory if they sum to `hold_bytes` or less, so that going back costs nothing; in a larger file
    `packets_from` seeks. `codec` decodes them with one thread. Read `codec` again after each `packets_from`: a seek may
    open the file again.
    """

    stream: VideoStream
    codec: VideoCodecContext
    time_base: Fraction

    def __init__(self, path: Path, *, hold_bytes: int) -> None:
        self.path = path
        self._open()
        try:
            self.packets, self._held = self._read_all(hold_bytes)
        except BaseException:
            self.close()
            raise
        self._position_of = (
            {}
            if self._held
            else {(packet.pts, packet.size_bytes): k for k, packet in enumerate(self.packets)}
        )

    def close(self) -> None:
        """Close the file and free the packets."""
        self._held = []
        self._container.close()

    def packets_from(self, position: int) -> Iterator[tuple[int, Packet | None]]:
        """(position, packet) from `position` to the end, then (number of packets, None), which flushes the decoder."""
        if self._held:
            return enumerate([*self._held[position:], None], position)
        return enumerate(self._seek(position), position)

    def _open(self) -> None:
        # "file:" keeps FFmpeg from taking "a:b.mp4" for a network protocol; pattern_type keeps it from taking "%d" in
        # the name of an image for a numbered series.
        try:
            self._container = av.open(
                f"file:{self.path}", container_options={"pattern_type": "none"}, **_METADATA
            )
        except (FFmpegError, OSError) as error:
            raise _open_error(self.path, error) from error
        # the cover picture of an audio file is stored as a video stream of one frame
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if self._container.format.name == "tty":  # FFmpeg would render a text file as a video
            problem = VideoError(self.path, "is a text file, not a video", "name a video file")
        elif not streams:
            problem = VideoError(
                self.path, "has no video stream", "is it an audio file, or is its index damaged?"
            )
        elif streams[0].codec_context is None:
            problem = VideoError(
                self.path, "is in a video format that this FFmpeg lacks", "re-encode it to H.264"
            )
        else:
            self.stream, self.codec = streams[0], streams[0].codec_context
            self.codec.thread_count = 1
            self.time_base = as_fraction(self.stream.time_base, Fraction(1))
            return
        self._container.close()
        raise problem

    def _read_all(self, hold_bytes: int) -> tuple[list[PacketInfo], list[Packet]]:
        """The summaries of all packets, and the packets themselves if they sum to `hold_bytes` or less."""
        packets: list[PacketInfo] = []
        held: list[Packet] = []
        held_bytes = 0
        try:
            for packet in self._container.demux(self.stream):
                if packet.size == 0:  # PyAV's flush packet at the end
                    continue
                if packet.is_corrupt:
                    raise VideoError(self.path, f"is cut short or damaged at packet {len(packets)}")
                packets.append(
                    PacketInfo(
                        packet.pts, packet.is_keyframe, packet.is_discard, packet.duration or 0, packet.size
                    )
                )
                held_bytes += packet.size
                if held_bytes <= hold_bytes:
                    held.append(packet)
        except FFmpegError as error:
            reason = f"is cut short or damaged after packet {len(packets)} ({error.strerror})"
            raise VideoError(self.path, reason) from error
        return packets, held if held_bytes <= hold_bytes else []

    def _seek(self, position: int) -> Iterator[Packet | None]:
        """Packets from exactly `position` on, by the container's seek, or from the beginning if the seek misses.

        A seek goes to some packet at or before a stamp. Stamp and size of the first packet then identify its position.
        In an MPEG program stream the seek may land inside a frame, where stamps are wrong: such a packet is not found.
        """
        stamp = self.packets[position].pts
        if position > 0 and stamp is not None:
            self._container.seek(stamp, stream=self.stream, backward=True)
            packets = self._demux()
            first = next(packets)
            landed = None if first is None else self._position_of.get((first.pts, first.size))
            if landed is not None and landed < position:
                return islice(packets, position - landed - 1, None)
            if first is not None and landed == position:
                return chain([first], packets)
        # opened again: not every format can seek to its beginning
        self._container.close()
        self._open()
        return islice(self._demux(), position, None)

    def _demux(self) -> Iterator[Packet | None]:
        for packet in self._container.demux(self.stream):
            if packet.size:
                yield packet
        yield None


def as_fraction(ratio: Fraction | None, otherwise: Fraction) -> Fraction:
    """Convert a ratio of PyAV (its own type; before version 19 a Fraction or None) to a Fraction."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio else otherwise


def _open_error(path: Path, error: FFmpegError | OSError) -> VideoError:
    """The VideoError that explains why a file could not be opened."""
    if error.errno == errno.ENOENT:
        return VideoError(
            path, "does not exist", "check the path; a list's paths are relative to its own folder or root"
        )
    if error.errno == errno.EACCES:
        return VideoError(
            path, "cannot be opened (permission denied)", "give your user permission to read it"
        )
    if path.is_dir():
        return VideoError(
            path, "is a folder, not a video", "name a video file, or read the folder as class folders"
        )
    if path.is_file() and path.stat().st_size == 0:
        return VideoError(path, "is empty (0 bytes)")
    return VideoError(path, f"is not a video or image that FFmpeg can read ({error.strerror})")

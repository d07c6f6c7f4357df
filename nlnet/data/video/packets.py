"""A video file as its compressed packets: opening it, saying what is wrong with it, going back and forth in it."""

import errno
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from nlnet.data.video.frame_table import PacketFacts

# A tag that is not UTF-8 is no reason to refuse a video; PyAV sees it so by itself from version 19 on.
_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_AGAIN = "get the file again or take it out of the list"


class VideoError(ValueError):
    """A video that cannot be read: `path`, `reason`, and what to do about it (`fix`), all in the message."""

    def __init__(self, path: Path | str, reason: str, fix: str = _AGAIN) -> None:
        super().__init__(f"{path}: {reason}; {fix}")
        self.path, self.reason, self.fix = Path(path), reason, fix

    def __reduce__(self) -> tuple[type["VideoError"], tuple[Path, str, str]]:
        return type(self), (self.path, self.reason, self.fix)  # so that it can cross to another process


class PacketSource:
    """The first real video stream of a file: facts about all its packets, and the packets from any position on.

    Packets stay in memory while they sum to `hold_bytes` or less, so that going back costs nothing; in a larger
    file `packets_from` seeks. `codec` decodes them (one thread); look it up anew after `packets_from`.
    """

    stream: VideoStream
    codec: VideoCodecContext
    time_base: Fraction

    def __init__(self, path: Path, *, hold_bytes: int) -> None:
        self.path = path
        self._open()
        try:
            self.facts, self._held = self._read_all(hold_bytes)
        except BaseException:
            self.close()
            raise
        self._position_of = (
            {} if self._held else {(fact.pts, fact.size_bytes): k for k, fact in enumerate(self.facts)}
        )

    def close(self) -> None:
        self._held = []
        self._container.close()

    def packets_from(self, position: int) -> Iterator[tuple[int, Packet | None]]:
        """(position, packet) from `position` to the end, then (number of packets, None), the cue to finish."""
        if self._held:
            return enumerate([*self._held[position:], None], position)
        return enumerate(self._seek(position), position)

    def _open(self) -> None:
        # The prefix keeps FFmpeg from taking "a:b.mp4" for a protocol; pattern_type keeps "%d" in the name of an
        # image from naming a series.
        try:
            self._container = av.open(
                f"file:{self.path}", container_options={"pattern_type": "none"}, **_TAGS
            )
        except (FFmpegError, OSError) as error:
            raise _why_not_opened(self.path, error) from error
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if self._container.format.name == "tty":  # FFmpeg would play a text file as a teletype
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

    def _read_all(self, hold_bytes: int) -> tuple[list[PacketFacts], list[Packet]]:
        facts: list[PacketFacts] = []
        held: list[Packet] = []
        held_bytes = 0
        try:
            for packet in self._container.demux(self.stream):
                if packet.size == 0:
                    continue
                if packet.is_corrupt:
                    raise VideoError(self.path, f"is cut short or damaged at packet {len(facts)}")
                facts.append(
                    PacketFacts(
                        packet.pts, packet.is_keyframe, packet.is_discard, packet.duration or 0, packet.size
                    )
                )
                held_bytes += packet.size
                if held_bytes <= hold_bytes:
                    held.append(packet)
        except FFmpegError as error:
            reason = f"is cut short or damaged after packet {len(facts)} ({error.strerror})"
            raise VideoError(self.path, reason) from error
        return facts, held if held_bytes <= hold_bytes else []

    def _seek(self, position: int) -> Iterator[Packet | None]:
        """Packets from just `position`, by the container's own seek; from the beginning where that misses.

        Stamp and size of the first packet tell where the seek landed: in a program stream it may land inside
        a frame, and stamps are then off.
        """
        stamp = self.facts[position].pts
        if position > 0 and stamp is not None:
            self._container.seek(stamp, stream=self.stream, backward=True)
            packets = self._demux()
            first = next(packets)
            landed = None if first is None else self._position_of.get((first.pts, first.size))
            if landed is not None and landed < position:
                return islice(packets, position - landed - 1, None)
            if first is not None and landed == position:
                return _chain(first, packets)
        self._container.close()
        self._open()
        return islice(self._demux(), position, None)

    def _demux(self) -> Iterator[Packet | None]:
        for packet in self._container.demux(self.stream):
            if packet.size:
                yield packet
        yield None


def as_fraction(ratio: Fraction | None, otherwise: Fraction) -> Fraction:
    """A ratio of PyAV's (a Fraction or None before version 19, its own kind since)."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio else otherwise


def _chain(first: Packet, rest: Iterator[Packet | None]) -> Iterator[Packet | None]:
    yield first
    yield from rest


def _why_not_opened(path: Path, error: FFmpegError | OSError) -> VideoError:
    if error.errno == errno.ENOENT:
        return VideoError(
            path, "does not exist", "check the path; a list's paths are relative to its own folder or root"
        )
    if error.errno == errno.EACCES:
        return VideoError(path, "may not be read (permission denied)", "give this user the right to read it")
    if path.is_dir():
        return VideoError(
            path, "is a folder, not a video", "name a video file, or read the folder as class folders"
        )
    if path.is_file() and path.stat().st_size == 0:
        return VideoError(path, "is empty (0 bytes)")
    return VideoError(path, f"is not a video or image that FFmpeg can read ({error.strerror})")

"""Which packets of a video make which frame, and where decoding must start for a frame: no I/O.

A file stores *packets* in decoding order. Each becomes one frame, shown at the packet's presentation time stamp
(pts, an integer in units of the stream's time base). Frame number i of the video is the one with the i-th smallest
stamp. No regular spacing of the stamps is assumed: variable frame rates, negative starts and gaps need no special case.

The group of pictures (GOP) of a keyframe is the keyframe and all packets up to the next one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from typing import NamedTuple


class PacketInfo(NamedTuple):
    """A packet's time stamp, flags and size. A discarded packet is decoded, but its frame is not shown (edit list)."""

    pts: int | None
    is_keyframe: bool
    is_discarded: bool = False
    duration: int = 0  # 0 = unknown
    size_bytes: int = 0


class FrameTable(NamedTuple):
    """When each frame is shown, and where decoding may start.

    `stamps`: of the frames, ascending. `starts`: (stamp of a keyframe, its position among the packets), ascending in
    both. `end`: the stamp at which the last frame ends.
    """

    stamps: list[int]
    starts: list[tuple[int, int]]
    end: int

    def leading(self) -> list[int]:
        """Stamps of the frames shown before the first keyframe: only decoding tells whether these frames exist."""
        return self.stamps[: bisect_left(self.stamps, self.starts[0][0])]

    def without(self, stamps: Collection[int]) -> "FrameTable":
        """The table without some frames."""
        return self._replace(stamps=[stamp for stamp in self.stamps if stamp not in stamps])

    def starts_for(self, stamp: int) -> list[tuple[int, int]]:
        """Start points to try, in order, when decoding the frame at `stamp`.

        First the last keyframe shown no later than the frame. In an *open GOP*, frames stored after keyframe K but
        shown before it also refer to frames before K. Their stamps are below K's, so this rule starts them at the
        keyframe before K, and no reference is missing. Then one keyframe earlier, for streams in which a keyframe only
        begins a gradual recovery. Last the first keyframe.
        """
        last = max(bisect_right(self.starts, stamp, key=lambda start: start[0]) - 1, 0)
        return [self.starts[k] for k in sorted({last, max(last - 1, 0), 0}, reverse=True)]


def frame_table(packets: Sequence[PacketInfo]) -> FrameTable | None:
    """The table of a stream; None if stamps are missing or equal, so that they do not identify frames.

    Packets stored before the first keyframe cannot be decoded and are left out. `packets` must contain a keyframe.
    """
    first = next(position for position, packet in enumerate(packets) if packet.is_keyframe)
    shown: dict[int, int] = {}  # stamp → duration
    starts: list[tuple[int, int]] = []
    for position, packet in enumerate(packets[first:], first):
        if packet.pts is None or packet.pts in shown:
            return None
        if not packet.is_discarded:
            shown[packet.pts] = packet.duration
        # a keyframe shown before an earlier stored one is no start point: `starts_for` needs both columns ascending
        if packet.is_keyframe and (not starts or packet.pts > starts[-1][0]):
            starts.append((packet.pts, position))
    stamps = sorted(shown)
    # a last frame of unknown duration is taken to last as long as the one before
    gap = stamps[-1] - stamps[-2] if len(stamps) > 1 else 0
    return FrameTable(stamps, starts, stamps[-1] + (shown[stamps[-1]] or gap)) if stamps else None


def counted_table(num_frames: int, first_keyframe: int) -> FrameTable:
    """The table of a stream without usable stamps: frame i gets stamp i, and decoding always starts at the beginning."""
    return FrameTable(list(range(num_frames)), [(0, first_keyframe)], num_frames)

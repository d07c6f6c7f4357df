"""Which packets of a video become which frame, and where to start decoding for it: no I/O.

A file stores *packets* in decoding order; each becomes one frame, shown at the packet's presentation stamp
(pts, an integer in units of the stream's time base). Frame number i of the video is the i-th smallest stamp.
Nothing is assumed of the stamps' spacing, so variable frame rates, negative starts and gaps need no care.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from typing import NamedTuple


class PacketFacts(NamedTuple):
    """What is kept of each packet. Discarded ones are decoded but never shown: what an edit list cuts away."""

    pts: int | None
    is_keyframe: bool
    is_discarded: bool = False
    duration: int = 0  # 0 = the file does not say
    size_bytes: int = 0


class FrameTable(NamedTuple):
    """When each frame is shown, and where decoding may start.

    `stamps`: of the frames, ascending. `starts`: (stamp of a keyframe, its position among the packets),
    ascending in both. `end`: the stamp at which the last frame ends.
    """

    stamps: list[int]
    starts: list[tuple[int, int]]
    end: int

    def leading(self) -> list[int]:
        """Stamps shown before the first keyframe: only the decoder knows whether it can make these frames."""
        return self.stamps[: bisect_left(self.stamps, self.starts[0][0])]

    def without(self, stamps: Collection[int]) -> "FrameTable":
        """The table less some frames."""
        return self._replace(stamps=[stamp for stamp in self.stamps if stamp not in stamps])

    def starts_for(self, stamp: int) -> list[tuple[int, int]]:
        """Where to start decoding for the frame at `stamp`, in the order to try.

        First the last keyframe shown no later than the frame. In an *open GOP*, frames stored after keyframe K
        but shown before it refer to frames before K as well; their stamps are below K's, so this rule starts
        them at the keyframe before K and none loses its references. Then one keyframe earlier (streams whose
        keyframes are points of gradual recovery), then the first.
        """
        last = max(bisect_right(self.starts, stamp, key=lambda start: start[0]) - 1, 0)
        return [self.starts[k] for k in sorted({last, max(last - 1, 0), 0}, reverse=True)]


def frame_table(packets: Sequence[PacketFacts]) -> FrameTable | None:
    """The table of a stream; None where stamps are missing or equal and so cannot tell frames apart.

    Packets stored before the first keyframe refer to nothing and are left out. `packets` must hold a keyframe.
    """
    first = next(position for position, packet in enumerate(packets) if packet.is_keyframe)
    shown: dict[int, int] = {}  # stamp → duration
    starts: list[tuple[int, int]] = []
    for position, packet in enumerate(packets[first:], first):
        if packet.pts is None or packet.pts in shown:
            return None
        if not packet.is_discarded:
            shown[packet.pts] = packet.duration
        if packet.is_keyframe and (not starts or packet.pts > starts[-1][0]):
            starts.append((packet.pts, position))
    stamps = sorted(shown)
    gap = stamps[-1] - stamps[-2] if len(stamps) > 1 else 0
    return FrameTable(stamps, starts, stamps[-1] + (shown[stamps[-1]] or gap)) if stamps else None


def counted_table(num_frames: int, first_keyframe: int) -> FrameTable:
    """The table of a stream without usable stamps: frame i has stamp i, and decoding starts at the beginning."""
    return FrameTable(list(range(num_frames)), [(0, first_keyframe)], num_frames)

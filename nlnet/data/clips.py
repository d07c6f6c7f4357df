"""Which frames form a clip, how frames are scaled, and where crops lie: exact integer arithmetic, no I/O.

Letters: N frames in the video, L = `length` frames in a clip, s = `stride` between them. A clip *spans* L·s frames.
A draw is a number in [0, 1). Each random choice is a function of one draw, so a seed determines a sample.
"""

from fractions import Fraction
from math import floor
from typing import Literal

from nlnet.data.protocols import EvalProtocol, Protocol, protocol_of
from nlnet.errors import NlnetError


def pick(count: int, draw: float) -> int:
    """Map a draw to an integer: ⌊draw · count⌋, so that a uniform draw gives each of 0 … count − 1 equally often."""
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}: there is nothing to pick from")
    if not 0.0 <= draw < 1.0:
        raise ValueError(f"draw must lie in [0, 1), got {draw}; pass random.Random(seed).random()")
    return int(draw * count)


def clip_indices(start: int, *, length: int, stride: int, num_frames: int) -> list[int]:
    """Frame numbers of one clip: (start + i·s) mod N for i = 0 … L − 1.

    A clip that reaches past the end continues at frame 0, as in the paper's release: short videos loop.
    With N = 5, `clip_indices(3, length=4, stride=1, num_frames=5)` is [3, 4, 0, 1].
    """
    _check_clip(num_frames, length, stride)
    if start < 0:
        raise ValueError(f"start must be 0 or more, got {start}: frames are numbered from 0")
    return [(start + i * stride) % num_frames for i in range(length)]


def random_start(num_frames: int, *, length: int, stride: int, draw: float) -> int:
    """First frame of a training clip: uniform over 0 … N − L·s inclusive; 0 if the video is shorter than L·s."""
    _check_clip(num_frames, length, stride)
    return pick(max(num_frames - length * stride, 0) + 1, draw)


def eval_starts(
    num_frames: int,
    num_clips: int,
    *,
    length: int,
    stride: int,
    protocol: Protocol = "released",
) -> list[int]:
    """First frames of the K = `num_clips` clips of a test video.

    ============== ============================================== ==========================================
    protocol       start of clip k                                N = 300, L·s = 64, K = 10
    ============== ============================================== ==========================================
    released       ⌊k·N/K⌋; the last clips wrap round             0, 30, 60, … 270
    paper          the same                                       0, 30, 60, … 270
    slowfast       ⌊k·(N − L·s)/K⌋ at 30 frames per second        0, 23, 47, … 212 (0, 23.6, 47.2, … 212.4)
    mmaction2      k·(N − L·s)/(K − 1), rounded half to even      0, 26, 52, … 236
    mmaction2_v1   k·(N − (L − 1)·s − 1)/(K − 1), rounded so      0, 26, 53, … 237 (L = 32)
    single         ⌊(N − L·s)/2⌋, the centre; K is 1              118
    ============== ============================================== ==========================================

    N − L·s counts as 0 in a video that is too short. `mmaction2` with one clip takes the centre, as `single` does.
    """
    rules = protocol_of(protocol)
    starts = _exact_starts(rules, num_frames, num_clips, length, stride)
    # Python's round is half to even, as numpy's in mmaction2; its single centred clip and all other projects round down
    return [round(start) if rules.starts == "ends" and num_clips > 1 else floor(start) for start in starts]


def eval_clips(
    num_frames: int,
    num_clips: int,
    *,
    length: int,
    stride: int,
    protocol: Protocol = "released",
    rate: Fraction | None = None,
) -> list[list[int]]:
    """Frame numbers of every clip of a test video; `rate` is the video's frame rate, in frames per second.

    All protocols but `slowfast` wrap round at the end (`clip_indices`). `slowfast` resamples to 30 frames per second:
    with the span S = L·s·rate/30 (L·s if the rate is unknown, as for folders of frames; at least 1) clip k starts at
    the fraction t = k·max(N − S, 0)/K, and its frame i is ⌊t + i·(S − 1)/(L − 1)⌋, at most N − 1. Even at 30 frames
    per second this is not every s-th frame, since L frames are spread over S − 1: from t = 23.6, with L = 32 and
    s = 2, it gives 23, 25, … 47, 50, 52, … 86. A short video repeats its last frame.

    PySlowFast computes this in float32; here it is exact. When PySlowFast decodes only the part of a video that a clip
    needs, rather than the whole video, it starts at the first frame after t.
    """
    rules = protocol_of(protocol)
    if rules.frames == "wrap":
        starts = eval_starts(num_frames, num_clips, length=length, stride=stride, protocol=protocol)
        return [clip_indices(start, length=length, stride=stride, num_frames=num_frames) for start in starts]
    # L points from t to t + S − 1, both ends included, have L − 1 steps between them; a single frame has none
    step = (_span(rules, length, stride, rate) - 1) / max(length - 1, 1)
    # rounded down once, at the end: rounding the start first would shift frames
    return [
        [min(floor(start + i * step), num_frames - 1) for i in range(length)]
        for start in _exact_starts(rules, num_frames, num_clips, length, stride, rate)
    ]


def _exact_starts(
    rules: EvalProtocol,
    num_frames: int,
    num_clips: int,
    length: int,
    stride: int,
    rate: Fraction | None = None,
) -> list[Fraction]:
    """Clip starts as fractions, before rounding."""
    _check_clip(num_frames, length, stride)
    if num_clips < 1:
        raise NlnetError(f"num_clips must be 1 or more, got {num_clips}")
    room = max(num_frames - _span(rules, length, stride, rate), Fraction(0))
    match rules.starts:
        case "video":
            # divides the video, not the room: the last clips reach past the end and wrap round
            return [Fraction(k * num_frames, num_clips) for k in range(num_clips)]
        case "room":
            # K, not K − 1, in the denominator: the last clip ends room/K frames before the video does
            return [k * room / num_clips for k in range(num_clips)]
        case "ends" if num_clips > 1:
            return [k * room / (num_clips - 1) for k in range(num_clips)]
        case "centre" if num_clips > 1:
            raise NlnetError(
                f"protocol 'single' takes one clip, got num_clips {num_clips}; set it to 1, or use 'released'"
            )
    return [room / 2]  # "centre", or "ends" with one clip


def _span(rules: EvalProtocol, length: int, stride: int, rate: Fraction | None = None) -> Fraction:
    """Frames of the video that a clip spans; may be a fraction if the protocol counts at its own frame rate."""
    if rules.span == "frames":
        return Fraction((length - 1) * stride + 1)
    if rules.rate is None or rate is None:
        return Fraction(length * stride)
    return max(length * stride * rate / rules.rate, Fraction(1))


def scaled_size(
    height: int, width: int, short_side: int, rounding: Literal["down", "nearest"] = "down"
) -> tuple[int, int]:
    """(height, width) after scaling the shorter side to `short_side`; the longer side is rounded by `rounding`.

    "down" is ⌊x⌋; "nearest" is ⌊x + ½⌋, mmcv's rule.
    """
    if min(height, width, short_side) < 1:
        raise NlnetError(
            f"sizes must be 1 or more, got height {height}, width {width}, short_side {short_side}"
        )
    short, long = sorted((height, width))
    # ⌊long·short_side/short + ½⌋ over the denominator 2·short: integers have no rounding error at exact halves
    half = short if rounding == "nearest" else 0
    scaled = (2 * long * short_side + half) // (2 * short)
    return (short_side, scaled) if height < width else (scaled, short_side)


def crop_offsets(
    height: int, width: int, crop: int, num_crops: int, placement: Literal["halves", "ends"] = "halves"
) -> list[tuple[int, int]]:
    """(top, left) of the square crops of a frame.

    1 crop: the centre. 3 crops: along the longer side, centred on the shorter. With r = side − crop, `placement` is
    - "halves": offsets 0, ⌊r/2⌋ and 2⌊r/2⌋, so the last crop may miss one pixel, as in the release and mmaction2; the
      centre is ⌊r/2⌋, and in a square frame the crops lie along the vertical;
    - "ends": offsets 0, ⌈r/2⌉ and r, as in PySlowFast; the centre is ⌈r/2⌉, and in a square frame the crops lie
      along the horizontal.
    In a frame of exactly the crop's size the three crops are the same.
    """
    if min(height, width) < crop or crop < 1:
        raise NlnetError(
            f"a crop of {crop} pixels does not fit a frame of {height}×{width}; scale the frame to at least that"
        )
    up = 1 if placement == "ends" else 0  # (r + 1) // 2 is ⌈r/2⌉
    top, left = (height - crop + up) // 2, (width - crop + up) // 2
    if num_crops == 1:
        return [(top, left)]
    if num_crops != 3:
        raise NlnetError(f"num_crops must be 1 (centre) or 3 (along the longer side), got {num_crops}")
    if height > width or (height == width and placement == "halves"):
        return [(0, left), (top, left), (height - crop if up else 2 * top, left)]
    return [(top, 0), (top, left), (top, width - crop if up else 2 * left)]


def _check_clip(num_frames: int, length: int, stride: int) -> None:
    if min(num_frames, length, stride) < 1:
        raise NlnetError(
            "num_frames, length and stride must be 1 or more, "
            f"got num_frames {num_frames}, length {length}, stride {stride}"
        )

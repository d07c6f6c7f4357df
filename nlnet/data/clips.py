"""Which frames make a clip, how large they become, and where they are cut: integer arithmetic, no I/O.

Letters: N frames in the video, L = `length` frames in a clip, s = `stride` between them. A clip *spans* L·s frames.
A draw is a number in [0, 1); every random choice is a function of one draw, so a seed settles a sample.
"""

from fractions import Fraction
from typing import Literal, get_args

Protocol = Literal["released", "slowfast", "mmaction2", "single"]


def pick(count: int, draw: float) -> int:
    """The integer ⌊draw · count⌋: each of 0 … count − 1 with equal chance for a uniform draw."""
    if count < 1:
        raise ValueError(f"nothing to pick from: got count {count}, expected 1 or more")
    if not 0.0 <= draw < 1.0:
        raise ValueError(f"a draw lies in [0, 1), got {draw}; pass random.Random(seed).random()")
    return int(draw * count)


def clip_indices(start: int, *, length: int, stride: int, num_frames: int) -> list[int]:
    """Frame numbers of one clip: (start + i·s) mod N for i = 0 … L − 1.

    A clip that reaches past the end goes on from frame 0, as in the paper's release: short videos loop.
    With N = 5, `clip_indices(3, length=4, stride=1, num_frames=5)` is [3, 4, 0, 1].
    """
    _check_clip(num_frames, length, stride)
    if start < 0:
        raise ValueError(f"a clip starts at frame 0 or later, got start {start}")
    return [(start + i * stride) % num_frames for i in range(length)]


def random_start(num_frames: int, *, length: int, stride: int, draw: float) -> int:
    """First frame of a training clip: uniform over 0 … N − L·s inclusive; 0 where the video is shorter than that."""
    _check_clip(num_frames, length, stride)
    return pick(max(num_frames - length * stride, 0) + 1, draw)


def test_starts(
    num_frames: int,
    num_clips: int,
    *,
    length: int,
    stride: int,
    protocol: Protocol = "released",  # noqa: PT028 (no test case)
) -> list[int]:
    """First frames of the K = `num_clips` clips of a test video.

    =========== ============================================ ==========================================
    protocol    start of clip k                              N = 300, L·s = 64, K = 10
    =========== ============================================ ==========================================
    released    ⌊k·N/K⌋; the last clips wrap round           0, 30, 60, … 270
    slowfast    ⌊k·(N − L·s)/K⌋                              0, 23, 47, … 212 (0, 23.6, 47.2, … 212.4)
    mmaction2   k·(N − L·s)/(K − 1), rounded half to even    0, 26, 52, … 236
    single      ⌊(N − L·s)/2⌋, the centre; K is 1            118
    =========== ============================================ ==========================================

    N − L·s counts as 0 in a video that is too short. `mmaction2` with one clip takes the centre, as `single` does.
    Only the starts follow the other code bases; the frames of a clip are `clip_indices` for all four.
    """
    _check_clip(num_frames, length, stride)
    if num_clips < 1:
        raise ValueError(f"a video is tested with 1 clip or more, got num_clips {num_clips}")
    room = max(num_frames - length * stride, 0)
    match protocol:
        case "released":
            return [k * num_frames // num_clips for k in range(num_clips)]
        case "slowfast":
            return [k * room // num_clips for k in range(num_clips)]
        case "mmaction2" if num_clips > 1:
            return [round(Fraction(k * room, num_clips - 1)) for k in range(num_clips)]
        case "single" | "mmaction2":
            if num_clips != 1:
                raise ValueError(f"protocol 'single' is one clip, got num_clips {num_clips}; use 'released'")
            return [room // 2]
    raise ValueError(f"unknown test protocol {protocol!r}; expected one of {', '.join(get_args(Protocol))}")


# pytest collects what is called test_*, also in a module that imports it
test_starts.__test__ = False  # type: ignore[attr-defined]


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) scaled so that the shorter becomes `short_side`; the longer is cut down to an integer."""
    if min(height, width, short_side) < 1:
        raise ValueError(f"sizes are 1 or more, got height {height}, width {width}, short_side {short_side}")
    if height < width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def crop_offsets(height: int, width: int, crop: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of the square crops of a frame.

    1 crop: the centre. 3 crops: {0, 1, 2} · ⌊(side − crop)/2⌋ along the side that exceeds the crop by more
    (the vertical one when they are equal), centred on the other; so the last crop may miss one pixel, as in
    the release. In a frame of just the crop's size the three are the same.
    """
    if min(height, width) < crop or crop < 1:
        raise ValueError(
            f"a crop of {crop} does not fit a frame of {height}×{width}; scale the frame to at least that"
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    if num_crops == 1:
        return [(top, left)]
    if num_crops != 3:
        raise ValueError(f"crops come as 1 (centre) or 3 (along the longer side), got num_crops {num_crops}")
    if height >= width:
        return [(i * top, left) for i in range(3)]
    return [(top, i * left) for i in range(3)]


def _check_clip(num_frames: int, length: int, stride: int) -> None:
    if min(num_frames, length, stride) < 1:
        raise ValueError(
            "num_frames, length and stride are 1 or more, "
            f"got num_frames {num_frames}, length {length}, stride {stride}"
        )

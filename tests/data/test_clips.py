from fractions import Fraction
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlnet.data.clips import (
    clip_indices,
    crop_offsets,
    eval_clips,
    eval_starts,
    pick,
    random_start,
    scaled_size,
)
from nlnet.data.protocols import Protocol
from nlnet.errors import NlnetError

draws = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 2000)
clips = {"length": st.integers(1, 64), "stride": st.integers(1, 16)}


def test_a_clip_wraps_round_at_the_end() -> None:
    assert clip_indices(3, length=4, stride=1, num_frames=5) == [3, 4, 0, 1]
    assert clip_indices(0, length=4, stride=2, num_frames=3) == [0, 2, 1, 0]
    assert clip_indices(270, length=32, stride=2, num_frames=300)[14:17] == [298, 0, 2]


@given(start=st.integers(0, 5000), num_frames=sizes, **clips)
def test_clip_steps_by_the_stride_modulo_the_video(
    start: int, num_frames: int, length: int, stride: int
) -> None:
    indices = clip_indices(start, length=length, stride=stride, num_frames=num_frames)
    assert len(indices) == length
    assert indices[0] == start % num_frames
    assert all((b - a - stride) % num_frames == 0 for a, b in zip(indices, indices[1:], strict=False))
    assert all(0 <= index < num_frames for index in indices)


@given(num_frames=sizes, draw=draws, **clips)
def test_random_start_leaves_room_for_the_clip(
    num_frames: int, draw: float, length: int, stride: int
) -> None:
    start = random_start(num_frames, length=length, stride=stride, draw=draw)
    if num_frames <= length * stride:
        assert start == 0
    else:
        assert 0 <= start <= num_frames - length * stride


def test_random_start_reaches_both_ends_evenly() -> None:
    # N − L·s = 4: five starts, one fifth of the draws each
    starts = [random_start(20, length=8, stride=2, draw=k / 1000) for k in range(1000)]
    assert [starts.count(start) for start in range(5)] == [200] * 5


@given(count=st.integers(1, 10**6))
def test_pick_never_reaches_count(count: int) -> None:
    assert pick(count, 0.0) == 0
    assert pick(count, 1 - 2**-53) == count - 1  # the largest number below 1


# by hand from the code of each project: N = 300, 32 frames × stride 2, 10 clips
@pytest.mark.parametrize(
    ("protocol", "starts"),
    [
        ("released", [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]),
        ("slowfast", [0, 23, 47, 70, 94, 118, 141, 165, 188, 212]),  # ⌊k · 23.6⌋
        ("mmaction2", [0, 26, 52, 79, 105, 131, 157, 184, 210, 236]),  # k · 236/9 rounded
        ("mmaction2_v1", [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]),  # k · (300 − 63)/9 rounded
        ("paper", [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]),
    ],
)
def test_starts_of_ten_clips(protocol: str, starts: list[int]) -> None:
    assert eval_starts(300, 10, length=32, stride=2, protocol=protocol) == starts


def test_the_release_is_the_default_and_single_is_the_centre() -> None:
    assert eval_starts(95, 10, length=8, stride=8) == [0, 9, 19, 28, 38, 47, 57, 66, 76, 85]
    assert eval_starts(300, 1, length=32, stride=2, protocol="single") == [118]
    assert eval_starts(300, 1, length=32, stride=2, protocol="mmaction2") == [118]


@given(num_frames=sizes, num_clips=st.integers(1, 30), **clips)
def test_starts_ascend_from_zero_inside_the_video(
    num_frames: int, num_clips: int, length: int, stride: int
) -> None:
    for protocol in ("released", "slowfast", "mmaction2"):
        if protocol == "mmaction2" and num_clips == 1:
            continue
        starts = eval_starts(num_frames, num_clips, length=length, stride=stride, protocol=protocol)
        assert len(starts) == num_clips
        assert starts[0] == 0
        assert starts == sorted(starts)
        last = num_frames - 1 if protocol == "released" else max(num_frames - length * stride, 0)
        assert starts[-1] <= last
        if protocol == "mmaction2":
            assert starts[-1] == last


# by hand: PySlowFast's starts are the fractions k · 23.6, its ends those + 63, and 32 frames are
# spread between, 63/31 = 2.0323 apart, and cut down: written out by hand for the first, second and last clip
SPREAD = {
    0: [*range(0, 31, 2), *range(32, 63, 2)],  # i · 63/31 = 2i + i/31, which is below 2i + 1 up to i = 30
    # 23.6 + 2i + i/31: the fraction passes 1 after i = 12, as 0.6 + 12/31 = 0.987 and 0.6 + 13/31 = 1.019
    1: [*range(23, 48, 2), *range(50, 87, 2)],
    # 212.4 + 2i + i/31: 0.4 + 18/31 = 0.981, 0.4 + 19/31 = 1.013
    9: [*range(212, 249, 2), *range(251, 276, 2)],
}
SPREAD[0][31] = 63  # the end itself


def test_frames_of_pyslowfast_by_hand() -> None:
    clips = eval_clips(300, 10, length=32, stride=2, protocol="slowfast", rate=Fraction(30))
    assert [len(clip) for clip in clips] == [32] * 10
    for k, frames in SPREAD.items():
        assert clips[k] == frames
    # 8 × 8: the frames are exactly 63/7 = 9 apart, not 8
    assert eval_clips(300, 10, length=8, stride=8, protocol="slowfast")[1] == list(range(23, 87, 9))


def test_pyslowfast_counts_the_stride_at_30_frames_a_second() -> None:
    # 25 a second: a clip is 64 · 25/30 = 53.33 frames, the room 250 − 53.33 = 196.67, the second start 19.67;
    # frames 19.67 + i · 52.33/7 = 19.67 + 7.476·i
    second = eval_clips(250, 10, length=8, stride=8, protocol="slowfast", rate=Fraction(25))[1]
    assert second == [19, 27, 34, 42, 49, 57, 64, 72]
    unknown, thirty = (
        eval_clips(250, 10, length=8, stride=8, protocol="slowfast", rate=rate)
        for rate in (None, Fraction(30))
    )
    assert unknown == thirty
    for protocol in ("released", "mmaction2"):  # no other protocol uses the rate
        slow, fast = (
            eval_clips(250, 10, length=8, stride=8, protocol=protocol, rate=Fraction(rate))
            for rate in (10, 60)
        )
        assert slow == fast


def test_a_short_video_repeats_its_last_frame_in_pyslowfast_and_loops_elsewhere() -> None:
    # N = 5 < 8: the room is 0; 0 + i · 7/3 = 0, 2.33, 4.67, 7
    assert eval_clips(5, 2, length=4, stride=2, protocol="slowfast") == [[0, 2, 4, 4]] * 2
    assert eval_clips(5, 2, length=4, stride=2, protocol="mmaction2") == [[0, 2, 4, 1]] * 2
    assert eval_clips(5, 2, length=4, stride=2, protocol="released") == [[0, 2, 4, 1], [2, 4, 1, 3]]
    assert eval_clips(1, 1, length=1, stride=4, protocol="slowfast") == [[0]]


@pytest.mark.parametrize(("length", "stride"), [(32, 2), (8, 8), (32, 4), (128, 1)])
def test_exact_arithmetic_gives_what_float32_gives_in_pyslowfast(length: int, stride: int) -> None:
    """PySlowFast's own computation in float32 (linspace, clamp, round down), for lengths around the usual 300."""
    for num_frames in (*range(250, 310, 7), 40, 64, 65, 128, 129):
        room = max(num_frames - length * stride, 0)
        clips = eval_clips(num_frames, 10, length=length, stride=stride, protocol="slowfast")
        for k, frames in enumerate(clips):
            start = room * k / 10
            line = torch.linspace(start, start + length * stride - 1, length)
            assert frames == line.clamp(0, num_frames - 1).long().tolist()


@given(
    num_frames=sizes,
    num_clips=st.integers(1, 12),
    rate=st.none() | st.fractions(1, 240, max_denominator=1001),
    **clips,
)
def test_spread_frames_ascend_from_start_to_end(
    num_frames: int, num_clips: int, rate: Fraction | None, length: int, stride: int
) -> None:
    span = max(length * stride * (rate or 30) / Fraction(30), Fraction(1))
    room = max(num_frames - span, Fraction(0))
    made = eval_clips(num_frames, num_clips, length=length, stride=stride, protocol="slowfast", rate=rate)
    for k, frames in enumerate(made):
        start = room * k / num_clips
        assert len(frames) == length
        assert frames == sorted(frames)
        assert frames[0] == min(int(start), num_frames - 1)
        if length > 1:
            assert frames[-1] == min(int(start + span - 1), num_frames - 1)
            middle = start + (span - 1) * (length // 2) / (length - 1)
            assert frames[length // 2] == min(int(middle), num_frames - 1)


@given(num_frames=sizes, num_clips=st.integers(1, 12), **clips)
def test_every_protocol_gives_whole_clips_of_the_video(
    num_frames: int, num_clips: int, length: int, stride: int
) -> None:
    for protocol in get_args(Protocol):
        count = 1 if protocol == "single" else num_clips
        options = {"length": length, "stride": stride, "protocol": protocol}
        made = eval_clips(num_frames, count, **options)
        starts = eval_starts(num_frames, count, **options)
        assert [clip[0] for clip in made] == starts
        assert all(len(clip) == length and min(clip) >= 0 and max(clip) < num_frames for clip in made)
        if protocol != "slowfast":
            assert made == [
                clip_indices(start, length=length, stride=stride, num_frames=num_frames) for start in starts
            ]
        elif length > 1 and num_frames >= length * stride:
            assert made[0][-1] == length * stride - 1  # the whole span, not only (L − 1)·s of it


@given(num_frames=sizes, k=st.integers(1, 10), more=st.integers(1, 6), **clips)
def test_every_mth_clip_is_the_test_with_fewer_clips(
    num_frames: int, k: int, more: int, length: int, stride: int
) -> None:
    """⌊(j·m)·N/(k·m)⌋ = ⌊j·N/k⌋, and the same with the room: the condition for re-scoring on fewer clips."""
    for protocol in ("released", "paper", "slowfast"):
        options = {"length": length, "stride": stride, "protocol": protocol}
        assert eval_clips(num_frames, k * more, **options)[::more] == eval_clips(num_frames, k, **options)


def test_scaled_size_rounds_the_longer_side() -> None:
    assert scaled_size(240, 320, 256) == (256, 341)  # 320 · 256/240 = 341.3
    assert scaled_size(1280, 720, 256) == (455, 256)  # 1280 · 256/720 = 455.1
    assert scaled_size(32, 32, 32) == (32, 32)
    # 480 · 256/272 = 451.76; 600 · 256/512 is just 300, and 257 · 1/2 = 128.5
    assert scaled_size(272, 480, 256) == (256, 451)
    assert scaled_size(272, 480, 256, "nearest") == (256, 452)
    assert scaled_size(600, 512, 256, "nearest") == (300, 256)
    assert scaled_size(2, 257, 1, "nearest") == (1, 129)  # mmcv: int(128.5 + 0.5)


@given(height=sizes, width=sizes, short_side=sizes)
def test_scaled_size_keeps_the_shape(height: int, width: int, short_side: int) -> None:
    h, w = scaled_size(height, width, short_side)
    assert min(h, w) == short_side
    long, exact = max(h, w), max(height, width) * short_side / min(height, width)
    assert exact - 1 - 1e-6 < long <= exact + 1e-6
    nearest = scaled_size(height, width, short_side, "nearest")
    assert min(nearest) == short_side
    assert abs(max(nearest) - exact) <= 0.5 + 1e-6


def test_crops_along_the_longer_side() -> None:
    assert crop_offsets(256, 341, 256, 3) == [(0, 0), (0, 42), (0, 84)]  # ⌊85/2⌋ = 42; one pixel is missed
    assert crop_offsets(455, 256, 256, 3) == [(0, 0), (99, 0), (198, 0)]
    assert crop_offsets(256, 256, 256, 3) == [(0, 0)] * 3
    assert crop_offsets(300, 280, 256, 3) == [(0, 12), (22, 12), (44, 12)]
    assert crop_offsets(256, 341, 224, 1) == [(16, 58)]


def test_crops_to_both_ends() -> None:
    assert crop_offsets(256, 341, 256, 3, "ends") == [
        (0, 0),
        (0, 43),
        (0, 85),
    ]  # ⌈85/2⌉ = 43, and the last pixel
    assert crop_offsets(455, 256, 256, 3, "ends") == [(0, 0), (100, 0), (199, 0)]
    assert crop_offsets(256, 341, 224, 1, "ends") == [(16, 59)]
    assert crop_offsets(280, 280, 256, 3, "ends") == [(12, 0), (12, 12), (12, 24)]
    assert crop_offsets(280, 280, 256, 3) == [(0, 12), (12, 12), (24, 12)]


@given(height=sizes, width=sizes, data=st.data(), num_crops=st.sampled_from([1, 3]))
def test_crops_lie_in_the_frame(height: int, width: int, data: st.DataObject, num_crops: int) -> None:
    crop = data.draw(st.integers(1, min(height, width)))
    offsets = crop_offsets(height, width, crop, num_crops)
    assert len(offsets) == num_crops
    assert all(0 <= top <= height - crop and 0 <= left <= width - crop for top, left in offsets)
    if num_crops == 3:
        end = offsets[-1][0] + crop if height >= width else offsets[-1][1] + crop
        assert max(height, width) - end in (0, 1)
        reaching = crop_offsets(height, width, crop, 3, "ends")
        assert reaching[0][0] + reaching[0][1] == -(-(min(height, width) - crop) // 2)
        assert (reaching[-1][0] if height > width else reaching[-1][1]) == max(height, width) - crop


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(NlnetError, match="1 or more, got num_frames 0"):
        clip_indices(0, length=1, stride=1, num_frames=0)
    with pytest.raises(NlnetError, match="stride 0"):
        random_start(9, length=1, stride=0, draw=0.0)
    with pytest.raises(ValueError, match="start must be 0 or more, got -1"):
        clip_indices(-1, length=1, stride=1, num_frames=5)
    with pytest.raises(ValueError, match="count must be 1 or more, got 0: there is nothing to pick from"):
        pick(0, 0.5)
    with pytest.raises(ValueError, match=r"draw must lie in \[0, 1\), got 1.0"):
        pick(3, 1.0)
    with pytest.raises(NlnetError, match="num_clips must be 1 or more, got 0"):
        eval_starts(9, 0, length=1, stride=1)
    with pytest.raises(NlnetError, match="'single' takes one clip, got num_clips 3"):
        eval_starts(9, 3, length=1, stride=1, protocol="single")
    with pytest.raises(NlnetError, match="'single' takes one clip, got num_clips 2"):
        eval_clips(9, 2, length=1, stride=1, protocol="single")
    with pytest.raises(NlnetError, match="sizes must be 1 or more"):
        scaled_size(0, 5, 5)
    with pytest.raises(NlnetError, match="crop of 9 pixels does not fit a frame of 8×9"):
        crop_offsets(8, 9, 9, 1)
    with pytest.raises(NlnetError, match="num_crops must be 1 .centre. or 3 .*got 2"):
        crop_offsets(9, 9, 9, 2)


@pytest.mark.unhooked  # the shape checker would refuse the name before our own message
def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(
        NlnetError, match="expected one of released, paper, slowfast, mmaction2, mmaction2_v1, single"
    ):
        eval_starts(9, 1, length=1, stride=1, protocol="best")  # type: ignore[arg-type]

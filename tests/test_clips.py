import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlnet.data.clips import clip_indices, crop_offsets, pick, random_start, scaled_size, test_starts

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


# original code, testing: N = 300, 32 frames × stride 2, 10 clips
@pytest.mark.parametrize(
    ("protocol", "starts"),
    [
        ("released", [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]),
        ("slowfast", [0, 23, 47, 70, 94, 118, 141, 165, 188, 212]),  # ⌊k · 23.6⌋
        ("mmaction2", [0, 26, 52, 79, 105, 131, 157, 184, 210, 236]),  # k · 236/9 rounded
    ],
)
def test_starts_of_ten_clips(protocol: str, starts: list[int]) -> None:
    assert test_starts(300, 10, length=32, stride=2, protocol=protocol) == starts


def test_the_release_is_the_default_and_single_is_the_centre() -> None:
    assert test_starts(95, 10, length=8, stride=8) == [0, 9, 19, 28, 38, 47, 57, 66, 76, 85]
    assert test_starts(300, 1, length=32, stride=2, protocol="single") == [118]
    assert test_starts(300, 1, length=32, stride=2, protocol="mmaction2") == [118]


@given(num_frames=sizes, num_clips=st.integers(1, 30), **clips)
def test_starts_ascend_from_zero_inside_the_video(
    num_frames: int, num_clips: int, length: int, stride: int
) -> None:
    for protocol in ("released", "slowfast", "mmaction2"):
        if protocol == "mmaction2" and num_clips == 1:
            continue
        starts = test_starts(num_frames, num_clips, length=length, stride=stride, protocol=protocol)
        assert len(starts) == num_clips
        assert starts[0] == 0
        assert starts == sorted(starts)
        last = num_frames - 1 if protocol == "released" else max(num_frames - length * stride, 0)
        assert starts[-1] <= last
        if protocol == "mmaction2":
            assert starts[-1] == last


def test_scaled_size_cuts_the_longer_side_down() -> None:
    assert scaled_size(240, 320, 256) == (256, 341)  # 320 · 256/240 = 341.3
    assert scaled_size(1280, 720, 256) == (455, 256)  # 1280 · 256/720 = 455.1
    assert scaled_size(32, 32, 32) == (32, 32)


@given(height=sizes, width=sizes, short_side=sizes)
def test_scaled_size_keeps_the_shape(height: int, width: int, short_side: int) -> None:
    h, w = scaled_size(height, width, short_side)
    assert min(h, w) == short_side
    long, exact = max(h, w), max(height, width) * short_side / min(height, width)
    assert exact - 1 - 1e-6 < long <= exact + 1e-6


def test_crops_along_the_longer_side() -> None:
    assert crop_offsets(256, 341, 256, 3) == [(0, 0), (0, 42), (0, 84)]  # ⌊85/2⌋ = 42; one pixel is missed
    assert crop_offsets(455, 256, 256, 3) == [(0, 0), (99, 0), (198, 0)]
    assert crop_offsets(256, 256, 256, 3) == [(0, 0)] * 3
    assert crop_offsets(300, 280, 256, 3) == [(0, 12), (22, 12), (44, 12)]
    assert crop_offsets(256, 341, 224, 1) == [(16, 58)]


@given(height=sizes, width=sizes, data=st.data(), num_crops=st.sampled_from([1, 3]))
def test_crops_lie_in_the_frame(height: int, width: int, data: st.DataObject, num_crops: int) -> None:
    crop = data.draw(st.integers(1, min(height, width)))
    offsets = crop_offsets(height, width, crop, num_crops)
    assert len(offsets) == num_crops
    assert all(0 <= top <= height - crop and 0 <= left <= width - crop for top, left in offsets)
    if num_crops == 3:
        end = offsets[-1][0] + crop if height >= width else offsets[-1][1] + crop
        assert max(height, width) - end in (0, 1)


def test_numbers_that_make_no_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more, got num_frames 0"):
        clip_indices(0, length=1, stride=1, num_frames=0)
    with pytest.raises(ValueError, match="stride 0"):
        random_start(9, length=1, stride=0, draw=0.0)
    with pytest.raises(ValueError, match="got start -1"):
        clip_indices(-1, length=1, stride=1, num_frames=5)
    with pytest.raises(ValueError, match="nothing to pick from"):
        pick(0, 0.5)
    with pytest.raises(ValueError, match=r"a draw lies in \[0, 1\), got 1.0"):
        pick(3, 1.0)
    with pytest.raises(ValueError, match="got num_clips 0"):
        test_starts(9, 0, length=1, stride=1)
    with pytest.raises(ValueError, match="'single' is one clip, got num_clips 3"):
        test_starts(9, 3, length=1, stride=1, protocol="single")
    with pytest.raises(ValueError, match="sizes are 1 or more"):
        scaled_size(0, 5, 5)
    with pytest.raises(ValueError, match="crop of 9 does not fit a frame of 8×9"):
        crop_offsets(8, 9, 9, 1)
    with pytest.raises(ValueError, match="1 .centre. or 3"):
        crop_offsets(9, 9, 9, 2)


@pytest.mark.unhooked  # the shape checker would refuse the name before our own message
def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of released, slowfast, mmaction2, single"):
        test_starts(9, 1, length=1, stride=1, protocol="best")  # type: ignore[arg-type]

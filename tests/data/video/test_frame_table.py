import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlnet.data.video.frame_table import FrameTable, PacketInfo, counted_table, frame_table

# In decoding order: I0 P3 B1 B2 | I6 B4 B5 P8 B7, an open GOP: B4 and B5 are stored after I6 but shown before it.
OPEN_GOP = [
    PacketInfo(stamp, stamp in (0, 6), duration=1, size_bytes=9) for stamp in (0, 3, 1, 2, 6, 4, 5, 8, 7)
]


def table_of(packets: list[PacketInfo]) -> FrameTable:
    table = frame_table(packets)
    assert table is not None
    return table


def test_open_gop_starts_leading_frames_one_keyframe_earlier() -> None:
    table = table_of(OPEN_GOP)
    assert table.stamps == list(range(9))
    assert table.starts == [(0, 0), (6, 4)]
    assert [table.starts_for(stamp)[0] for stamp in (3, 4, 5)] == [(0, 0)] * 3
    assert [table.starts_for(stamp)[0] for stamp in (6, 7, 8)] == [(6, 4)] * 3
    assert table.starts_for(7) == [(6, 4), (0, 0)]


def test_starts_go_back_by_one_then_to_the_beginning() -> None:
    table = table_of([PacketInfo(stamp, True) for stamp in range(5)])
    assert table.starts_for(4) == [(4, 4), (3, 3), (0, 0)]
    assert table.starts_for(0) == [(0, 0)]


def test_leading_frames_of_a_headless_stream() -> None:
    table = table_of(OPEN_GOP[4:])
    assert table.leading() == [4, 5]
    assert table.without({4}).stamps == [5, 6, 7, 8]
    assert table.starts_for(4) == [(6, 0)]


def test_packets_before_the_first_keyframe_and_discarded_ones_are_no_frames() -> None:
    packets = [PacketInfo(9, False), PacketInfo(10, True, is_discarded=True), PacketInfo(11, False)]
    table = table_of(packets)
    assert table.stamps == [11]
    assert table.starts == [(10, 1)]


def test_last_frame_ends_as_the_file_says_or_lasts_as_the_one_before() -> None:
    assert table_of([PacketInfo(5, True, duration=3)]).end == 8
    assert table_of([PacketInfo(5, True)]).end == 5
    assert table_of([PacketInfo(5, True), PacketInfo(9, False)]).end == 13


@pytest.mark.parametrize("stamps", [[0, None, 2], [0, 1, 1]])
def test_missing_or_equal_stamps_give_no_table(stamps: list[int | None]) -> None:
    assert frame_table([PacketInfo(stamp, k == 0) for k, stamp in enumerate(stamps)]) is None


def test_a_stream_without_shown_frames_gives_no_table() -> None:
    assert frame_table([PacketInfo(0, True, is_discarded=True)]) is None


def test_counted_frames() -> None:
    assert counted_table(3, first_keyframe=2) == FrameTable([0, 1, 2], [(0, 2)], 3)


@given(stamps=st.lists(st.integers(-1000, 1000), min_size=1, unique=True), keys=st.sets(st.integers(0, 200)))
def test_frame_i_is_the_ith_smallest_stamp(stamps: list[int], keys: set[int]) -> None:
    packets = [PacketInfo(stamp, k == 0 or k in keys) for k, stamp in enumerate(stamps)]
    table = table_of(packets)
    assert table.stamps == sorted(stamps)
    assert table.end >= table.stamps[-1]
    for stamp in stamps:
        begin, position = table.starts_for(stamp)[0]
        assert packets[position] == PacketInfo(begin, True)
        assert begin <= stamp or position == 0

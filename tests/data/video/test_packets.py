from pathlib import Path

import pytest
from support.videos import write_video

from nlnet.data.video.packets import PacketSource

KINDS = {
    "a.mp4": {"options": {"g": "10"}},
    "a.mkv": {"options": {"g": "10"}},
    "a.ts": {"options": {"g": "10"}, "container": "mpegts"},
    "a.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.avi": {"codec": "mpeg4", "options": {"g": "10"}},
    "a.h264": {"options": {"g": "10"}, "container": "h264"},
}


@pytest.mark.parametrize("name", KINDS)
def test_packets_begin_at_any_position(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 30, **KINDS[name])  # type: ignore[arg-type]
    held, sought = PacketSource(path, hold_bytes=1 << 20), PacketSource(path, hold_bytes=0)
    whole = [bytes(packet) for _, packet in held.packets_from(0) if packet is not None]
    assert len(whole) == len(held.packets) == len(sought.packets) == 30
    for source in (held, sought):
        for position in (7, 29, 0, 10, 20, 11, 19, 1):
            packets = list(source.packets_from(position))
            assert [k for k, _ in packets] == list(range(position, 31))
            assert packets[-1][1] is None
            assert [bytes(packet) for _, packet in packets if packet is not None] == whole[position:]
        source.close()


def test_memory_is_held_up_to_the_limit(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    total = sum(packet.size_bytes for packet in PacketSource(path, hold_bytes=0).packets)
    assert len(PacketSource(path, hold_bytes=total)._held) == 30
    assert PacketSource(path, hold_bytes=total - 1)._held == []

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support.videos import write_video

from nlnet.data.check import Check, check_videos
from nlnet.data.video_list import VideoItem, VideoList


def test_each_video_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_video(tmp_path / "good.mp4", 30)
    damaged = write_video(tmp_path / "damaged.mp4", 30, size=(96, 128))
    data = bytearray(damaged.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 400] = b"\xa5" * 400
    damaged.write_bytes(data)
    videos = VideoList(
        tuple(VideoItem(path, 0) for path in (good, damaged, tmp_path / "gone.mp4")), ("a",), tmp_path
    )
    seen: list[Check] = []
    checks = check_videos(videos, progress=seen.append)
    assert seen == checks
    assert [check.item for check in checks] == list(videos.items)
    first, second, third = checks
    assert (first.error, first.num_frames, first.height, first.width) == (None, 30, 48, 64)
    assert first.duration_seconds == 1.2
    assert first.fps == 25
    assert second.error is not None
    assert second.error.startswith(f"{damaged}: frame ")
    assert second.fps is None
    assert third.error is not None
    assert "does not exist" in third.error
    monkeypatch.setattr("nlnet.data.check.VIDEOS_PER_TASK", 1)
    used: list[int] = []
    pool = ProcessPoolExecutor.__init__

    def watched(self: ProcessPoolExecutor, count: int, **options: object) -> None:
        used.append(count)
        pool(self, count, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ProcessPoolExecutor, "__init__", watched)
    assert check_videos(videos, processes=2) == checks
    assert used == [2]
    # decoding the first frame alone cannot detect damage in the middle
    assert [check.error is None for check in check_videos(videos, every_frame=False)] == [True, True, False]

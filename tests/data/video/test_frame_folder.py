"""Folders of frames as videos. Images are written by FFmpeg; each shows its number (tests/support/videos.py)."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.videos import number_of, numbered_frame, write_video

from nlnet.data.check import check_video
from nlnet.data.dataset import EvalViews, TrainClips
from nlnet.data.transforms import EvalTransform, TrainTransform
from nlnet.data.video.decode import Video
from nlnet.data.video.frame_folder import FrameFolder, open_video
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import VideoItem, VideoList


def write_image(path: Path, number: int, size: tuple[int, int] = (48, 64)) -> None:
    """Write the frame of this number as a .jpg or .png image."""
    codec, pix_fmt = {".jpg": ("mjpeg", "yuvj420p"), ".png": ("png", "rgb24")}[path.suffix]
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = *size, pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24").reformat(format=pix_fmt)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def write_frames(folder: Path, count: int, name: str = "img_{:05d}.jpg", start: int = 1) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        write_image(folder / name.format(k + start), k)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve frames, img_00001.jpg and so on."""
    return write_frames(tmp_path_factory.mktemp("frames") / "clip", 12)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of `original` that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "clip"))


@pytest.mark.parametrize(
    ("name", "start"), [("46GP8-{:06d}.jpg", 1), ("{}.png", 0), ("{}.jpg", 1), ("frame {:03d}.jpg", 0)]
)
def test_frames_come_by_number(name: str, start: int, tmp_path: Path) -> None:
    write_frames(tmp_path / "v", 11, name, start)
    (tmp_path / "v" / "notes.txt").touch()
    (tmp_path / "v" / ".hidden.jpg").touch()
    with FrameFolder(tmp_path / "v", fps=24.0) as video:
        assert (video.num_frames, video.height, video.width) == (11, 48, 64)
        assert video.nbytes == 11 * 48 * 64 * 3
        assert video.duration_seconds == 11 / 24
        frames = video.frames([10, 2, 2, 0])
    assert frames.dtype == torch.uint8
    assert [number_of(frame) for frame in frames.numpy()] == [10, 2, 2, 0]


def test_pixels_are_those_of_the_still_image(original: Path, tmp_path: Path) -> None:
    with Video(original / "img_00005.jpg") as still:
        assert torch.equal(FrameFolder(original).frames([4]), still.frames([0]))
    write_frames(tmp_path / "png", 2, "{}.png", 0)
    assert torch.equal(FrameFolder(tmp_path / "png").frames([1])[0], torch.from_numpy(numbered_frame(1)))


def test_no_frames_requested(original: Path) -> None:
    video = FrameFolder(original)
    assert video.frames([]).shape == (0, 0, 0, 3)
    assert video.duration_seconds is None
    with pytest.raises(ValueError, match="clip has frames 0 to 11, got 12"):
        video.frames([0, 12])


def test_only_the_frames_asked_for_are_decoded(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    read_frame = FrameFolder._read_frame

    def counted(self: FrameFolder, index: int) -> np.ndarray:
        decoded.append(index)
        return read_frame(self, index)

    monkeypatch.setattr(FrameFolder, "_read_frame", counted)
    assert FrameFolder(original).frames([9, 3, 9]).shape == (3, 48, 64, 3)
    assert decoded == [3, 9]


def _cut_in_the_middle(path: Path) -> None:
    """Put an end-of-image marker in the middle: the bytes after it belong to no image."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"\xff\xda") + 100  # the coded pixels begin with FFDA
    data[middle : middle + 2] = b"\xff\xd9"
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "img_00007.jpg").unlink(), "clip: lacks frame number 7 after img_00006.jpg; extract the frames"),
        (lambda d: (d / "img_00001.jpg").unlink(), "clip: begins at img_00002.jpg, but frames are numbered from 0 or 1; extract"),
        (lambda d: write_image(d / "img_3.jpg", 3), "img_00003.jpg and img_3.jpg have the same number; remove one"),
        (lambda d: write_image(d / "flow_x_00001.jpg", 3), "two series of images, flow_x_00001.jpg and img_00001.jpg, …"),
        (lambda d: write_image(d / "img_00013.png", 3), "two series of images, img_00001.jpg and img_00013.png, …"),
        (lambda d: write_image(d / "thumb.jpg", 3), "clip: the name of thumb.jpg does not end in a number; name the frames 000001.jpg"),
        (lambda d: [p.unlink() for p in d.iterdir()], "clip: is a folder without images"),
        (shutil.rmtree, "clip: cannot be read as a folder of frames .No such file"),
        (lambda d: write_image(d / "img_00004.jpg", 3, (64, 64)), "img_00004.jpg: is 64×64, but other frames are 48×64"),
        (lambda d: _cut_in_the_middle(d / "img_00004.jpg"), "img_00004.jpg: is damaged or cut short"),
        (lambda d: (d / "img_00004.jpg").write_bytes((d / "img_00004.jpg").read_bytes()[:-60]), "img_00004.jpg: is damaged or cut short"),
        (lambda d: (d / "img_00004.jpg").write_bytes(b""), "img_00004.jpg: is empty"),
        (lambda d: (d / "img_00004.jpg").write_bytes(b"no image"), "img_00004.jpg: (is damaged|holds 0 images)"),
        (lambda d: ((d / "img_00004.jpg").unlink(), (d / "img_00004.jpg").mkdir()), "img_00004.jpg: cannot be read"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_read_says_why(
    damage: Callable[[Path], object], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(VideoError, match=message):
        FrameFolder(folder).verify()


def test_a_wrong_number_of_frames_in_the_list(original: Path) -> None:
    assert open_video(VideoItem(original, 0, num_frames=12)).num_frames == 12
    with pytest.raises(
        VideoError, match="clip: holds 12 frames, but the list says 13; extract the frames again"
    ):
        open_video(VideoItem(original, 0, num_frames=13))


def test_data_sets_and_check_read_folders_as_they_read_videos(
    original: Path, folder: Path, tmp_path: Path
) -> None:
    _cut_in_the_middle(folder / "img_00007.jpg")
    file = write_video(tmp_path / "v.mp4", 12)
    videos = VideoList(
        (VideoItem(original, 0), VideoItem(folder, 1), VideoItem(file, 1)), ("a", "b"), tmp_path
    )
    plain = TrainTransform(crop=48, scales=(48, 48), flip=False)
    for cache_bytes in (0, 1 << 20):
        clips = TrainClips(videos, length=2, stride=6, transform=plain, cache_bytes=cache_bytes)
        sample = clips[0, 3]
        assert sample.clip is not None
        assert sample.clip.shape == (3, 2, 48, 48)
    views = EvalViews(videos, length=4, stride=3, num_clips=2, transform=EvalTransform(48, 48))
    assert views[0].starts == views[2].starts == (0, 6)
    assert views[1].failure == f"{folder}/img_00007.jpg: is damaged or cut short (Invalid data found when processing input); get the file again or take it out of the list"  # fmt: skip
    good, bad, _ = (check_video(item) for item in videos.items)
    assert (good.error, good.num_frames, good.height, good.width, good.fps) == (None, 12, 48, 64, None)
    assert bad.error == views[1].failure

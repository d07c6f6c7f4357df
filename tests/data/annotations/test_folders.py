from pathlib import Path

import pytest
from support.trees import touch

from nlnet.data.annotations.read import read_videos
from nlnet.data.video_list import VideoItem
from nlnet.errors import AnnotationError


def labels(path: Path, **options: object) -> list[object]:
    return [item.label for item in read_videos(path, **options).items]  # type: ignore[arg-type]


def test_class_folders_in_alphabetical_order(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.mp4", "run/a.MP4", "jump/x/y/deep.avi", "jump/c.webm")
    touch(tmp_path, ".git/z.mp4", "run/.hidden.mp4", "run/notes.txt", "jump/thumb.jpg", "README.md")
    videos = read_videos(tmp_path)
    assert videos.classes == ("jump", "run")
    assert videos.source == tmp_path
    assert len(videos) == 4
    assert videos.items == (
        VideoItem(tmp_path / "jump/c.webm", 0),
        VideoItem(tmp_path / "jump/x/y/deep.avi", 0),
        VideoItem(tmp_path / "run/a.MP4", 1),
        VideoItem(tmp_path / "run/b.mp4", 1),
    )


def test_given_classes_set_the_order_and_may_have_no_videos(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    (tmp_path / "swim").mkdir()
    videos = read_videos(str(tmp_path), classes=["swim", "run", "jump"])
    assert videos.classes == ("swim", "run", "jump")
    assert [item.label for item in videos.items] == [2, 1]


def test_images_alone_are_one_frame_videos(tmp_path: Path) -> None:
    assert labels(touch(tmp_path, "cat/1.jpg", "dog/2.png")) == [0, 1]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    videos = read_videos(touch(tmp_path, "b.mp4", "a.mp4"))
    assert [(item.path.name, item.label) for item in videos.items] == [("a.mp4", None), ("b.mp4", None)]
    assert videos.classes == ()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["notes.txt"], "holds no video; expected files ending in .mp4"),
        (["run/a.mp4", "loose.mp4"], r"both class folders and 1 videos beside them \(loose.mp4"),
        (
            ["run/a.mp4", "jump/notes.txt"],
            r"no videos in class folder jump \(1 of 2 class folders\); remove it, or give the class names",
        ),
        (
            ["run/1.jpg", "run/v1/1.jpg"],
            r"images both in class folders and deeper \(.*run/v1/1.jpg, …\).*set data.format=frames",
        ),
    ],
)
def test_folders_with_mistakes(files: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_videos(touch(tmp_path, *files))


def test_a_folder_that_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "runing/a.mp4")
    with pytest.raises(AnnotationError, match="runing is not one of the 2 classes; did you mean 'running'"):
        read_videos(tmp_path, classes=("running", "jump"))


def test_folders_of_frames_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "run/v1/0001.jpg", "run/v1/0002.jpg", "jump/deep/v2/img_1.png", "jump/deep/v2/notes.txt")
    videos = read_videos(tmp_path)
    assert videos.items == (VideoItem(tmp_path / "jump/deep/v2", 0), VideoItem(tmp_path / "run/v1", 1))
    assert videos.classes == ("jump", "run")
    assert videos.layout == "folders of frames in class folders"
    assert read_videos(tmp_path, format="frames") == videos


def test_format_frames_reads_images_as_videos(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    assert labels(tmp_path) == [0, 0, 1]
    videos = read_videos(tmp_path, format="frames")
    assert videos.items == (VideoItem(tmp_path / "a", None), VideoItem(tmp_path / "b", None))
    assert videos.layout == "folders of frames without labels"
    assert read_videos(tmp_path / "a", format="frames", classes=["x"]).items == (
        VideoItem(tmp_path / "a", None),
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.mp4"], "holds no video"),
        (
            ["a/1.jpg", "a/b/1.jpg"],
            "/a holds images, and so does .*/a/b inside it; a folder of frames must not contain another",
        ),
        (["a/1.jpg", "b/v/1.jpg"], r"both class folders and 1 videos beside them \(a, …\)"),
    ],
)
def test_folders_of_frames_with_mistakes(files: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_videos(touch(tmp_path, *files), format="frames")

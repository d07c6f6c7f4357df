"""The Kinetics format, on lines as in the official files."""

from pathlib import Path

import pytest
from support.trees import touch, write

from nlnet.data.annotations.read import read_videos
from nlnet.errors import AnnotationError

K400 = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,0wR5jVB-WPk,417,427,val,0
"air drumming",-0DwKcNBSyk,1,11,val,0
"tying knot (not on a tie)",_0-vbH2TSfA,1024,1034,val,1
"""
NAMES = ("0wR5jVB-WPk_000417_000427.mp4", "-0DwKcNBSyk_000001_000011.mp4", "_0-vbH2TSfA_001024_001034.mp4")
CLASSES = ("abseiling", "air drumming", "tying knot (not on a tie)")


@pytest.mark.parametrize(
    "folders",
    [
        ("", "", ""),
        tuple(f"{name}/" for name in CLASSES),
        ("val/abseiling/", "val/air_drumming/", "val/tying_knot_(not_on_a_tie)/"),
    ],
)
def test_one_folder_or_class_folders(folders: tuple[str, ...], tmp_path: Path) -> None:
    paths = [folder + name for folder, name in zip(folders, NAMES, strict=True)]
    videos = read_videos(
        write(tmp_path / "annotations/val.csv", K400), root=touch(tmp_path / "videos", *paths)
    )
    assert [item.path for item in videos.items] == [tmp_path / "videos" / path for path in paths]
    assert [item.label for item in videos.items] == [0, 1, 2]
    assert videos.classes == CLASSES
    assert videos.layout == "Kinetics CSV"


def test_classes_of_the_training_list_number_the_validation_list(tmp_path: Path) -> None:
    source = write(touch(tmp_path, *NAMES) / "val.csv", K400)
    videos = read_videos(source, classes=("yoga", *CLASSES[::-1]))
    assert [item.label for item in videos.items] == [3, 2, 1]
    with pytest.raises(AnnotationError, match="val.csv:3: 'air drumming' is not one of the 1 classes"):
        read_videos(source, classes=("abseiling",))


def test_test_files_of_600_and_700_have_no_labels(tmp_path: Path) -> None:
    text = "youtube_id,time_start,time_end,split\n---v8pgm1eQ,58,68,test\n--33Lscn6sk,4,14,test\n"
    touch(tmp_path, "---v8pgm1eQ_000058_000068.mp4", "--33Lscn6sk_000004_000014.mp4")
    videos = read_videos(write(tmp_path / "test.csv", text))
    assert [item.label for item in videos.items] == [None, None]
    assert videos.classes == ()


def test_missing_videos_are_an_error_or_left_out(tmp_path: Path) -> None:
    source = write(touch(tmp_path, NAMES[1]) / "val.csv", K400)
    with pytest.raises(
        AnnotationError, match=r"val.csv:2: 2 of 3 videos do not exist: .*0wR5jVB-WPk_000417_000427.mp4 \(val"
    ):
        read_videos(source)
    videos = read_videos(source, missing="leave_out")
    assert [(item.path.name, item.label) for item in videos.items] == [(NAMES[1], 1)]
    assert [path.name for path in videos.missing] == [NAMES[0], NAMES[2]]
    assert videos.classes == CLASSES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "yoga,abc,1.5,11,val,0",
            "val.csv:5: expected a youtube_id and whole seconds .*, got 'abc', '1.5', '11'",
        ),
        ("yoga,,1,11,val,0", "val.csv:5: expected a youtube_id"),
        (",abc,1,11,val,0", "val.csv:5: the label is empty, but other lines have one"),
    ],
)
def test_lines_with_mistakes(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_videos(write(touch(tmp_path, *NAMES) / "val.csv", K400 + line + "\n"))

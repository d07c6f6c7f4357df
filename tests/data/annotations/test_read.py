"""Recognising the format of a folder or file by its name and first line, and the table of formats."""

from pathlib import Path
from typing import get_args

import pytest
from support.trees import touch, write

from nlnet.data.annotations import read
from nlnet.data.annotations.format import AnnotationFormat
from nlnet.data.annotations.read import FORMATS, Format, read_videos, recognise
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError


def test_one_video_file(tmp_path: Path) -> None:
    path = touch(tmp_path, "a b.mp4") / "a b.mp4"
    videos = read_videos(path, classes=("x", "y"))
    assert videos.items == (VideoItem(path, None),)
    assert videos.layout == "one file"
    assert not videos.multilabel


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "val.csv",
            "label,youtube_id,time_start,time_end,split,is_cc\nabseiling,0wR5jVB-WPk,417,427,val,0\n",
            "kinetics",
        ),
        ("test.csv", "youtube_id,time_start,time_end,split\n---v8pgm1eQ,58,68,test\n", "kinetics"),
        (
            "v.csv",
            '"label","youtube_id","time_start","time_end","split"\n"golf","--sGO9m2Was",0,10,"val"\n',
            "kinetics",
        ),
        (
            "Charades_v1_train.csv",
            "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n",
            "charades",
        ),
        ("train.json", '[{"id": "1", "template": "Holding [something]"}]', "something"),
        ("test-answers.csv", "1420;Lifting something up completely\n", "something"),
        ("trainlist01.txt", "Archery/v_Archery_g08_c01.avi 3\n", "ucf101"),
        ("testlist03.txt", "Archery/v_Archery_g08_c01.avi\n", "ucf101"),
        ("trainlist.txt", "Archery/v_Archery_g08_c01.avi 3\n", "list"),
        ("val.csv", "a/b.mp4 3\n", "list"),
        ("list.txt", "12;a/b.mp4\n", "list"),
        ("list.txt", "\n# nothing\n", "list"),
    ],
)
def test_files_are_recognised(name: str, text: str, expected: str, tmp_path: Path) -> None:
    assert recognise(write(tmp_path / name, text)) == expected


def test_hmdb51_is_recognised_by_its_split_files(tmp_path: Path) -> None:
    splits = touch(tmp_path, "wave_test_split1.txt", "wave_test_split2.txt", "wave_test_split3.txt")
    assert recognise(splits / "test3") == "hmdb51"
    with pytest.raises(
        AnnotationError,
        match=r"holds the splits of HMDB51; give a part of a split, such as .*/train1 or .*/test1",
    ):
        read_videos(splits)
    with pytest.raises(AnnotationError, match="train4 does not exist"):
        read_videos(splits / "train4")


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="gone does not exist; expected a folder of class folders"):
        read_videos(tmp_path / "gone")
    with pytest.raises(AnnotationError, match="every class name must occur once, got 'a' more than once"):
        read_videos(tmp_path, classes=("a", "b", "a"))


def test_lists_of_frames_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.csv",
        'original_vido_id video_id frame_id path labels\n46GP8 0 0 46GP8/46GP8-000001.jpg ""\n',
    )
    with pytest.raises(
        AnnotationError, match="lists single frames, as PySlowFast does .*; give the data set's own CSV"
    ):
        read_videos(path)


def test_a_format_of_the_wrong_kind(tmp_path: Path) -> None:
    path = touch(tmp_path, "a/1.mp4") / "a/1.mp4"
    with pytest.raises(
        AnnotationError, match="1.mp4 is not a folder; format frames reads a folder in which every"
    ):
        read_videos(path, format="frames")
    with pytest.raises(
        AnnotationError, match="is not a file; format charades reads Charades_v1_train.csv or"
    ):
        read_videos(tmp_path, format="charades")


@pytest.mark.unhooked
def test_a_format_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        AnnotationError,
        match="unknown format 'lists'; expected one of auto, .*list, multilabel; did you mean 'list'",
    ):
        read_videos(touch(tmp_path, "a.txt") / "a.txt", format="lists")  # type: ignore[arg-type]


def test_the_names_of_formats_are_those_of_the_table() -> None:
    assert get_args(Format) == ("auto", *FORMATS)
    assert set(FORMATS) == {
        *("folders", "frames", "list", "multilabel", "kinetics", "ucf101", "hmdb51", "something", "charades")
    }


def test_a_new_format_is_one_entry_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []

    def read_new(source: Path, **options: object) -> VideoList:
        given.append(options)
        return VideoList((VideoItem(source, None),), (), source, "new")

    new = AnnotationFormat(
        title="a new file", read=read_new, recognises=lambda source, first_line: first_line == "new 1.0"
    )
    monkeypatch.setattr(read, "FORMATS", {"new": new, **FORMATS})
    source = write(tmp_path / "a.new", "\n new 1.0 \na.mp4 0\n")
    assert read_videos(source, root=str(tmp_path), classes=("x",), missing="leave_out").layout == "new"
    assert given == [{"root": tmp_path, "classes": ("x",), "missing": "leave_out"}]
    assert recognise(write(tmp_path / "b.new", "a.mp4 0\n")) == "list"


@pytest.mark.parametrize(
    ("name", "expected"), [("trainlist01.txt", "ucf101"), ("train.json", "something"), ("a.txt", "list")]
)
def test_a_file_that_is_not_utf8_is_recognised_by_its_name(name: str, expected: str, tmp_path: Path) -> None:
    """The error is then the reader's, which says what it expected."""
    (tmp_path / name).write_bytes(b"\xff\xfe\x00clip")
    assert recognise(tmp_path / name) == expected

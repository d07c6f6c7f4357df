from pathlib import Path

import pytest
from support.trees import touch, write

from nlnet.data.annotations.rows import Row, assemble, read_csv, read_text
from nlnet.data.video_list import VideoItem
from nlnet.errors import AnnotationError


def test_csv_fields_may_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        '\ufeffid, script,actions\r\nX,"He said ""go"", left,\nand ran",c001\r\n\r\nY,, \r\n',
    )
    assert read_csv(path, ("id", "actions")) == [
        (3, {"id": "X", "script": 'He said "go", left,\nand ran', "actions": "c001"}),
        (5, {"id": "Y", "script": "", "actions": ""}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,script\nX,y\n", "a.csv:1: expected the columns id, actions; missing: actions"),
        ("", "a.csv:1: expected the columns id, actions; missing: id, actions"),
        (
            "id,actions\nX,y\nZ,a,b\n",
            "a.csv:3: expected 2 fields as in the header, got 3; put a field with commas",
        ),
        ('id,actions\nX,"y\nZ,a\n', "a.csv:3: expected 2 fields .* close every quote"),
        (
            'id,actions\nX,"' + "y\n" * 70_000,
            "a.csv:.*: not a CSV file .*; is there a quote that is not closed",
        ),
        ('id,actions\n"X,y\nZ,a\n', "a.csv:3: expected 2 fields as in the header, got 1"),
    ],
)
def test_csv_mistakes(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_csv(write(tmp_path / "a.csv", text), ("id", "actions"))


def test_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\x00clip")
    with pytest.raises(AnnotationError, match="a.txt is not UTF-8 text .*; expected lines of this kind"):
        read_text(path, "lines of this kind")


def rows(folder: Path, *names: str) -> list[Row]:
    return [Row(f"list.txt:{k}", name, VideoItem(folder / name, 0)) for k, name in enumerate(names, 1)]


def test_missing_videos_are_an_error_or_left_out_and_recorded(tmp_path: Path) -> None:
    made = rows(touch(tmp_path, "a.mp4", "c/1.jpg"), "a.mp4", "b.mp4", "c", "d.mp4")
    source = tmp_path / "list.txt"
    with pytest.raises(
        AnnotationError,
        match=r"list.txt:2: 2 of 4 videos do not exist: .*b.mp4 \(list.txt:2\), .*d.mp4 \(list.txt:4\); they",
    ):
        assemble(source, made, ("x",), layout="list", folder=tmp_path, missing="error")
    videos = assemble(source, made, ("x",), layout="list", folder=tmp_path, missing="leave_out")
    assert [item.path.name for item in videos.items] == ["a.mp4", "c"]
    assert videos.missing == (tmp_path / "b.mp4", tmp_path / "d.mp4")


def test_a_list_without_any_of_its_videos_is_an_error_always(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="1 of 1 videos do not exist: .* elsewhere$"):
        assemble(
            tmp_path, rows(tmp_path, "a.mp4"), ("x",), layout="list", folder=tmp_path, missing="leave_out"
        )
    with pytest.raises(AnnotationError, match="lists no video; expected a list"):
        assemble(tmp_path, [], (), layout="a list", folder=tmp_path, missing="leave_out")


def test_one_video_twice(tmp_path: Path) -> None:
    made = rows(touch(tmp_path, "a.mp4"), "a.mp4", "a.mp4")
    with pytest.raises(
        AnnotationError, match="list.txt:2: a.mp4 is already listed at list.txt:1; remove one"
    ):
        assemble(tmp_path, made, ("x",), layout="list", folder=tmp_path, missing="error")

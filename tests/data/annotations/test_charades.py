"""The Charades format, on lines as in the official files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import touch, write

from nlnet.data.annotations.charades import actions
from nlnet.data.annotations.read import read_videos
from nlnet.errors import AnnotationError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = (
    HEADER
    + "46GP8,HR43,Kitchen,6,7,Yes,A person cooking food on a stove before looking out of a window.,food;stove;window,"
    + '"A person cooks food on a stove, then looks out.;Person smiles.",c002 11.90 21.20;c001 0.00 12.60;c002 24.50 30.00,30.21\n'
    + '5LTQL,3LJF,Bedroom,5,6,Yes,"One person sits, ""waiting"".",,A person sits.,,12\n'
)
CLASSES = (
    "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Taking some clothes from somewhere\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(tmp_path / "Charades" / "Charades_v1_classes.txt", CLASSES)
    return write(tmp_path / "Charades" / "Charades_v1_train.csv", TRAIN)


def test_a_video_has_the_set_of_its_actions(source: Path, tmp_path: Path) -> None:
    videos = read_videos(source, root=touch(tmp_path / "Charades_v1_480", "46GP8.mp4", "5LTQL.mp4"))
    # c002 happens twice; the second video shows nothing and is a video all the same
    assert [(item.path.name, item.label) for item in videos.items] == [
        ("46GP8.mp4", (1, 2)),
        ("5LTQL.mp4", ()),
    ]
    assert videos.multilabel
    assert videos.classes == tuple(CLASSES.strip().split("\n"))
    assert {item.fps for item in videos.items} == {None}
    again = read_videos(source, root=tmp_path / "Charades_v1_480", classes=videos.classes[::-1])
    assert again.items[0].label == (0, 1)


def test_frame_folders_are_24_frames_a_second(source: Path, tmp_path: Path) -> None:
    root = touch(tmp_path / "Charades_v1_rgb", "46GP8/46GP8-000001.jpg", "5LTQL/5LTQL-000001.jpg")
    videos = read_videos(source, root=root)
    assert [(item.path, item.fps) for item in videos.items] == [
        (root / "46GP8", 24.0),
        (root / "5LTQL", 24.0),
    ]


@given(st.lists(st.tuples(st.integers(0, 156), st.floats(0, 1e3), st.floats(0, 1e3))))
def test_any_actions(triplets: list[tuple[int, float, float]]) -> None:
    field = ";".join(f"c{k:03d} {start:.2f} {end:.2f}" for k, start, end in triplets)
    assert actions(field, {f"c{k:03d}": k for k in range(157)}, "") == tuple(
        sorted({k for k, _, _ in triplets})
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("c001 1.00", "x.csv:2: expected actions `c092 11.90 21.20;…` .*, got 'c001 1.00'"),
        ("c001 1.00 2.00;c009 1.00 2.00", "x.csv:2: 'c009' is not one of the 3 action classes"),
    ],
)
def test_actions_with_mistakes(field: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        actions(field, {"c000": 0, "c001": 1, "c002": 2}, "x.csv:2")


def test_no_class_names(source: Path) -> None:
    (source.parent / "Charades_v1_classes.txt").unlink()
    with pytest.raises(
        AnnotationError,
        match="expected Charades_v1_classes.txt in the same folder; or give that file as data.classes",
    ):
        read_videos(source)

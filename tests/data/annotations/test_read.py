"""Which reader a folder or file goes to, by its name and header alone, and what is said where that is impossible."""

from pathlib import Path

import pytest
from support.trees import touch, write

from nlnet.data.annotations.read import read_videos, recognise
from nlnet.data.video_list import VideoItem


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
        ValueError, match=r"holds the splits of HMDB51; name a part of one, such as .*/train1 or .*/test1"
    ):
        read_videos(splits)
    with pytest.raises(ValueError, match="train4 does not exist"):
        read_videos(splits / "train4")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone does not exist; expected a folder of class folders"):
        read_videos(tmp_path / "gone")
    with pytest.raises(ValueError, match="given once each, got 'a' more than once"):
        read_videos(tmp_path, classes=("a", "b", "a"))


def test_lists_of_frames_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.csv",
        'original_vido_id video_id frame_id path labels\n46GP8 0 0 46GP8/46GP8-000001.jpg ""\n',
    )
    with pytest.raises(
        ValueError, match="lists single frames, as PySlowFast does .*; give the data set's own CSV"
    ):
        read_videos(path)


def test_a_format_of_the_wrong_kind(tmp_path: Path) -> None:
    path = touch(tmp_path, "a/1.mp4") / "a/1.mp4"
    with pytest.raises(ValueError, match="1.mp4 is no folder; format frames reads one"):
        read_videos(path, format="frames")
    with pytest.raises(ValueError, match="is no file; format charades reads one"):
        read_videos(tmp_path, format="charades")


@pytest.mark.unhooked
def test_a_format_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'lmdb'; expected one of auto, folders, frames"):
        read_videos(touch(tmp_path, "a.txt") / "a.txt", format="lmdb")  # type: ignore[arg-type]

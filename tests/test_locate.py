from pathlib import Path

import pytest
from made_trees import touch

from nlnet.data.locate import locate


def test_files_and_frame_folders_anywhere_below_the_root(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.mp4", "x/b.WEBM", "x/y/c/000001.jpg", "x/y/c/c.mp4", ".trash/d.mp4", "d.txt", "e.f.avi"
    )
    found = locate(tmp_path, dict.fromkeys(("a", "b", "c", "d", "e.f")), suffix=".mkv")
    assert found == {
        "a": tmp_path / "a.mp4",
        "b": tmp_path / "x/b.WEBM",
        "c": tmp_path / "x/y/c",  # a wanted folder is a folder of frames, and nothing in it is looked at
        "d": tmp_path / "d.mkv",
        "e.f": tmp_path / "e.f.avi",
    }


def test_of_two_finds_the_one_in_the_folder_of_its_class(tmp_path: Path) -> None:
    touch(tmp_path, "air_drumming/a.mp4", "old/a.mp4")
    assert locate(tmp_path, {"a": "air drumming"}, suffix=".mp4") == {"a": tmp_path / "air_drumming/a.mp4"}
    assert locate(tmp_path, {"a": "old"}, suffix=".mp4") == {"a": tmp_path / "old/a.mp4"}
    with pytest.raises(
        ValueError, match=r"a is there more than once, .*a.mp4 and .*a.mp4; give a root that holds each"
    ):
        locate(tmp_path, {"a": "yoga"}, suffix=".mp4")
    with pytest.raises(ValueError, match="a is there more than once"):
        locate(tmp_path, {"a": None}, suffix=".mp4")


def test_links_that_lead_back_up(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/b.mp4")
    for folder in ("x", "y"):
        (tmp_path / folder / "up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / folder / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "z").symlink_to(tmp_path / "y", target_is_directory=True)
    found = locate(tmp_path, {"a": None, "b": None}, suffix=".mp4")
    assert found == {"a": tmp_path / "x/a.mp4", "b": tmp_path / "y/b.mp4"}


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone is no folder; expected the root of the videos"):
        locate(tmp_path / "gone", {"a": None}, suffix=".mp4")

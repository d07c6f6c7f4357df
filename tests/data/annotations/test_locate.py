import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.trees import touch

from nlnet.data.annotations.locate import locate
from nlnet.errors import AnnotationError


def test_files_and_frame_folders_anywhere_below_the_root(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.mp4", "x/b.WEBM", "x/y/c/000001.jpg", "x/y/c/c.mp4", ".trash/d.mp4", "d.txt", "e.f.avi"
    )
    found = locate(tmp_path, dict.fromkeys(("a", "b", "c", "d", "e.f")), suffix=".mkv")
    assert found == {
        "a": tmp_path / "a.mp4",
        "b": tmp_path / "x/b.WEBM",
        "c": tmp_path / "x/y/c",  # a wanted folder is a folder of frames, which is not searched
        "d": tmp_path / "d.mkv",
        "e.f": tmp_path / "e.f.avi",
    }


def test_of_two_files_the_one_in_the_folder_of_its_class_wins(tmp_path: Path) -> None:
    touch(tmp_path, "air_drumming/a.mp4", "old/a.mp4")
    assert locate(tmp_path, {"a": "air drumming"}, suffix=".mp4") == {"a": tmp_path / "air_drumming/a.mp4"}
    assert locate(tmp_path, {"a": "old"}, suffix=".mp4") == {"a": tmp_path / "old/a.mp4"}
    with pytest.raises(
        AnnotationError, match=r"a was found more than once, .*a.mp4 and .*a.mp4; give a root that holds each"
    ):
        locate(tmp_path, {"a": "yoga"}, suffix=".mp4")
    with pytest.raises(AnnotationError, match="a was found more than once"):
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
    with pytest.raises(AnnotationError, match="gone is not a folder; expected the root folder of the videos"):
        locate(tmp_path / "gone", {"a": None}, suffix=".mp4")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Counts, by folder, the entries that are read inside the context."""
    read: dict[str, int] = {}
    scandir = os.scandir

    class Counted:
        def __init__(self, folder: str | Path) -> None:
            self.name, self.entries = str(folder), scandir(folder)
            read.setdefault(self.name, 0)

        def __enter__(self) -> "Counted":
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def close(self) -> None:
            self.entries.close()

        def __iter__(self) -> "Counted":
            return self

        def __next__(self) -> "os.DirEntry[str]":
            entry = next(self.entries)
            read[self.name] += 1
            return entry

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Counted)
        yield read


def test_videos_in_the_root_are_found_without_searching_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Charades: ten thousand folders of frames in one folder, and lists that name some of them."""
    touch(
        tmp_path, *(f"{name}/{name}-{k:06d}.jpg" for name in ("A", "B", "C") for k in range(1, 41)), "D.mp4"
    )
    with counted(monkeypatch) as read:
        found = locate(tmp_path, {"A": None, "D": None}, suffix=".mp4")
    assert found == {"A": tmp_path / "A", "D": tmp_path / "D.mp4"}
    assert read == {str(tmp_path): 4}
    with counted(monkeypatch) as read:
        found = locate(tmp_path, {"A": None, "gone": None}, suffix=".mp4")
    assert found == {"A": tmp_path / "A", "gone": tmp_path / "gone.mp4"}
    # the entries of the other folders of frames are not all read
    assert read == {str(tmp_path): 4, str(tmp_path / "B"): 16, str(tmp_path / "C"): 16}


def test_thumbnails_beside_videos(tmp_path: Path) -> None:
    names = [f"v_{k:02d}" for k in range(30)]
    touch(tmp_path, *(f"yoga/{name}.jpg" for name in names), *(f"yoga/{name}.avi" for name in names))
    touch(tmp_path, "a.jpg", *(f"{k}.png" for k in range(30)))
    found = locate(tmp_path, dict.fromkeys(names), suffix=".avi")
    assert found == {name: tmp_path / "yoga" / f"{name}.avi" for name in names}
    touch(tmp_path, "v_03.avi")
    assert locate(tmp_path, {"v_03": "yoga"}, suffix=".avi") == {"v_03": tmp_path / "v_03.avi"}

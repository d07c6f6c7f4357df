"""Where on the disk the videos lie that an official annotation file names."""

import os
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from pathlib import Path

from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Wanted = Container[str]
"""Names of videos, without suffix."""

FRAMES_SEEN = 16
"""A folder that begins with so many images is one of frames, which may be thousands: it is not read to its end."""


def locate(root: Path, wanted: Mapping[str, str | None], *, suffix: str) -> dict[str, Path]:
    """The path of each wanted video: a file `NAME.mp4` (or another video suffix) or a folder of frames `NAME`.

    It may lie in `root` or in any folder below; a data set is found in one folder and in class folders alike. What
    lies in `root` itself counts, and folders below are looked into only for what does not. Names come without suffix,
    each with its class, or None. Of several finds below the one in a folder of the class's name counts (`air drumming`
    or `air_drumming`); what then is not one is a ValueError. The path of a video that is not there is `root/NAME` with
    `suffix`. Hidden folders are passed over, a wanted folder and one of frames are not entered, and one that links
    lead to more than once is entered once.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; expected the root of the videos")
    found: dict[str, list[Path]] = {}
    finds, folders = _look_into(root, wanted, perhaps_frames=False)
    for name, path in finds:
        found.setdefault(name, []).append(path)
    left = wanted.keys() - found.keys()
    for name, path in _below(root, folders, left) if left else ():
        found.setdefault(name, []).append(path)
    return {
        name: _the_one(name, label, found[name]) if name in found else root / f"{name}{suffix}"
        for name, label in wanted.items()
    }


def _below(root: Path, folders: list[Path], wanted: Wanted) -> Iterator[tuple[str, Path]]:
    """The wanted videos in these folders and deeper; each real folder is read once, as links may lead back up."""
    entered = {os.path.realpath(root)}
    waiting = folders[::-1]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            finds, deeper = _look_into(folder, wanted)
        except OSError:  # it may not be read; what is then not found is told
            continue
        yield from finds
        waiting += deeper[::-1]


def _look_into(
    folder: Path, wanted: Wanted, *, perhaps_frames: bool = True
) -> tuple[list[tuple[str, Path]], list[Path]]:
    """The wanted videos in a folder, and the folders in it that may hold more."""
    finds, folders = [], []
    with os.scandir(folder) as entries:
        first = list(islice(entries, FRAMES_SEEN))
        if perhaps_frames and len(first) == FRAMES_SEEN and all(_is_frame(entry, wanted) for entry in first):
            return [], []
        for entry in (*first, *entries):
            name, ending = os.path.splitext(entry.name)
            if ending.lower() in VIDEO_SUFFIXES and name in wanted:
                finds.append((name, folder / entry.name))
            elif entry.is_dir():
                if entry.name in wanted:
                    finds.append((entry.name, folder / entry.name))
                elif not entry.name.startswith("."):
                    folders.append(folder / entry.name)
    return sorted(finds), sorted(folders)


def _is_frame(entry: "os.DirEntry[str]", wanted: Wanted) -> bool:
    """Whether it is an image, and not that of a wanted video beside it."""
    name, ending = os.path.splitext(entry.name)
    return ending.lower() in IMAGE_SUFFIXES and name not in wanted


def _the_one(name: str, label: str | None, paths: list[Path]) -> Path:
    if len(paths) > 1 and label is not None:
        paths = [path for path in paths if _spaced(path.parent.name) == _spaced(label)] or paths
    if len(paths) > 1:
        raise ValueError(
            f"{name} is there more than once, {paths[0]} and {paths[1]}; give a root that holds each video once"
        )
    return paths[0]


def _spaced(name: str) -> str:
    return name.replace("_", " ")

"""Search the folders of a data set for the videos that an official annotation file names."""

import os
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from pathlib import Path

from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from nlnet.errors import AnnotationError

Wanted = Container[str]
"""Names of videos, without suffix."""

FRAMES_SEEN = 16
"""A folder whose first entries, this many, are all images is a folder of frames; the rest of it is not read."""


def locate(root: Path, wanted: Mapping[str, str | None], *, suffix: str) -> dict[str, Path]:
    """The path of each wanted video: a file `NAME.mp4` (or another video suffix) or a folder of frames `NAME`.

    `wanted` maps names without suffix to their class, or None. Videos may lie in `root` or in any folder below, so that
    a data set in one folder and one in class folders are both found. A video in `root` itself wins; folders below are
    searched only for the others. Of several files below, the one in a folder with the name of the class wins (`air
    drumming` or `air_drumming`); if that leaves more than one, AnnotationError is raised. The path of a video that is
    not found is `root/NAME` with `suffix`.

    Hidden folders are ignored, folders of frames are not entered, and a folder that several symbolic links lead to is
    entered once.
    """
    if not root.is_dir():
        raise AnnotationError(f"{root} is not a folder; expected the root folder of the videos")
    found: dict[str, list[Path]] = {}
    # the root is never a folder of frames, even if images lie in it
    finds, folders = _scan(root, wanted, perhaps_frames=False)
    for name, path in finds:
        found.setdefault(name, []).append(path)
    left = wanted.keys() - found.keys()
    for name, path in _search_below(root, folders, left) if left else ():
        found.setdefault(name, []).append(path)
    return {
        name: _single_path(name, label, found[name]) if name in found else root / f"{name}{suffix}"
        for name, label in wanted.items()
    }


def _search_below(root: Path, folders: list[Path], wanted: Wanted) -> Iterator[tuple[str, Path]]:
    """The wanted videos in these folders and deeper, depth first."""
    entered = {os.path.realpath(root)}
    waiting = folders[::-1]  # a stack: reversed, so that folders are searched in alphabetical order
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)  # a symbolic link may lead back up, and the search would not end
        if real in entered:
            continue
        entered.add(real)
        try:
            finds, deeper = _scan(folder, wanted)
        except OSError:  # no permission: the videos in it are then reported as missing
            continue
        yield from finds
        waiting += deeper[::-1]


def _scan(
    folder: Path, wanted: Wanted, *, perhaps_frames: bool = True
) -> tuple[list[tuple[str, Path]], list[Path]]:
    """The wanted videos directly in a folder, and the folders in it that may hold more."""
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
    return sorted(finds), sorted(folders)  # the order of scandir differs from disk to disk


def _is_frame(entry: "os.DirEntry[str]", wanted: Wanted) -> bool:
    """Whether an entry is an image, other than a thumbnail named like a wanted video."""
    name, ending = os.path.splitext(entry.name)
    return ending.lower() in IMAGE_SUFFIXES and name not in wanted


def _single_path(name: str, label: str | None, paths: list[Path]) -> Path:
    """The one path of a video among those found. Raises AnnotationError if it is not unique."""
    if len(paths) > 1 and label is not None:
        paths = [path for path in paths if _with_spaces(path.parent.name) == _with_spaces(label)] or paths
    if len(paths) > 1:
        raise AnnotationError(
            f"{name} was found more than once, {paths[0]} and {paths[1]}; give a root that holds each video once"
        )
    return paths[0]


def _with_spaces(name: str) -> str:
    return name.replace("_", " ")

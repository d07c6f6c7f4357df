"""Where on the disk the videos lie that an official annotation file names."""

import os
from collections.abc import Mapping
from pathlib import Path

from nlnet.data.videolist import VIDEO_SUFFIXES


def locate(root: Path, wanted: Mapping[str, str | None], *, suffix: str) -> dict[str, Path]:
    """The path of each wanted video: a file `NAME.mp4` (or another video suffix) or a folder of frames `NAME`.

    It may lie in `root` or in any folder below; a data set is found in one folder and in class folders alike. Names
    come without suffix, each with its class, or None. Of several finds the one in a folder of the class's name counts
    (`air drumming` or `air_drumming`); what then is not one is a ValueError. The path of a video that is not there is
    `root/NAME` with `suffix`. Hidden folders are passed over, a wanted folder is not entered, and
    one that links lead to more than once is entered once.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; expected the root of the videos")
    found: dict[str, list[Path]] = {}
    entered: set[str] = set()  # links may lead back up
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here, real = Path(folder), os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        for file in files:
            name, ending = os.path.splitext(file)
            if name in wanted and ending.lower() in VIDEO_SUFFIXES:
                found.setdefault(name, []).append(here / file)
        for name in subfolders:
            if name in wanted:
                found.setdefault(name, []).append(here / name)
        subfolders[:] = sorted(s for s in subfolders if s not in wanted and not s.startswith("."))
    return {
        name: _the_one(name, label, found[name]) if name in found else root / f"{name}{suffix}"
        for name, label in wanted.items()
    }


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

"""Labelled videos from what people have on disk: folders, lists, and the official files of the data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from nlnet.data.annotations import charades, kinetics
from nlnet.data.annotations.charades import read_charades
from nlnet.data.annotations.class_names import check_distinct
from nlnet.data.annotations.folders import read_folders
from nlnet.data.annotations.kinetics import read_kinetics
from nlnet.data.annotations.lists import read_list
from nlnet.data.annotations.rows import Missing, read_text
from nlnet.data.annotations.something_something import ANSWER, read_somethings
from nlnet.data.annotations.ucf_hmdb import HMDB51_PART, UCF101_NAME, read_hmdb51, read_ucf101
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoItem, VideoList

Format = Literal[
    "auto", "folders", "frames", "list", "multilabel", "kinetics", "ucf101", "hmdb51", "something", "charades"
]


def read_videos(
    source: Path | str,
    *,
    root: Path | str | None = None,
    classes: Sequence[str] | None = None,
    format: Format = "auto",
    missing: Missing = "error",
) -> VideoList:
    """The videos that `source` names.

    ============ ============================================================================== ===================
    `format`     `source`                                                                       reader
    ============ ============================================================================== ===================
    folders      a folder of class folders of videos, images or folders of frames               `read_folders`
    frames       a folder in which every folder with images is a video                          `read_folders`
    list         a text file: `path label`, `path`, `folder frames label` or `path 1 2 3`       `read_list`
    multilabel   the same, where each video has any number of labels, perhaps none              `read_list`
    kinetics     a CSV file with columns youtube_id, time_start, time_end and mostly label      `read_kinetics`
    ucf101       trainlist0N.txt or testlist0N.txt, beside classInd.txt                         `read_ucf101`
    hmdb51       train1 … test3 in the folder of the *_test_splitN.txt files                    `read_hmdb51`
    something    Something-Something V2: train.json, validation.json, test.json, …              `read_somethings`
    charades     Charades_v1_train.csv or Charades_v1_test.csv                                  `read_charades`
    ============ ============================================================================== ===================

    `auto` tells them by name and header; it never takes `frames` or a `multilabel` list with one label a line. A video
    or image file is one item without a label.

    Args:
        root: where relative paths start and named videos are looked for; by default where `source` is.
        classes: the names of the classes in order (`read_classes`), if they are not to come from `source`.
        missing: whether videos that an annotation file names and the disk lacks are an error or left out.

    Raises ValueError naming the file and line, what was expected and what to change.
    """
    source = Path(source)
    folder = None if root is None else Path(root)
    if classes is not None:
        check_distinct(classes)
    if format == "auto" and source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        return VideoList((VideoItem(source, None),), tuple(classes or ()), source, "one file")
    chosen = recognise(source) if format == "auto" else format
    if chosen != "hmdb51":
        _check_kind(source, chosen)
    match chosen:
        case "folders" | "frames":
            return read_folders(source, classes=classes, frames=chosen == "frames")
        case "list" | "multilabel":
            many = chosen == "multilabel"
            return read_list(source, root=folder, classes=classes, missing=missing, multilabel=many)
        case "kinetics":
            return read_kinetics(source, root=folder, classes=classes, missing=missing)
        case "ucf101":
            return read_ucf101(source, root=folder, classes=classes, missing=missing)
        case "hmdb51":
            return read_hmdb51(source, root=folder, classes=classes, missing=missing)
        case "something":
            return read_somethings(source, root=folder, classes=classes, missing=missing)
        case "charades":
            return read_charades(source, root=folder, classes=classes, missing=missing)
    raise ValueError(f"unknown format {chosen!r}; expected one of {', '.join(get_args(Format))}")


def recognise(source: Path) -> Format:
    """The format of a folder or annotation file; a text file that is nothing else is a `list`."""
    if source.is_dir():
        if any(source.glob("*_test_split1.txt")):
            raise ValueError(
                f"{source} holds the splits of HMDB51; name a part of one, such as {source / 'train1'} or "
                f"{source / 'test1'} (no such file need exist), and the folder of the videos as root"
            )
        return "folders"
    part = HMDB51_PART.fullmatch(source.name)
    if part is not None and not source.exists() and any(source.parent.glob(f"*_test_split{part[2]}.txt")):
        return "hmdb51"
    if not source.is_file():
        raise ValueError(
            f"{source} does not exist; expected a folder of class folders, a list or other annotation file, or a video"
        )
    if source.suffix.lower() == ".json":
        return "something"
    if UCF101_NAME.fullmatch(source.name):
        return "ucf101"
    first = next(
        (line.strip() for line in read_text(source, "lines `path label`").splitlines() if line.strip()), ""
    )
    columns = {column.strip().strip('"') for column in first.split(",")}
    if columns >= set(kinetics.COLUMNS):
        return "kinetics"
    if columns >= set(charades.COLUMNS):
        return "charades"
    if first.startswith("original_vido_id"):
        raise ValueError(
            f"{source} lists single frames, as PySlowFast does for Charades and Something-Something; "
            "give the data set's own CSV or JSON file, and the folder of the frames as root"
        )
    return "something" if ANSWER.fullmatch(first) and Path(first).suffix == "" else "list"


def _check_kind(source: Path, format: Format) -> None:
    """Raise where a folder is given for a file or the other way round."""
    wants_folder = format in ("folders", "frames")
    if wants_folder and not source.is_dir():
        raise ValueError(f"{source} is no folder; format {format} reads one")
    if not wants_folder and not source.is_file():
        raise ValueError(f"{source} is no file; format {format} reads one")

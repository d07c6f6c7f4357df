"""Read labelled videos from a folder, a list, or the official annotation file of a data set.

A new format is one file beside this one that defines an `AnnotationFormat`, and one line in the table FORMATS.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nlnet.data.annotations.charades import CHARADES
from nlnet.data.annotations.class_names import check_distinct
from nlnet.data.annotations.folders import FOLDERS, FRAMES
from nlnet.data.annotations.format import AnnotationFormat, first_line
from nlnet.data.annotations.kinetics import KINETICS
from nlnet.data.annotations.lists import LIST, MULTILABEL
from nlnet.data.annotations.rows import Missing
from nlnet.data.annotations.something_something import SOMETHING_SOMETHING
from nlnet.data.annotations.ucf_hmdb import HMDB51, UCF101
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoItem, VideoList
from nlnet.errors import AnnotationError, did_you_mean

FORMATS: dict[str, AnnotationFormat] = {
    "hmdb51": HMDB51,
    "ucf101": UCF101,
    "something": SOMETHING_SOMETHING,
    "kinetics": KINETICS,
    "charades": CHARADES,
    "folders": FOLDERS,
    "frames": FRAMES,
    "list": LIST,
    "multilabel": MULTILABEL,
}
"""The table of formats. `auto` takes the first that recognises the source: official formats before general ones."""

if TYPE_CHECKING:
    Format = str  # mypy does not accept a Literal whose names are computed
else:
    Format = Literal["auto", *FORMATS]


def read_videos(
    source: Path | str,
    *,
    root: Path | str | None = None,
    classes: Sequence[str] | None = None,
    format: Format = "auto",
    missing: Missing = "error",
) -> VideoList:
    """Read the videos of a folder, list or annotation file, with their labels.

    Args:
        source: what FORMATS describes under the name `format`; for `auto` also a single video or image file, which
            gives one item without a label.
        root: where relative paths start and named videos are searched for; by default the folder of `source`.
        classes: the class names in order (`read_classes`), if they are not to come from `source`.
        format: a name of FORMATS; `auto` recognises the format by file name and first line, but never `frames`, nor
            `multilabel` for a list with one label a line.
        missing: whether videos that an annotation file names but that are not on disk are an error, or left out and
            recorded in the list's `missing`.

    Raises AnnotationError naming the file and line, what was expected and what to change.
    """
    source = Path(source)
    if format != "auto" and format not in FORMATS:
        names = ("auto", *FORMATS)
        raise AnnotationError(
            f"unknown format {format!r}; expected one of {', '.join(names)}{did_you_mean(format, names)}"
        )
    if classes is not None:
        check_distinct(classes)
    if format == "auto" and source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        return VideoList((VideoItem(source, None),), tuple(classes or ()), source, "one file")
    name = recognise(source) if format == "auto" else format
    chosen = FORMATS[name]
    if (chosen.source == "file" and not source.is_file()) or (
        chosen.source == "folder" and not source.is_dir()
    ):
        raise AnnotationError(f"{source} is not a {chosen.source}; format {name} reads {chosen.title}")
    return chosen.read(source, root=None if root is None else Path(root), classes=classes, missing=missing)


def recognise(source: Path) -> str:
    """The name in FORMATS of the format of a folder or file; `list` for a text file in no other format."""
    first = first_line(source)
    name = next((name for name, format in FORMATS.items() if format.recognises(source, first)), None)
    if name is None:
        raise AnnotationError(
            f"{source} does not exist; expected a folder of class folders, a list or other annotation file, or a video"
        )
    return name

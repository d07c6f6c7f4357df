"""The Charades format as officially released: a CSV file of videos, each with any number of 157 actions."""

import re
from collections.abc import Sequence
from pathlib import Path

from nlnet.data.annotations.class_names import read_classes
from nlnet.data.annotations.format import AnnotationFormat, header_columns
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, read_csv
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError

COLUMNS = ("id", "actions")
CLASSES = "Charades_v1_classes.txt"
FRAME_RATE = 24.0
"""Frames per second of the frame folders in the official Charades_v1_rgb; video files have their own rates."""


def read_charades(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """Read `Charades_v1_train.csv` or `Charades_v1_test.csv`; labels are tuples of classes.

    The column `actions` holds `c092 11.90 21.20;c147 0.00 12.60`, class and seconds; it may be empty. The label of a
    video is the set of its actions at any time, for training clips too: the paper classifies videos, and the official
    measure (`Charades_v1_classify.m`) is the mean average precision over videos. (Long-Term Feature Banks and
    PySlowFast train on the actions inside the clip and test as here.) Class names are the lines of
    `Charades_v1_classes.txt` beside the CSV file, such as `c000 Holding some clothes`, or `classes`, which must begin
    with the same codes.

    Videos are `ID.mp4` (Charades_v1_480 and others) or folders of frames `ID/ID-000001.jpg` (Charades_v1_rgb, 24 frames
    per second), in `root` or below.
    """
    lines = read_csv(source, COLUMNS)
    order = tuple(classes) if classes is not None else read_classes(_classes_beside(source))
    numbers = {name.split(" ", 1)[0]: k for k, name in enumerate(order)}
    folder = source.parent if root is None else root
    paths = locate(folder, {row["id"]: None for _, row in lines}, suffix=".mp4")
    rows = []
    for line, row in lines:
        where, path = f"{source}:{line}", paths[row["id"]]
        label = actions(row["actions"], numbers, where)
        rows.append(Row(where, row["id"], VideoItem(path, label, fps=FRAME_RATE if path.is_dir() else None)))
    return assemble(source, rows, order, layout="Charades CSV", folder=folder, missing=missing)


def actions(field: str, numbers: dict[str, int], where: str) -> tuple[int, ...]:
    """The class numbers in a field `c092 11.90 21.20;c147 0.00 12.60`, each once, ascending.

    `numbers` maps codes to class numbers. Raises AnnotationError beginning with `where`.
    """
    found = set()
    for action in filter(None, (part.strip() for part in field.split(";"))):
        parts = re.fullmatch(r"(\w+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)", action)
        if parts is None:
            raise AnnotationError(
                f"{where}: expected actions `c092 11.90 21.20;…` (class, first and last second), got {action!r}"
            )
        if parts[1] not in numbers:
            raise AnnotationError(f"{where}: {parts[1]!r} is not one of the {len(numbers)} action classes")
        found.add(numbers[parts[1]])
    return tuple(sorted(found))


def _classes_beside(source: Path) -> Path:
    """The file of class names in the folder of the CSV file."""
    beside = source.parent / CLASSES
    if not beside.is_file():
        raise AnnotationError(
            f"{source}: expected {CLASSES} in the same folder; or give that file as data.classes"
        )
    return beside


CHARADES = AnnotationFormat(
    title="Charades_v1_train.csv or Charades_v1_test.csv, with Charades_v1_classes.txt in the same folder",
    read=read_charades,
    recognises=lambda source, first_line: header_columns(first_line) >= set(COLUMNS),
)

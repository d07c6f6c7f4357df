"""The format of Kinetics-400, -600 and -700 as officially released: a CSV file of clips of YouTube videos."""

from collections.abc import Sequence
from pathlib import Path

from nlnet.data.annotations.class_names import class_number
from nlnet.data.annotations.format import AnnotationFormat, header_columns
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, read_csv
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError

COLUMNS = ("youtube_id", "time_start", "time_end")


def read_kinetics(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """Read a CSV file with the columns `label,youtube_id,time_start,time_end,split[,is_cc]`.

    Seconds 5 to 15 of the YouTube video `abc` are the file `abc_000005_000015.mp4`, in `root` (by default the folder of
    the CSV file) or anywhere below it, such as in class folders. Classes are the labels in alphabetical order, which
    for Kinetics-400 is the order of the paper's release, or `classes`. The official test files of Kinetics-600 and -700
    have no labels.
    """
    lines = read_csv(source, COLUMNS)
    labels = [row.get("label", "") for _, row in lines]
    if any(labels) and not all(labels):
        line = lines[labels.index("")][0]
        raise AnnotationError(
            f"{source}:{line}: the label is empty, but other lines have one; expected a label on every line or on none"
        )
    names = [_clip_name(source, line, row) for line, row in lines]
    wanted = {name: label or None for name, label in zip(names, labels, strict=True)}
    order = tuple(classes) if classes is not None else tuple(sorted({label for label in labels if label}))
    numbers = {name: k for k, name in enumerate(order)}
    folder = source.parent if root is None else root
    paths = locate(folder, wanted, suffix=".mp4")
    rows = []
    for (line, _), name, label in zip(lines, names, labels, strict=True):
        where = f"{source}:{line}"
        number = class_number(label, numbers, where) if label else None
        rows.append(Row(where, name, VideoItem(paths[name], number)))
    return assemble(source, rows, order, layout="Kinetics CSV", folder=folder, missing=missing)


def _clip_name(source: Path, line: int, row: dict[str, str]) -> str:
    """The name without suffix of a clip's file, as the official download script names it."""
    start, end = row["time_start"], row["time_end"]
    if not (start.isdecimal() and end.isdecimal() and row["youtube_id"]):
        raise AnnotationError(
            f"{source}:{line}: expected a youtube_id and whole seconds time_start and time_end, got "
            f"{row['youtube_id']!r}, {start!r}, {end!r}"
        )
    return f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}"


KINETICS = AnnotationFormat(
    title="a CSV file with the columns youtube_id, time_start, time_end and, but for test files, label",
    read=read_kinetics,
    recognises=lambda source, first_line: header_columns(first_line) >= set(COLUMNS),
)

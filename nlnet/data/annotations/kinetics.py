"""Kinetics-400, -600 and -700 as officially released: a CSV file of clips of YouTube videos."""

from collections.abc import Sequence
from pathlib import Path

from nlnet.data.annotations.class_names import class_number
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, read_csv
from nlnet.data.video_list import VideoItem, VideoList

COLUMNS = ("youtube_id", "time_start", "time_end")


def read_kinetics(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """The videos of `label,youtube_id,time_start,time_end,split[,is_cc]`.

    A clip of seconds 5 to 15 of the video `abc` is `abc_000005_000015.mp4`, in `root` (by default the file's folder)
    or anywhere below it, such as in class folders. Classes are the labels in alphabetical order, which is the order of
    the paper's release for Kinetics-400, or as in `classes`. The official test files of the 600 and 700 have no labels.
    """
    lines = read_csv(source, COLUMNS)
    labels = [row.get("label", "") for _, row in lines]
    if any(labels) and not all(labels):
        line = lines[labels.index("")][0]
        raise ValueError(f"{source}:{line}: the label is empty, and other lines have one")
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
    start, end = row["time_start"], row["time_end"]
    if not (start.isdecimal() and end.isdecimal() and row["youtube_id"]):
        raise ValueError(
            f"{source}:{line}: expected a youtube_id and whole seconds time_start and time_end, got "
            f"{row['youtube_id']!r}, {start!r}, {end!r}"
        )
    return f"{row['youtube_id']}_{int(start):06d}_{int(end):06d}"

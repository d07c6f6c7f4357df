"""Helpers of the annotation readers: read text, JSON and CSV files, and make a `VideoList` of the rows."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError

Missing = Literal["error", "leave_out"]
"""What to do about videos that the annotations name but that are not on disk."""


class Row(NamedTuple):
    """One video of an annotation file: its line ("file:line"), its name in the file, and its `VideoItem`."""

    where: str
    name: str
    item: VideoItem


def read_text(source: Path, expected: str) -> str:
    """Read a text file, without a byte-order mark. Raises AnnotationError saying what was `expected`."""
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{source} is not UTF-8 text ({error.reason}); expected {expected}") from error


def parse_json(source: Path, text: str, expected: str) -> Any:
    """Parse the JSON text of a file. Raises AnnotationError with the line, saying what was `expected`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{source}:{error.lineno}: not JSON ({error.msg}); expected {expected}"
        ) from None
    except RecursionError:
        raise AnnotationError(f"{source}: JSON nested too deeply; expected {expected}") from None


def read_csv(source: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header: (line number in the file, {column: field}) of each line.

    Raises AnnotationError if a column is missing, or if a line has another number of fields than the header, as
    happens with a quote that is not closed.
    """
    text = read_text(source, f"a CSV file with the columns {', '.join(columns)}")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise AnnotationError(
            f"{source}:{reader.line_num}: not a CSV file ({error}); is there a quote that is not closed?"
        ) from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if lacking := [name for name in columns if name not in header]:
        raise AnnotationError(
            f"{source}:1: expected the columns {', '.join(columns)}; missing: {', '.join(lacking)}"
        )
    rows: list[tuple[int, dict[str, str]]] = []
    for line, fields in lines[1:]:
        if not any(field.strip() for field in fields):
            continue
        # a line end in the last field: an unclosed quote has swallowed the lines after it
        if len(fields) != len(header) or "\n" in fields[-1]:
            raise AnnotationError(
                f"{source}:{line}: expected {len(header)} fields as in the header, got {len(fields)}; "
                "put a field with commas in double quotes, and close every quote"
            )
        rows.append((line, dict(zip(header, (field.strip() for field in fields), strict=True))))
    return rows


def assemble(
    source: Path,
    rows: Sequence[Row],
    classes: tuple[str, ...],
    *,
    layout: str,
    folder: Path,
    missing: Missing,
) -> VideoList:
    """Make a VideoList of the rows, in their order.

    `folder` is where the videos were searched for, for the message. Videos that are not on disk are an error that
    counts and names them, or with `missing="leave_out"` are left out and recorded in the list's `missing`.
    """
    if not rows:
        raise AnnotationError(f"{source} lists no video; expected {layout}")
    first: dict[Path, str] = {}
    for row in rows:
        if row.item.path in first:
            raise AnnotationError(
                f"{row.where}: {row.name} is already listed at {_short(first[row.item.path])}; remove one"
            )
        first[row.item.path] = row.where
    gone = [row for row in rows if not row.item.path.exists()]
    # all missing is an error in any case: the root is wrong
    if gone and (missing == "error" or len(gone) == len(rows)):
        some = ", ".join(f"{row.item.path} ({_short(row.where)})" for row in gone[:3])
        more = ", …" if len(gone) > 3 else ""
        fix = f"they were searched for in {folder}, give another root if they are elsewhere"
        if len(gone) < len(rows):
            fix += ", or data.missing=leave_out to continue with the rest"
        raise AnnotationError(
            f"{gone[0].where}: {len(gone)} of {len(rows)} videos do not exist: {some}{more}; {fix}"
        )
    gone_paths = {row.item.path for row in gone}
    items = tuple(row.item for row in rows if row.item.path not in gone_paths)
    return VideoList(items, classes, source, layout, tuple(row.item for row in gone))


def _short(where: str) -> str:
    """ "list.txt:3" of "/data/list.txt:3"."""
    return Path(where).name

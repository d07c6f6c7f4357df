"""What the readers of annotation files have in common: text and CSV in, rows held against the disk, a list out."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nlnet.data.video_list import VideoItem, VideoList

Missing = Literal["error", "leave_out"]
"""What to do about videos that the annotations name and the disk lacks."""


class Row(NamedTuple):
    """One video of an annotation file: where it stands ("file:line"), what it is called there, and its `VideoItem`."""

    where: str
    name: str
    item: VideoItem


def read_text(source: Path, expected: str) -> str:
    """The text of a file, without a byte-order mark; ValueError says what was `expected`."""
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 text ({error.reason}); expected {expected}") from error


def parse_json(source: Path, text: str, expected: str) -> Any:
    """What the JSON `text` of a file says; ValueError with the line says what was `expected`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}:{error.lineno}: not JSON ({error.msg}); expected {expected}") from None
    except RecursionError:
        raise ValueError(f"{source}: lists in lists without end; expected {expected}") from None


def read_csv(source: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with a header, each with its number in the file.

    Raises ValueError where a column is missing, or a line has another number of fields than the header, as one
    has with a quote that does not end.
    """
    text = read_text(source, f"a CSV file with the columns {', '.join(columns)}")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise ValueError(
            f"{source}:{reader.line_num}: not a CSV file ({error}); is there a quote that does not end?"
        ) from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if absent := [name for name in columns if name not in header]:
        raise ValueError(f"{source}:1: expected the columns {', '.join(columns)}, got no {', '.join(absent)}")
    rows: list[tuple[int, dict[str, str]]] = []
    for line, fields in lines[1:]:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header) or "\n" in fields[-1]:
            raise ValueError(
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
    """The list of the rows' videos in their order.

    `folder` is where they were looked for, for the message. Videos that the disk lacks are an error that counts
    and names them, or are left out and kept in the list's `missing`.
    """
    if not rows:
        raise ValueError(f"{source} names no video; expected {layout}")
    first: dict[Path, str] = {}
    for row in rows:
        if row.item.path in first:
            raise ValueError(
                f"{row.where}: {row.name} is already on {_short(first[row.item.path])}; remove one"
            )
        first[row.item.path] = row.where
    lacking = [row for row in rows if not row.item.path.exists()]
    if lacking and (missing == "error" or len(lacking) == len(rows)):
        some = ", ".join(f"{row.item.path} ({_short(row.where)})" for row in lacking[:3])
        more = ", …" if len(lacking) > 3 else ""
        fix = f"they were looked for in {folder}, give another root if they are elsewhere"
        if len(lacking) < len(rows):
            fix += ", or data.missing=leave_out to go on with the rest"
        raise ValueError(
            f"{lacking[0].where}: {len(lacking)} of {len(rows)} videos do not exist: {some}{more}; {fix}"
        )
    gone = {row.item.path for row in lacking}
    items = tuple(row.item for row in rows if row.item.path not in gone)
    return VideoList(items, classes, source, layout, tuple(row.item for row in lacking))


def _short(where: str) -> str:
    return Path(where).name

"""The description of one annotation format: how it is recognised and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nlnet.data.video_list import VideoList


def _never(source: Path, first_line: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat:
    """One way in which labelled videos are given on disk; an entry of `nlnet.data.annotations.read.FORMATS`."""

    title: str
    """What a source in this format is, for messages: `a CSV file with …`."""
    read: Callable[..., VideoList]
    """(source, *, root: Path | None, classes: Sequence[str] | None, missing: Missing) → VideoList."""
    recognises: Callable[[Path, str], bool] = _never
    """(source, first line) → whether `auto` reads the source in this format. The first line is that of a text file
    (`first_line`), else empty. By default never true. Raises AnnotationError for a source that belongs to this format but
    cannot be read as it is."""
    source: Literal["file", "folder", "any"] = "file"
    """What a source must be on disk. "any" is for formats whose `read` checks the source."""


def first_line(source: Path) -> str:
    """The first line of a text file that is not blank; empty for a folder, a missing file and a file that is not UTF-8."""
    if not source.is_file():
        return ""
    try:
        with source.open(encoding="utf-8-sig") as file:
            return next((line.strip() for line in file if line.strip()), "")
    except UnicodeDecodeError:
        return ""  # the reader says so, naming what it expected


def header_columns(header: str) -> set[str]:
    """The column names in the header of a CSV file."""
    return {column.strip().strip('"') for column in header.split(",")}

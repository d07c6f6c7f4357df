"""Lists of videos in a text file, a line for each: the formats of PySlowFast, mmaction2 and the paper's release."""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nlnet.data.annotations.class_names import class_number
from nlnet.data.annotations.rows import Missing, Row, assemble, read_text
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Label, VideoItem, VideoList

_SUFFIX = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES)
_FILE = rf"""(?:"[^"]+"|'[^']+'|.+?(?:{_SUFFIX}))"""
_NUMBERS = r"\d+(?:[\s,]+\d+)*"
_SEVERAL = re.compile(rf"({_FILE})[\s,]+({_NUMBERS})[\s,]*", re.IGNORECASE)
_PERHAPS_NONE = re.compile(rf"({_FILE}|\S+?)(?:[\s,]+({_NUMBERS}))?[\s,]*", re.IGNORECASE)
_FRAMES = re.compile(rf"""("[^"]+"|'[^']+'|[^\s,]+)[\s,]+(\d+)[\s,]+({_NUMBERS})""")


def read_list(
    source: Path | str,
    *,
    root: Path | None = None,
    classes: Sequence[str] | None = None,
    missing: Missing = "error",
    multilabel: bool = False,
) -> VideoList:
    """The videos of a text file with a line for each.

    `path label`. The separator is the tab if every line has one, else the comma if every line has one, else white
    space; a line is split at its last one, so paths may hold it. Quotes keep a name (or a path) with separators
    together: `clips/a b.mp4 "riding a bike"`. Labels are class numbers from 0, or names; names are numbered in
    alphabetical order, or as in `classes`. A list whose every line is only a path to a video has no labels.

    `folder frames label`: folders of frames, with how many each holds (mmaction2). It is taken for such where every
    line is a path without a video's suffix, white space and two or more numbers.

    `path 1 2 3` or `path 1,2,3`: any number of class numbers a video; it is taken for such where some line ends in
    several after a video's suffix, and wherever `multilabel` says so. Then a path alone is a video of no class.

    Blank lines are passed over, and comments: # and white space. A line that names a video is no comment, whatever
    its name begins with: `#1.mp4 0`, and `# 1.mp4 0` where the disk has `# 1.mp4`. Relative paths start at `root`, by default the list's own
    folder.
    """
    source = Path(source)
    folder = source.parent if root is None else root
    lines = _lines(source, folder)
    layout, parsed = _parse(source, lines, multilabel)
    labels, names = _labels(source, parsed, classes)
    rows = [
        Row(f"{source}:{line.number}", line.path, VideoItem(folder / line.path, label, line.num_frames))
        for line, label in zip(parsed, labels, strict=True)
    ]
    return assemble(source, rows, names, layout=layout, folder=folder, missing=missing)


class Line(NamedTuple):
    """A line of a list: its number in the file, and the texts of its parts; several labels are a tuple of them."""

    number: int
    path: str
    label: str | tuple[str, ...] | None
    num_frames: int | None = None


def _lines(source: Path, folder: Path) -> list[tuple[int, str]]:
    """The lines that name videos, with their numbers."""
    text = read_text(source, "lines `path label`")
    numbered = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1)]
    numbered = [(k, line) for k, line in numbered if line and not _is_comment(line, folder)]
    if not numbered:
        raise ValueError(f"{source} names no video; expected lines `path label`")
    return numbered


def _is_comment(line: str, folder: Path) -> bool:
    """Whether a line begins with # and white space, or is of # alone, and names nothing that the disk has."""
    if re.match(r"#+(\s|$)", line) is None:
        return False
    ends = [found.start() for found in re.finditer(r"[\s,]+", line)] + [len(line)]
    return not any((folder / line[:end]).exists() for end in ends if line[:end].strip("#"))


def _parse(source: Path, lines: list[tuple[int, str]], multilabel: bool) -> tuple[str, list[Line]]:
    """The layout in words, and the lines taken apart."""
    if all(_suffixed(_unquoted(text)) for _, text in lines) and not multilabel:
        return "list of videos without labels", [Line(k, _unquoted(text), None) for k, text in lines]
    frames = [_FRAMES.fullmatch(text) for _, text in lines]
    if all(found and not _suffixed(_unquoted(found[1])) for found in frames):
        many = multilabel or any(len(_numbers(found[3])) > 1 for found in frames if found)
        return "list of frame folders", [
            Line(k, _unquoted(found[1]), _numbers(found[3]) if many else found[3], int(found[2]))
            for (k, _), found in zip(lines, frames, strict=True)
            if found
        ]
    several = [_SEVERAL.fullmatch(text) for _, text in lines]
    if multilabel or any(found and len(_numbers(found[2])) > 1 for found in several):
        return "list with any number of labels", [_several(source, k, text, multilabel) for k, text in lines]
    return "list of videos", _singles(source, lines)


def _several(source: Path, k: int, text: str, multilabel: bool) -> Line:
    found = (_PERHAPS_NONE if multilabel else _SEVERAL).fullmatch(text)
    if found is None:
        fix = "" if multilabel else "; data.format=multilabel allows videos of no class"
        raise ValueError(
            f"{source}:{k}: expected `path` and class numbers separated by spaces or commas, as on other lines, "
            f"got {text!r}{fix}"
        )
    return Line(k, _unquoted(found[1]), _numbers(found[2] or ""))


def _singles(source: Path, lines: list[tuple[int, str]]) -> list[Line]:
    """Lines `path label`."""
    separator = next((c for c in "\t," if all(c in text for _, text in lines)), None)
    mark = separator or r"\s"
    pattern = re.compile(rf"""(.+?)\s*{mark}\s*("[^"]*"|'[^']*'|[^{mark}]+)""")
    parsed = []
    for k, text in lines:
        found = None if _suffixed(_unquoted(text)) else pattern.fullmatch(text)
        if found is None:
            spelled = {"\t": "a tab", ",": "a comma"}.get(separator or "", "white space")
            raise ValueError(
                f"{source}:{k}: expected `path label` separated by {spelled} as on other lines, got {text!r}; "
                "put a name with spaces in double quotes"
            )
        parsed.append(Line(k, _unquoted(found[1]), _unquoted(found[2])))
    return parsed


def _suffixed(path: str) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text.count(text[0]) == 2
    return text[1:-1] if quoted else text


def _labels(
    source: Path, lines: list[Line], classes: Sequence[str] | None
) -> tuple[Sequence[Label], tuple[str, ...]]:
    """Labels and class names of a list's lines."""
    if lines[0].label is None:
        return [None] * len(lines), tuple(classes or ())
    if isinstance(lines[0].label, tuple):
        texts = [line.label for line in lines if isinstance(line.label, tuple)]
        names = _numbered_names([int(label) for label in chain.from_iterable(texts)], classes)
        checked = [
            [_in_range(source, line, label, names, texts) for label in line.label or ()] for line in lines
        ]
        return [tuple(sorted(set(labels))) for labels in checked], names
    given = [line.label for line in lines if isinstance(line.label, str)]
    numeric = [re.fullmatch(r"[+-]?\d+", label) is not None for label in given]
    named = classes is not None and set(given) <= set(classes)
    if any(numeric) and not all(numeric) and not named:
        number, name = numeric.index(True), numeric.index(False)
        raise ValueError(
            f"{source}: labels are all numbers or all names, got {given[number]!r} on line {lines[number].number} "
            f"and {given[name]!r} on line {lines[name].number}; is line {lines[name].number} a header?"
        )
    if all(numeric) and not named:
        names = _numbered_names([int(label) for label in given], classes)
        singles = [(label,) for label in given]
        return [
            _in_range(source, line, label, names, singles) for line, label in zip(lines, given, strict=True)
        ], names
    names = tuple(classes) if classes else tuple(sorted(set(given)))
    position = {name: k for k, name in enumerate(names)}
    return [
        class_number(label, position, f"{source}:{line.number}")
        for line, label in zip(lines, given, strict=True)
    ], names


def _numbered_names(numbers: list[int], classes: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(classes) if classes else tuple(str(k) for k in range(max(numbers, default=-1) + 1))


def _in_range(
    source: Path, line: Line, label: str, names: Sequence[str], given: Sequence[tuple[str, ...]]
) -> int:
    k = int(label)
    if not 0 <= k < len(names):
        hint = (
            "; are the labels numbered from 1?"
            if k == len(names) and not any("0" in g for g in given)
            else ""
        )
        raise ValueError(
            f"{source}:{line.number}: class numbers go from 0 to {len(names) - 1}, got {k}{hint}"
        )
    return k

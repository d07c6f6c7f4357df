"""The formats of PySlowFast, mmaction2 and the paper's release: a text file with a line for each video."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from nlnet.data.annotations.class_names import class_number
from nlnet.data.annotations.format import AnnotationFormat
from nlnet.data.annotations.rows import Missing, Row, assemble, read_text
from nlnet.data.video_list import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Label, VideoItem, VideoList
from nlnet.errors import AnnotationError

_SUFFIX = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES)
# a path: quoted, or as little as possible up to a known suffix, so that it may contain spaces and commas
_FILE = rf"""(?:"[^"]+"|'[^']+'|.+?(?:{_SUFFIX}))"""
_NUMBERS = r"\d+(?:[\s,]+\d+)*"
# `path 1 2 3`
_SEVERAL = re.compile(rf"({_FILE})[\s,]+({_NUMBERS})[\s,]*", re.IGNORECASE)
# the same or a path alone, which then may have any suffix or none
_PERHAPS_NONE = re.compile(rf"({_FILE}|\S+?)(?:[\s,]+({_NUMBERS}))?[\s,]*", re.IGNORECASE)
# `folder frames label`
_FRAMES = re.compile(rf"""("[^"]+"|'[^']+'|[^\s,]+)[\s,]+(\d+)[\s,]+({_NUMBERS})""")


def read_list(
    source: Path | str,
    *,
    root: Path | None = None,
    classes: Sequence[str] | None = None,
    missing: Missing = "error",
    multilabel: bool = False,
) -> VideoList:
    """Read a text file with a line for each video, in one of three layouts, which is recognised from all lines.

    `path label`. The separator is the tab if every line has one, else the comma if every line has one, else white
    space. A line is split at its last separator, so paths may contain it. Quotes keep a name (or a path) with
    separators together: `clips/a b.mp4 "riding a bike"`. Labels are class numbers from 0, or names; names are numbered
    in alphabetical order, or as in `classes`. A list in which every line is only the path of a video has no labels.

    `folder frames label`: folders of frames, with the number of frames in each (mmaction2). Recognised if every line is
    a path without a video's suffix, white space and two or more numbers.

    `path 1 2 3` or `path 1,2,3`: any number of class numbers per video. Recognised if some line has several numbers
    after a video's suffix; always with `multilabel`, and then a path alone is a video of no class.

    Blank lines are ignored, and so are comments: # and white space at the beginning of a line. A line that names a
    video is no comment, whatever the name begins with: `#1.mp4 0`; also `# 1.mp4 0` if a file `# 1.mp4` exists.
    Relative paths start at `root`, by default the list's own folder.
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
    """One parsed line of a list: its number in the file, its path, label text (a tuple for several) and frame count."""

    number: int
    path: str
    label: str | tuple[str, ...] | None
    num_frames: int | None = None


def _lines(source: Path, folder: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are neither blank nor comments."""
    text = read_text(source, "lines `path label`")
    numbered = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1)]
    numbered = [(k, line) for k, line in numbered if line and not _is_comment(line, folder)]
    if not numbered:
        raise AnnotationError(f"{source} lists no video; expected lines `path label`")
    return numbered


def _is_comment(line: str, folder: Path) -> bool:
    """Whether a line begins with # and white space, or is # alone, and does not begin with an existing path."""
    if re.match(r"#+(\s|$)", line) is None:
        return False
    # each separator may be the end of the path
    ends = [found.start() for found in re.finditer(r"[\s,]+", line)] + [len(line)]
    return not any((folder / line[:end]).exists() for end in ends if line[:end].strip("#"))


def _parse(source: Path, lines: list[tuple[int, str]], multilabel: bool) -> tuple[str, list[Line]]:
    """The layout of the list in words, and its parsed lines."""
    # a layout counts only if all lines fit, and the order matters: `a b.mp4` alone is a path, not `path label`
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
    """Parse a line `path 1 2 3`."""
    found = (_PERHAPS_NONE if multilabel else _SEVERAL).fullmatch(text)
    if found is None:
        fix = "" if multilabel else "; data.format=multilabel allows videos of no class"
        raise AnnotationError(
            f"{source}:{k}: expected `path` and class numbers separated by spaces or commas, as on other lines, "
            f"got {text!r}{fix}"
        )
    return Line(k, _unquoted(found[1]), _numbers(found[2] or ""))


def _singles(source: Path, lines: list[tuple[int, str]]) -> list[Line]:
    """Parse lines `path label`."""
    separator = next((c for c in "\t," if all(c in text for _, text in lines)), None)
    mark = separator or r"\s"
    # the path takes as little as it can, and the label has no unquoted separator: so the split is at the last one
    pattern = re.compile(rf"""(.+?)\s*{mark}\s*("[^"]*"|'[^']*'|[^{mark}]+)""")
    parsed = []
    for k, text in lines:
        found = None if _suffixed(_unquoted(text)) else pattern.fullmatch(text)
        if found is None:
            spelled = {"\t": "a tab", ",": "a comma"}.get(separator or "", "white space")
            raise AnnotationError(
                f"{source}:{k}: expected `path label` separated by {spelled} as on other lines, got {text!r}; "
                "put a name with spaces in double quotes"
            )
        parsed.append(Line(k, _unquoted(found[1]), _unquoted(found[2])))
    return parsed


def _suffixed(path: str) -> bool:
    """Whether a path ends in the suffix of a video or image."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES


def _numbers(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text))


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text.count(text[0]) == 2
    return text[1:-1] if quoted else text


def _labels(
    source: Path, lines: list[Line], classes: Sequence[str] | None
) -> tuple[Sequence[Label], tuple[str, ...]]:
    """The labels of the lines, and the class names."""
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
    # numbers that are all among the given class names are names: classes may be called "10" and "20"
    named = classes is not None and set(given) <= set(classes)
    if any(numeric) and not all(numeric) and not named:
        number, name = numeric.index(True), numeric.index(False)
        raise AnnotationError(
            f"{source}: labels must be all numbers or all names, got {given[number]!r} on line {lines[number].number} "
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
    """The given class names, or "0", "1", … up to the largest number."""
    return tuple(classes) if classes else tuple(str(k) for k in range(max(numbers, default=-1) + 1))


def _in_range(
    source: Path, line: Line, label: str, names: Sequence[str], given: Sequence[tuple[str, ...]]
) -> int:
    """The class number of a numeric label. Raises AnnotationError if there is no such class."""
    k = int(label)
    if not 0 <= k < len(names):
        # one too large and no 0 in the whole list: the numbers begin at 1
        hint = (
            "; are the labels numbered from 1?"
            if k == len(names) and not any("0" in g for g in given)
            else ""
        )
        raise AnnotationError(
            f"{source}:{line.number}: class numbers must be from 0 to {len(names) - 1}, got {k}{hint}"
        )
    return k


def _is_list(source: Path, first_line: str) -> bool:
    if first_line.startswith("original_vido_id"):  # so spelled in those files
        raise AnnotationError(
            f"{source} lists single frames, as PySlowFast does for Charades and Something-Something; "
            "give the data set's own CSV or JSON file, and the folder of the frames as root"
        )
    return source.is_file()


LIST = AnnotationFormat(
    title="a text file with lines `path label`, `path`, `folder frames label` or `path 1 2 3`",
    read=read_list,
    recognises=_is_list,
)
MULTILABEL = AnnotationFormat(
    title="such a text file in which each video has any number of labels, possibly none",
    read=partial(read_list, multilabel=True),
)

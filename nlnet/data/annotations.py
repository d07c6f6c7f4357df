"""Lists of videos with labels, from what people have on disk: class folders, or a text file of `path label` lines."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".asf", ".vob", ".gif"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class VideoItem:
    """One video and the index of its class; None where the label is not known."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class VideoList:
    """Videos in a fixed order, the names of the classes by index, and the folder or file they were read from.

    Either every item has a label or none has; without labels `classes` is what was passed in, or empty.
    """

    items: tuple[VideoItem, ...]
    classes: tuple[str, ...]
    source: Path

    def __len__(self) -> int:
        return len(self.items)


def read_videos(
    source: Path | str, *, root: Path | str | None = None, classes: Sequence[str] | None = None
) -> VideoList:
    """The videos that `source` names.

    - A folder of class folders: classes are the folder names in alphabetical order (or `classes`, in that order);
      videos may lie deeper. Hidden files are ignored, and images too where there are videos; a tree of images
      alone is read as one-frame videos. A folder with videos and no class folders has no labels.
    - A video or image file: one item without a label.
    - Any other file: a list, see `read_list`.

    Raises ValueError naming the file and line, what was expected and what to change.
    """
    source = Path(source)
    if classes is not None and len(set(classes)) != len(classes):
        twice = [name for name, count in Counter(classes).items() if count > 1]
        raise ValueError(f"class names are given once each, got {twice[0]!r} more than once")
    if source.is_dir():
        return _read_folders(source, classes)
    if not source.is_file():
        raise ValueError(
            f"{source} does not exist; expected a folder of class folders, a list file or a video"
        )
    if _suffix(source) in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
        return VideoList((VideoItem(source, None),), tuple(classes or ()), source)
    return read_list(source, root=root, classes=classes)


def read_list(
    source: Path | str, *, root: Path | str | None = None, classes: Sequence[str] | None = None
) -> VideoList:
    """The videos of a text file with a line `path label` for each.

    The separator is the tab if every line has one, else the comma if every line has one, else white space; a line
    is split at its last one, so paths may hold it. Quotes keep a name (or a path) with separators together:
    `clips/a b.mp4 "riding a bike"`. Lines that are blank or begin with # are passed over.

    Labels are class numbers from 0, or names; names are numbered in alphabetical order, or as in `classes`. A list
    whose every line is only a path to a video has no labels. Relative paths are relative to `root`, by default the
    list's own folder.
    """
    source = Path(source)
    lines = _split_lines(source)
    folder = source.parent if root is None else Path(root)
    paths = [folder / line.path for line in lines]
    labels, names = _labels(source, lines, classes)
    _check_paths(source, folder, lines, paths)
    return VideoList(tuple(VideoItem(*item) for item in zip(paths, labels, strict=True)), names, source)


class _Line(NamedTuple):
    number: int
    path: str
    label: str | None


def _suffix(path: Path | str) -> str:
    return Path(path).suffix.lower()


def _read_folders(source: Path, classes: Sequence[str] | None) -> VideoList:
    files = sorted(p for p in source.rglob("*") if p.is_file() and not _hidden(p.relative_to(source)))
    videos = [p for p in files if _suffix(p) in VIDEO_SUFFIXES]
    chosen = videos or [p for p in files if _suffix(p) in IMAGE_SUFFIXES]
    if not chosen:
        raise ValueError(f"{source} holds no video; expected files ending in {', '.join(VIDEO_SUFFIXES)}")
    loose = [p for p in chosen if p.parent == source]
    if len(loose) == len(chosen):
        return VideoList(tuple(VideoItem(p, None) for p in chosen), tuple(classes or ()), source)
    if loose:
        raise ValueError(
            f"{source} holds both class folders and {len(loose)} videos beside them ({loose[0].name}, …); "
            "move those into a class folder"
        )
    if not videos and (deep := [p for p in chosen if p.parent.parent != source]):
        raise ValueError(
            f"{deep[0].parent} looks like a video as a folder of frames; encode it as a video file first"
        )
    folder_of = {p: p.relative_to(source).parts[0] for p in chosen}
    names = tuple(classes) if classes is not None else tuple(sorted(set(folder_of.values())))
    present = sorted(p.name for p in source.iterdir() if p.is_dir() and not _hidden(Path(p.name)))
    empty = [name for name in present if name not in set(folder_of.values())]
    if empty and classes is None:
        raise ValueError(
            f"{source}: no videos in class folder {', '.join(empty[:3])}{' …' if len(empty) > 3 else ''} "
            f"({len(empty)} of {len(present)}); remove it, or give the classes in order"
        )
    for name in set(folder_of.values()) - set(names):
        raise ValueError(f"{source / name} is not one of the {len(names)} classes{_near(name, names)}")
    number = {name: k for k, name in enumerate(names)}
    return VideoList(tuple(VideoItem(p, number[folder_of[p]]) for p in chosen), names, source)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _split_lines(source: Path) -> list[_Line]:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8 text ({error.reason}); expected lines `path label`"
        ) from error
    numbered = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1)]
    numbered = [(k, line) for k, line in numbered if line and not line.startswith("#")]
    if not numbered:
        raise ValueError(f"{source} names no video; expected lines `path label`")
    bare = [_suffix(_unquoted(line)) in VIDEO_SUFFIXES + IMAGE_SUFFIXES for _, line in numbered]
    if all(bare):
        return [_Line(k, _unquoted(line), None) for k, line in numbered]
    separator = next((c for c in "\t," if all(c in line for _, line in numbered)), None)
    mark = separator or r"\s"
    pattern = re.compile(rf"""(.+?)\s*{mark}\s*("[^"]*"|'[^']*'|[^{mark}]+)""")
    lines = []
    for (k, line), has_no_label in zip(numbered, bare, strict=True):
        found = None if has_no_label else pattern.fullmatch(line)
        if found is None:
            spelled = {"\t": "a tab", ",": "a comma"}.get(separator or "", "white space")
            raise ValueError(
                f"{source}:{k}: expected `path label` separated by {spelled} as on other lines, got {line!r}; "
                "put a name with spaces in double quotes"
            )
        lines.append(_Line(k, _unquoted(found[1]), _unquoted(found[2])))
    return lines


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text.count(text[0]) == 2
    return text[1:-1] if quoted else text


def _labels(
    source: Path, lines: list[_Line], classes: Sequence[str] | None
) -> tuple[list[int | None], tuple[str, ...]]:
    """Label numbers and class names of a list's lines."""
    given = [line.label for line in lines if line.label is not None]
    if not given:
        return [None] * len(lines), tuple(classes or ())
    numeric = [re.fullmatch(r"[+-]?\d+", label) is not None for label in given]
    if any(numeric) and not all(numeric) and not (classes and set(given) <= set(classes)):
        number, name = numeric.index(True), numeric.index(False)
        raise ValueError(
            f"{source}: labels are all numbers or all names, got {given[number]!r} on line {lines[number].number} "
            f"and {given[name]!r} on line {lines[name].number}; is line {lines[name].number} a header?"
        )
    if all(numeric) and not (classes and set(given) <= set(classes)):
        numbers = [int(label) for label in given]
        names = tuple(classes) if classes else tuple(str(k) for k in range(max(numbers) + 1))
        for line, k in zip(lines, numbers, strict=True):
            if not 0 <= k < len(names):
                hint = "; are the labels numbered from 1?" if k == len(names) and 0 not in numbers else ""
                raise ValueError(
                    f"{source}:{line.number}: class numbers go from 0 to {len(names) - 1}, got {k}{hint}"
                )
        return [*numbers], names
    names = tuple(classes) if classes else tuple(sorted(set(given)))
    position = {name: k for k, name in enumerate(names)}
    for line, label in zip(lines, given, strict=True):
        if label not in position:
            raise ValueError(
                f"{source}:{line.number}: {label!r} is not one of the {len(names)} classes{_near(label, names)}"
            )
    return [position[label] for label in given], names


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return (
        f"; did you mean {near[0]!r}?"
        if near
        else f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
    )


def _check_paths(source: Path, folder: Path, lines: list[_Line], paths: list[Path]) -> None:
    first_line: dict[Path, int] = {}
    for line, path in zip(lines, paths, strict=True):
        if path in first_line:
            raise ValueError(
                f"{source}:{line.number}: {line.path} is already on line {first_line[path]}; remove one"
            )
        first_line[path] = line.number
    missing = [(line, path) for line, path in zip(lines, paths, strict=True) if not path.is_file()]
    if missing:
        some = ", ".join(f"{path} (line {line.number})" for line, path in missing[:3])
        more = ", …" if len(missing) > 3 else ""
        raise ValueError(
            f"{source}:{missing[0][0].number}: {len(missing)} of {len(paths)} videos do not exist: {some}{more}; "
            f"relative paths were taken from {folder}, give another root if they are elsewhere"
        )

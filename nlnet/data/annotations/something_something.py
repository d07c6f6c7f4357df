"""The Something-Something V2 format as officially released: JSON files of templates, videos named by number."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlnet.data.annotations.class_names import class_number, read_classes
from nlnet.data.annotations.format import AnnotationFormat
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, parse_json, read_text
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError

ANSWER = re.compile(r"(\d+);(.+)")


def read_something_something(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """Read `train.json`, `validation.json`, `test.json` (no labels) or `test-answers.csv`.

    A JSON file is a list of {"id": "78687", "template": "Holding [something] next to [something]", …}. The class is the
    template without its brackets, numbered by `labels.json` in the same folder (or by `classes`). `test-answers.csv`
    has lines `1420;Lifting something up completely`. In older releases each file's name begins with
    `something-something-v2-`. Videos are `78687.webm` in `root` or below; other video formats and folders of frames of
    the same name are found too.
    """
    entries = _from_json(source) if source.suffix.lower() == ".json" else _from_answers(source)
    labelled = [label is not None for _, _, label in entries]
    if any(labelled) and not all(labelled):
        raise AnnotationError(
            f"{source}: entry {entries[labelled.index(False)][0]} has no template, but others have one; "
            "expected a template in every entry or in none"
        )
    order = tuple(classes or ())
    if any(labelled) and classes is None:
        order = read_classes(_labels_beside(source))
    numbers = {name: k for k, name in enumerate(order)}
    folder = source.parent if root is None else root
    paths = locate(folder, {name: None for _, name, _ in entries}, suffix=".webm")
    rows = []
    for entry, name, label in entries:
        where = f"{source}: entry {entry}"
        number = None if label is None else class_number(label, numbers, where)
        rows.append(Row(where, name, VideoItem(paths[name], number)))
    return assemble(source, rows, order, layout="Something-Something V2", folder=folder, missing=missing)


def _from_json(source: Path) -> list[tuple[int, str, str | None]]:
    """(number in the list, from 1; video; class name or None) of each entry."""
    expected = 'a list of {"id": …, "template": …}'
    values = parse_json(source, read_text(source, expected), expected)
    if not isinstance(values, list):
        raise AnnotationError(f"{source}: expected {expected}, got {type(values).__name__}")
    return [(k, *_entry(source, k, value, expected)) for k, value in enumerate(values, 1)]


def _entry(source: Path, k: int, value: Any, expected: str) -> tuple[str, str | None]:
    """The video and class name of entry `k` of a JSON file."""
    if not isinstance(value, dict) or "id" not in value:
        raise AnnotationError(f"{source}: entry {k} is {str(value)[:60]!r}; expected {expected}")
    template = value.get("template")
    if not isinstance(template, str | None):
        raise AnnotationError(f"{source}: entry {k} has the template {str(template)[:60]!r}; expected text")
    return str(value["id"]), None if template is None else template.replace("[", "").replace("]", "")


def _from_answers(source: Path) -> list[tuple[int, str, str | None]]:
    """(line number, video, class name) of each line `id;class` of test-answers.csv."""
    entries: list[tuple[int, str, str | None]] = []
    for line, text in enumerate(read_text(source, "lines `id;class`").splitlines(), 1):
        if not text.strip():
            continue
        found = ANSWER.fullmatch(text.strip())
        if found is None:
            raise AnnotationError(f"{source}: entry {line}: expected `id;class`, got {text!r}")
        entries.append((line, found[1], found[2]))
    return entries


def _labels_beside(source: Path) -> Path:
    """The file labels.json, with any prefix, in the folder of the annotation file."""
    found = sorted(source.parent.glob("*labels.json"))
    if len(found) != 1:
        raise AnnotationError(
            f"{source}: expected one labels.json in the same folder, got {len(found)}; "
            "or give the class names as data.classes"
        )
    return found[0]


def _recognises(source: Path, first_line: str) -> bool:
    # a line `12;clips/a.mp4` with a file suffix names a video of a list, not a class
    answers = ANSWER.fullmatch(first_line) is not None and Path(first_line).suffix == ""
    return answers or (source.is_file() and source.suffix.lower() == ".json")


SOMETHING_SOMETHING = AnnotationFormat(
    title="Something-Something V2's train.json, validation.json, test.json or test-answers.csv",
    read=read_something_something,
    recognises=_recognises,
)

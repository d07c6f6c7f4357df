"""Class names: read the files that list them, and turn a name into its class number."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nlnet.data.annotations.rows import parse_json, read_text
from nlnet.errors import AnnotationError, did_you_mean


def read_classes(source: Path | str) -> tuple[str, ...]:
    """Read class names, in the order of their class numbers, from any of the files that data sets provide.

    - JSON {name: number}, with numbers from 0, also as strings: `classids.json` of the paper's release (whose names of
      several words carry double quotes inside the string, which are removed), `labels.json` of Something-Something V2;
    - lines `1 ApplyEyeMakeup`, numbered from 1 (UCF101's classInd.txt) or from 0;
    - otherwise one name per line: mmaction's label maps; `c000 Holding some clothes`, where the name is the whole line.

    Raises AnnotationError naming the file, what was expected and what was there.
    """
    source = Path(source)
    if not source.is_file():
        raise AnnotationError(f"{source} does not exist; expected a file of class names")
    text = read_text(source, "class names")
    numbered = _from_json(source, text) if source.suffix.lower() == ".json" else _from_lines(text)
    numbers = sorted(number for number, _ in numbered)
    if (
        not numbers
        or numbers != list(range(numbers[0], numbers[0] + len(numbers)))
        or numbers[0] not in (0, 1)
    ):
        raise AnnotationError(
            f"{source}: expected classes numbered 0, 1, 2, … without a gap, got {numbers[:5]} …"
        )
    if numbers[0] == 1 and source.suffix.lower() == ".json":
        raise AnnotationError(f"{source}: expected class numbers from 0, got numbers from 1")
    names = tuple(name for _, name in sorted(numbered))
    check_distinct(names)
    return names


def check_distinct(names: Sequence[str]) -> None:
    """Raise AnnotationError if a class name occurs twice."""
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise AnnotationError(f"every class name must occur once, got {twice[0]!r} more than once")


def class_number(name: str, numbers: dict[str, int], where: str) -> int:
    """The class number of a name. An unknown name raises AnnotationError: `where`, the name, similar ones."""
    if name not in numbers:
        raise AnnotationError(
            f"{where}: {name!r} is not one of the {len(numbers)} classes{class_hint(name, tuple(numbers))}"
        )
    return numbers[name]


def class_hint(name: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown class name: similar names, or the first few if none is similar."""
    return did_you_mean(name, names) or f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"


def _from_json(source: Path, text: str) -> list[tuple[int, str]]:
    """(number, name) of each class in a JSON file."""
    values = parse_json(source, text, "{name: number}")
    if not isinstance(values, dict) or not all(
        re.fullmatch(r"\d+", str(number)) for number in values.values()
    ):
        raise AnnotationError(f"{source}: expected a JSON object {{name: number}}, got {text[:40]!r} …")
    return [(int(number), name.strip('"')) for name, number in values.items()]


def _from_lines(text: str) -> list[tuple[int, str]]:
    """(number, name) of each class in a text file."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d+)\s+(.+)", line) for line in lines]
    # only if every line has one: a single class may well be named "3 card monte"
    if lines and all(numbered):
        return [(int(found[1]), found[2]) for found in numbered if found]
    return list(enumerate(lines))

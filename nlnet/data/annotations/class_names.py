"""The names of the classes in order: the files they come in, and the numbers that they give to labels."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from nlnet.data.annotations.rows import parse_json, read_text


def read_classes(source: Path | str) -> tuple[str, ...]:
    """Class names by number from 0, from any of the files that data sets bring.

    - JSON {name: number}, numbers from 0 and perhaps written as text: `classids.json` of the paper's release (its
      names of several words stand in double quotes inside the string, which are taken off), `labels.json` of
      Something-Something V2;
    - lines `1 ApplyEyeMakeup`, numbered from 1 (UCF101's classInd.txt) or from 0;
    - otherwise a name on each line: mmaction's label maps; `c000 Holding some clothes`, where the name is the line.

    Raises ValueError naming the file, what was expected and what was there.
    """
    source = Path(source)
    if not source.is_file():
        raise ValueError(f"{source} does not exist; expected a file of class names")
    text = read_text(source, "class names")
    numbered = _from_json(source, text) if source.suffix.lower() == ".json" else _from_lines(text)
    numbers = sorted(number for number, _ in numbered)
    if (
        not numbers
        or numbers != list(range(numbers[0], numbers[0] + len(numbers)))
        or numbers[0] not in (0, 1)
    ):
        raise ValueError(f"{source}: expected classes numbered 0, 1, 2, … without a gap, got {numbers[:5]} …")
    if numbers[0] == 1 and source.suffix.lower() == ".json":
        raise ValueError(f"{source}: expected class numbers from 0, got numbers from 1")
    names = tuple(name for _, name in sorted(numbered))
    check_distinct(names)
    return names


def check_distinct(names: Sequence[str]) -> None:
    """Raise ValueError where a class name comes twice."""
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"class names are given once each, got {twice[0]!r} more than once")


def class_number(name: str, numbers: dict[str, int], where: str) -> int:
    """`numbers[name]`; ValueError beginning with `where`, with the nearest names, if there is none."""
    if name not in numbers:
        raise ValueError(
            f"{where}: {name!r} is not one of the {len(numbers)} classes{near(name, tuple(numbers))}"
        )
    return numbers[name]


def near(name: str, names: Sequence[str]) -> str:
    """What to say about a name that is none of `names`."""
    found = get_close_matches(name, names, n=1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"


def _from_json(source: Path, text: str) -> list[tuple[int, str]]:
    values = parse_json(source, text, "{name: number}")
    if not isinstance(values, dict) or not all(
        re.fullmatch(r"\d+", str(number)) for number in values.values()
    ):
        raise ValueError(f"{source}: expected {{name: number}}, got {text[:40]!r} …")
    return [(int(number), name.strip('"')) for name, number in values.items()]


def _from_lines(text: str) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(\d+)\s+(.+)", line) for line in lines]
    if lines and all(numbered):
        return [(int(found[1]), found[2]) for found in numbered if found]
    return list(enumerate(lines))

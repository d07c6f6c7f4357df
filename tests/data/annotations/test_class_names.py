from pathlib import Path

import pytest
from support.trees import write

from nlnet.data.annotations.class_names import class_hint, class_number, read_classes
from nlnet.errors import AnnotationError


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # the release of the paper: names of several words in double quotes of their own
        ("classids.json", '{"\\"air drumming\\"": 1, "abseiling": 0, "yoga": 2}', ("abseiling", "air drumming", "yoga")),
        ("labels.json", '{"Holding something": "1", "Closing something": "0"}', ("Closing something", "Holding something")),
        ("classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n3 Archery\r\n", ("ApplyEyeMakeup", "ApplyLipstick", "Archery")),
        ("classes.txt", "1 b c\n0 a\n", ("a", "b c")),
        ("label_map_k400.txt", "abseiling\nair drumming\n\n", ("abseiling", "air drumming")),
        ("Charades_v1_classes.txt", "c000 Holding some clothes\nc001 Putting clothes somewhere\n", ("c000 Holding some clothes", "c001 Putting clothes somewhere")),
    ],
)  # fmt: skip
def test_every_kind_of_class_file(name: str, text: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    assert read_classes(str(write(tmp_path / name, text))) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"a": 0, "b": 2}', "expected classes numbered 0, 1, 2, … without a gap, got \\[0, 2\\]"),
        ("c.json", '{"a": 1, "b": 2}', "expected class numbers from 0, got numbers from 1"),
        ("c.json", '["a", "b"]', "expected a JSON object {name: number}, got "),
        ("c.json", '{"a": "x"}', "expected a JSON object {name: number}, got "),
        ("c.json", "[" * 100_000, "c.json: JSON nested too deeply"),
        ("c.json", '{"a": 0,\n', "c.json:2: not JSON"),
        ("c.txt", "2 a\n3 b\n", "without a gap, got \\[2, 3\\]"),
        ("c.txt", "1 a\n1 b\n", "without a gap, got \\[1, 1\\]"),
        ("c.txt", "\n", "without a gap, got \\[\\]"),
        ("c.txt", "a\nb\na\n", "every class name must occur once, got 'a' more than once"),
    ],
)
def test_class_files_with_mistakes(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_classes(write(tmp_path / name, text))


def test_no_class_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="gone.txt does not exist; expected a file of class names"):
        read_classes(tmp_path / "gone.txt")


def test_the_number_of_a_name() -> None:
    assert class_number("b", {"a": 0, "b": 1}, "x.txt:1") == 1
    with pytest.raises(
        AnnotationError, match="x.txt:1: 'running' is not one of the 1 classes; did you mean 'runing'"
    ):
        class_number("running", {"runing": 0}, "x.txt:1")
    assert class_hint("zzz", "abcdef") == " (a, b, c, d, e, …)"

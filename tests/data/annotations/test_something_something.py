"""The Something-Something V2 format, in the official layout of both releases."""

import json
from pathlib import Path

import pytest
from support.trees import touch, write

from nlnet.data.annotations.read import read_videos
from nlnet.errors import AnnotationError

LABELS = {"Approaching something with your camera": "0", "Holding something next to something": "1", "Putting something similar to other things that are already on the table": "2"}  # fmt: skip
TRAIN = [
    {"id": "78687", "label": "holding potato next to vicks vaporub bottle", "template": "Holding [something] next to [something]", "placeholders": ["potato", "vicks vaporub bottle"]},
    {"id": "42326", "label": "putting a cup similar to other cups that are already on the table", "template": "Putting [something similar to other things that are already on the table]", "placeholders": ["a cup similar to other cups that are already on the table"]},
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_templates_become_classes(prefix: str, tmp_path: Path) -> None:
    write(tmp_path / "labels" / f"{prefix}labels.json", json.dumps(LABELS))
    source = write(tmp_path / "labels" / f"{prefix}train.json", json.dumps(TRAIN))
    root = touch(tmp_path / "20bn-something-something-v2", "78687.webm", "42326.webm", "1.webm")
    videos = read_videos(source, root=root)
    assert [(item.path.name, item.label) for item in videos.items] == [("78687.webm", 1), ("42326.webm", 2)]
    assert videos.classes == tuple(LABELS)
    assert videos.layout == "Something-Something V2"


def test_frame_folders_and_another_order_of_classes(tmp_path: Path) -> None:
    source = write(tmp_path / "train.json", json.dumps(TRAIN))
    touch(tmp_path, "frames/78687/000001.jpg", "frames/42326/000001.jpg")
    videos = read_videos(source, root=tmp_path / "frames", classes=tuple(LABELS)[::-1])
    assert [(item.path.name, item.label) for item in videos.items] == [("78687", 1), ("42326", 0)]


def test_the_test_list_and_its_answers(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", json.dumps(LABELS))
    touch(tmp_path, "1420.webm", "3.webm")
    test = read_videos(write(tmp_path / "test.json", '[{"id": "1420"}, {"id": 3}]'))
    assert [(item.path.name, item.label) for item in test.items] == [("1420.webm", None), ("3.webm", None)]
    text = "1420;Approaching something with your camera\n3;Holding something next to something\n"
    answers = read_videos(write(tmp_path / "test-answers.csv", text))
    assert [(item.path.name, item.label) for item in answers.items] == [("1420.webm", 0), ("3.webm", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "x.json:1: not JSON .*; expected a list of"),
        ('{"id": 3}', "expected a list of .*, got dict"),
        ('[{"id": "1"}, {"video": "2"}]', "entry 2 is .*'video': '2'.*; expected a list of"),
        ('[{"id": "1", "template": ["Holding"]}]', "entry 1 has the template .*Holding.*; expected text"),
        ("[" * 100_000, "x.json: JSON nested too deeply; expected a list of"),
        ('["1"]', "entry 1 is '1'; expected a list of"),
        (
            '[{"id": "1", "template": "Holding [something]"}, {"id": "2"}]',
            "entry 2 has no template, but others have one",
        ),
        (
            '[{"id": "1", "template": "Holding [some] next to [some]"}]',
            "entry 1: 'Holding some next to some' is not one of",
        ),
    ],
)
def test_mistakes(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "labels.json", json.dumps(LABELS))
    with pytest.raises(AnnotationError, match=message):
        read_videos(write(tmp_path / "x.json", text))


def test_mistakes_beside_the_list(tmp_path: Path) -> None:
    source = write(tmp_path / "train.json", json.dumps(TRAIN))
    with pytest.raises(
        AnnotationError,
        match="expected one labels.json in the same folder, got 0; or give the class names as data.classes",
    ):
        read_videos(source)
    answers = write(tmp_path / "test-answers.csv", "3;Holding something\n1420,Approaching\n")
    with pytest.raises(
        AnnotationError, match="test-answers.csv: entry 2: expected `id;class`, got '1420,Approaching'"
    ):
        read_videos(answers)

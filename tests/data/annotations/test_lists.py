from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import touch, write

from nlnet.data.annotations.lists import _lines, _parse, read_list
from nlnet.data.annotations.read import read_videos
from nlnet.data.video_list import VideoItem
from nlnet.errors import AnnotationError


def listed(folder: Path, text: str, name: str = "train.txt") -> Path:
    return write(folder / name, text)


def labels(path: Path, **options: object) -> list[object]:
    return [item.label for item in read_videos(path, **options).items]  # type: ignore[arg-type]


def test_list_with_numbers_spaces_comments_and_a_byte_order_mark(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "my clips/b c.mp4", "d.mp4")
    path = listed(tmp_path, "\ufeff# comment\n\na.mp4 0\r\nmy clips/b c.mp4   2\n  d.mp4\t1  \n")
    videos = read_videos(path)
    assert videos.items == (
        VideoItem(tmp_path / "a.mp4", 0),
        VideoItem(tmp_path / "my clips/b c.mp4", 2),
        VideoItem(tmp_path / "d.mp4", 1),
    )
    assert videos.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "line", ["a, b.mp4 3", "a, b.mp4\t3", "a, b.mp4,3", '"a, b.mp4", 3', "'a, b.mp4' 3", 'a, b.mp4 "3"']
)
def test_separators_and_quotes(line: str, tmp_path: Path) -> None:
    touch(tmp_path, "a, b.mp4")
    path = listed(tmp_path, line)
    # a comma in every line makes the comma the separator: paths with commas then need commas or quotes
    if line in ("a, b.mp4 3", "'a, b.mp4' 3", 'a, b.mp4 "3"'):
        path = listed(tmp_path, line + "\nc.mp4 0")
        touch(tmp_path, "c.mp4")
    assert read_videos(path).items[0] == VideoItem(tmp_path / "a, b.mp4", 3)


def test_names_with_spaces(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b c.mp4")
    for text in (
        'a.mp4 "riding a bike"\nb c.mp4 yoga',
        "a.mp4\triding a bike\nb c.mp4\tyoga",
        "a.mp4,riding a bike\nb c.mp4,yoga",
    ):
        videos = read_videos(listed(tmp_path, text))
        assert videos.classes == ("riding a bike", "yoga")
        assert [item.label for item in videos.items] == [0, 1]
        assert [item.path.name for item in videos.items] == ["a.mp4", "b c.mp4"]


def test_names_in_a_given_order_and_numbers_as_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert labels(listed(tmp_path, "a.mp4 yoga\nb.mp4 run"), classes=["yoga", "swim", "run"]) == [0, 2]
    assert labels(listed(tmp_path, "a.mp4 10\nb.mp4 run"), classes=["run", "10"]) == [1, 0]
    assert labels(listed(tmp_path, "a.mp4 20\nb.mp4 10"), classes=["20", "10"]) == [0, 1]
    videos = read_videos(listed(tmp_path, "a.mp4 1\nb.mp4 0"), classes=["yoga", "run"])
    assert [item.label for item in videos.items] == [1, 0]
    assert videos.classes == ("yoga", "run")


def test_unlabelled_list(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b c.mkv")
    videos = read_videos(listed(tmp_path, 'a.mp4\n"b c.mkv"\n'), classes=["x"])
    assert videos.items == (VideoItem(tmp_path / "a.mp4", None), VideoItem(tmp_path / "b c.mkv", None))
    assert videos.classes == ("x",)


def test_a_name_may_begin_with_a_hash(tmp_path: Path) -> None:
    touch(tmp_path, "#1.mp4", "# 2.mp4", "#3/4.mp4", "#dir/1.jpg", "a.mp4")
    videos = read_videos(
        listed(tmp_path, "# 2.mp4 0\n#1.mp4 1\n#3/4.mp4 0\n#dir 0\n# a.mp4 0\n#\n## x\n#\tb.mp4 1\n")
    )
    assert [item.path.name for item in videos.items] == ["# 2.mp4", "#1.mp4", "4.mp4", "#dir"]
    # a missing one is an error, not a comment
    with pytest.raises(AnnotationError, match=r"train.txt:2: 1 of 2 videos do not exist: .*#gone.mp4"):
        read_videos(listed(tmp_path, "a.mp4 0\n#gone.mp4 0\n"))


def test_paths_are_relative_to_the_list_or_to_root(tmp_path: Path) -> None:
    touch(tmp_path, "lists/a.mp4", "videos/a.mp4")
    path = listed(tmp_path / "lists", f"a.mp4 0\n{tmp_path / 'videos/a.mp4'} 0\n")
    assert [item.path for item in read_list(path).items] == [
        tmp_path / "lists/a.mp4",
        tmp_path / "videos/a.mp4",
    ]
    path = listed(tmp_path / "lists", "a.mp4 0\n")
    assert read_videos(path, root=tmp_path / "videos").items[0].path == tmp_path / "videos/a.mp4"


NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "Zs"), include_characters="-_/"), min_size=1
)


@given(pairs=st.lists(st.tuples(NAMES, st.integers(0, 400)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_path_with_white_space_survives(
    pairs: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"x{name.strip()}.mp4" for name, _ in pairs]
    numbers = [str(number) for _, number in pairs]
    text = "\n".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
    source = listed(tmp_path_factory.getbasetemp(), text, "any.txt")
    _, lines = _parse(source, _lines(source, source.parent), multilabel=False)
    assert [line.path for line in lines] == names
    assert [line.label for line in lines] == numbers
    assert [line.number for line in lines] == list(range(1, len(pairs) + 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "train.txt lists no video; expected lines `path label`"),
        ("a.mp4 0\nb.mp4\n", r"train.txt:2: expected `path label` separated by white space.*got 'b.mp4'"),
        (
            "a.mp4 0\nb.mp4,1\n",
            r"train.txt:2: expected `path label` .*got 'b.mp4,1'; put a name with spaces in double",
        ),
        ("a.mp4\t0\n\nb.mp4\t\n", "train.txt:3: expected `path label`"),
        (
            "a.mp4 0\nb.mp4 yoga\n",
            r"must be all numbers or all names, got '0' on line 1 and 'yoga' on line 2; is line 2 a header",
        ),
        ("a.mp4 -1\nb.mp4 0\n", "train.txt:1: class numbers must be from 0 to 0, got -1"),
        ("a.mp4 0\n# x\na.mp4 0\n", "train.txt:3: a.mp4 is already listed at train.txt:1; remove one"),
        (
            "a.mp4 0\nc.mp4 0\nd.mp4 0\ne.mp4 0\nf.mp4 0\n",
            r"train.txt:2: 4 of 5 videos do not exist: .*c.mp4 \(train.txt:2\), .*d.mp4 \(train.txt:3\), "
            r".*e.mp4 \(train.txt:4\), …; they were searched for in .*, give another root .*missing=leave_out to continue",
        ),
    ],
)
def test_lists_with_mistakes(text: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(AnnotationError, match=message):
        read_videos(listed(tmp_path, text))


def test_labels_that_the_classes_do_not_have(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(
        AnnotationError,
        match="train.txt:2: class numbers must be from 0 to 1, got 2; are the labels numbered from 1",
    ):
        read_videos(listed(tmp_path, "a.mp4 1\nb.mp4 2"), classes=["x", "y"])
    with pytest.raises(
        AnnotationError, match="train.txt:1: 'yogga' is not one of the 2 classes; did you mean 'yoga'"
    ):
        read_videos(listed(tmp_path, "a.mp4 yogga\nb.mp4 yoga"), classes=["run", "yoga"])
    with pytest.raises(AnnotationError, match=r"'zzz' is not one of the 6 classes \(a, b, c, d, e, …\)"):
        read_videos(listed(tmp_path, "a.mp4 zzz"), classes=list("abcdef"))


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(b"\xff\xfe\x00clip")
    with pytest.raises(AnnotationError, match="train.txt is not UTF-8 text"):
        read_videos(path)


# any number of labels


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 1 3\nb c.mp4 0\n",
        "a.mp4 3,1\nb c.mp4 0\n",
        "a.mp4,1,3\n'b c.mp4',0\n",
        "a.mp4\t3 1 1\nb c.mp4\t0\n",
    ],
)
def test_several_labels_on_a_line(text: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b c.mp4")
    videos = read_videos(listed(tmp_path, text))
    assert videos.items == (VideoItem(tmp_path / "a.mp4", (1, 3)), VideoItem(tmp_path / "b c.mp4", (0,)))
    assert videos.multilabel
    assert videos.classes == ("0", "1", "2", "3")


def test_one_label_a_line_is_multilabel_only_by_option(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c/1.jpg", "d/1.jpg")
    assert labels(listed(tmp_path, "a.mp4 1\nb.mp4 0\n")) == [1, 0]
    assert labels(listed(tmp_path, "a.mp4 1\nb.mp4 0\n"), format="multilabel") == [(1,), (0,)]
    # then videos without any class are allowed, and folders of frames
    assert labels(listed(tmp_path, "a.mp4\nb.mp4 0,2\n"), format="multilabel") == [(), (0, 2)]
    assert labels(listed(tmp_path, "c 0 2\nd\n"), format="multilabel") == [(0, 2), ()]
    assert labels(listed(tmp_path, "a.mp4\nb.mp4\n"), format="multilabel", classes=["x"]) == [(), ()]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a.mp4 0 1\nb.mp4\n",
            {},
            "train.txt:2: expected `path` and class numbers .*data.format=multilabel allows",
        ),
        (
            "a.mp4 0 1\nb.mp4 x\n",
            {"format": "multilabel"},
            "train.txt:2: expected `path` and class numbers .*'b.mp4 x'$",
        ),
        (
            "a.mp4 0 2\nb.mp4 1\n",
            {"classes": ["x", "y"]},
            "train.txt:1: class numbers must be from 0 to 1, got 2$",
        ),
        (
            "a.mp4 1 2\nb.mp4 1\n",
            {"classes": ["x", "y"]},
            "train.txt:1: .*got 2; are the labels numbered from 1",
        ),
    ],
)
def test_several_labels_with_mistakes(
    text: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(AnnotationError, match=message):
        read_videos(listed(tmp_path, text), **options)  # type: ignore[arg-type]


# folders of frames


def test_frame_folders_with_their_numbers_of_frames(tmp_path: Path) -> None:
    touch(tmp_path, "some/dir-1/img_00001.jpg", "some/dir 2/img_00001.jpg")
    videos = read_videos(listed(tmp_path, 'some/dir-1 163 1\n"some/dir 2" 122 0\n'))
    assert videos.items == (
        VideoItem(tmp_path / "some/dir-1", 1, num_frames=163),
        VideoItem(tmp_path / "some/dir 2", 0, num_frames=122),
    )
    assert videos.layout == "list of frame folders"
    several = read_videos(listed(tmp_path, '"some/dir 2" 122 0\nsome/dir-1 163 1 3 5\n'))
    assert [item.label for item in several.items] == [(0,), (1, 3, 5)]
    assert labels(listed(tmp_path, "some/dir-1 163 1\n"), format="multilabel") == [(1,)]


def test_a_folder_of_frames_in_place_of_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "dir/1.jpg", "a.mp4")
    videos = read_videos(listed(tmp_path, "dir yoga\na.mp4 run\n"))
    assert videos.items == (VideoItem(tmp_path / "dir", 1), VideoItem(tmp_path / "a.mp4", 0))

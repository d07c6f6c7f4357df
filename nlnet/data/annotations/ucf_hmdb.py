"""The formats of UCF101 and HMDB51: three official splits into training and test videos."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nlnet.data.annotations.class_names import class_number, read_classes
from nlnet.data.annotations.format import AnnotationFormat
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, read_text
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.errors import AnnotationError

UCF101_NAME = re.compile(r"(train|test)list0[123]\.txt")
HMDB51_PART = re.compile(r"(train|test)([123])")


def read_ucf101(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """Read `trainlist0N.txt` or `testlist0N.txt` of UCF101.

    Lines are `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`, without the number in the test lists. The folder is the
    class; the number counts from 1 and must agree with `classInd.txt` in the list's folder. Videos lie in `root` or
    below.
    """
    beside = source.parent / "classInd.txt"
    if not beside.is_file():
        raise AnnotationError(
            f"{source} is a UCF101 list with class numbers from 1, and needs classInd.txt in the same folder; "
            "if it is not a UCF101 list, set data.format=list"
        )
    official = read_classes(beside)
    order = tuple(classes) if classes is not None else official
    parsed = []
    for line, text in enumerate(read_text(source, "lines `Class/video.avi 1`").splitlines(), 1):
        if not text.strip():
            continue
        found = re.fullmatch(r"(\S+)/(\S+)(?:\s+(\d+))?\s*", text)
        if found is None:
            raise AnnotationError(
                f"{source}:{line}: expected `Class/video.avi 1` or `Class/video.avi`, got {text!r}"
            )
        where, name, number = f"{source}:{line}", found[1], found[3]
        if number is not None and (
            not 1 <= int(number) <= len(official) or official[int(number) - 1] != name
        ):
            raise AnnotationError(
                f"{where}: class {name!r} does not have the number {number} in {beside.name}"
            )
        parsed.append((where, PurePosixPath(found[2]).stem, name))
    return _located(source, parsed, order, root=root, layout="UCF101 split", missing=missing)


def read_hmdb51(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """Read the training or test part of one split of HMDB51: `source` is SPLITS/train1, SPLITS/test1, … SPLITS/test3.

    SPLITS is the folder of the official files, one for each class and split, such as `brush_hair_test_split1.txt`: its
    lines are a video and 1 (training), 2 (test) or 0 (in neither part). `train1` and the other part names are no files
    on disk: they select lines of all those files. Videos lie in `root`, by default SPLITS, or below.
    """
    part = HMDB51_PART.fullmatch(source.name)
    if part is None:
        raise AnnotationError(
            f"{source}: expected the folder of the HMDB51 splits followed by the part of a split, such as "
            f"{source / 'train1'} or {source / 'test1'}"
        )
    mark, ending = {"train": "1", "test": "2"}[part[1]], f"_test_split{part[2]}.txt"
    files = {file.name.removesuffix(ending): file for file in sorted(source.parent.glob(f"*{ending}"))}
    if not files:
        raise AnnotationError(
            f"{source.parent} holds no files CLASS{ending}; expected the official split files of HMDB51"
        )
    order = tuple(classes) if classes is not None else tuple(sorted(files))
    parsed = []
    for name, file in files.items():
        for line, text in enumerate(read_text(file, "lines `video.avi 1`").splitlines(), 1):
            if not text.strip():
                continue
            video, _, given = text.strip().rpartition(" ")
            if not video or given not in ("0", "1", "2"):
                raise AnnotationError(f"{file}:{line}: expected `video.avi` and 0, 1 or 2, got {text!r}")
            if given == mark:
                parsed.append((f"{file}:{line}", PurePosixPath(video.strip()).stem, name))
    return _located(source, parsed, order, root=root, layout="HMDB51 split", missing=missing)


def _located(
    source: Path,
    parsed: Sequence[tuple[str, str, str]],
    classes: tuple[str, ...],
    *,
    root: Path | None,
    layout: str,
    missing: Missing,
) -> VideoList:
    """The VideoList of the parsed lines ("file:line", video name without suffix, class), with the videos' paths."""
    numbers = {name: k for k, name in enumerate(classes)}
    folder = source.parent if root is None else root
    paths = locate(folder, {stem: name for _, stem, name in parsed}, suffix=".avi")
    rows = [
        Row(where, stem, VideoItem(paths[stem], class_number(name, numbers, where)))
        for where, stem, name in parsed
    ]
    return assemble(source, rows, classes, layout=layout, folder=folder, missing=missing)


def _is_ucf101(source: Path, first_line: str) -> bool:
    return source.is_file() and UCF101_NAME.fullmatch(source.name) is not None


def _is_hmdb51(source: Path, first_line: str) -> bool:
    if source.is_dir() and any(source.glob("*_test_split1.txt")):
        raise AnnotationError(
            f"{source} holds the splits of HMDB51; give a part of a split, such as {source / 'train1'} or "
            f"{source / 'test1'} (no file of that name is needed), and the folder of the videos as root"
        )
    part = HMDB51_PART.fullmatch(source.name)
    # a file or folder that happens to be called train1 is read as what it is
    return part is not None and not source.exists() and any(source.parent.glob(f"*_test_split{part[2]}.txt"))


UCF101 = AnnotationFormat(
    title="UCF101's trainlist0N.txt or testlist0N.txt, with classInd.txt in the same folder",
    read=read_ucf101,
    recognises=_is_ucf101,
)
HMDB51 = AnnotationFormat(
    title="train1 … train3 or test1 … test3 in the folder of HMDB51's *_test_splitN.txt files",
    read=read_hmdb51,
    recognises=_is_hmdb51,
    source="any",  # the source names no file on disk
)

"""UCF101 and HMDB51: their three official splits into training and test videos."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nlnet.data.annotations.class_names import class_number, read_classes
from nlnet.data.annotations.locate import locate
from nlnet.data.annotations.rows import Missing, Row, assemble, read_text
from nlnet.data.video_list import VideoItem, VideoList

UCF101_NAME = re.compile(r"(train|test)list0[123]\.txt")
HMDB51_PART = re.compile(r"(train|test)([123])")


def read_ucf101(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """The videos of `trainlist0N.txt` or `testlist0N.txt`.

    Lines are `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`, without the number in the test lists. The folder says the
    class; the number counts from 1 and has to agree with `classInd.txt` beside the list. Videos lie in `root` or below.
    """
    beside = source.parent / "classInd.txt"
    if not beside.is_file():
        raise ValueError(
            f"{source} is a UCF101 list, numbered from 1, and needs classInd.txt beside it; "
            "or set data.format=list if it is another kind of list"
        )
    official = read_classes(beside)
    order = tuple(classes) if classes is not None else official
    parsed = []
    for line, text in enumerate(read_text(source, "lines `Class/video.avi 1`").splitlines(), 1):
        if not text.strip():
            continue
        found = re.fullmatch(r"(\S+)/(\S+)(?:\s+(\d+))?\s*", text)
        if found is None:
            raise ValueError(
                f"{source}:{line}: expected `Class/video.avi 1` or `Class/video.avi`, got {text!r}"
            )
        where, name, number = f"{source}:{line}", found[1], found[3]
        if number is not None and (
            not 1 <= int(number) <= len(official) or official[int(number) - 1] != name
        ):
            raise ValueError(f"{where}: {beside.name} does not have {name!r} as number {number}")
        parsed.append((where, PurePosixPath(found[2]).stem, name))
    return _located(source, parsed, order, root=root, layout="UCF101 split", missing=missing)


def read_hmdb51(
    source: Path, *, root: Path | None, classes: Sequence[str] | None, missing: Missing
) -> VideoList:
    """The videos of one part of one split: `source` is SPLITS/train1, SPLITS/test1, … SPLITS/test3.

    SPLITS is the folder of the official files, of which each class has one for each split, `brush_hair_test_split1.txt`:
    its lines are a video and 1 (training), 2 (test) or 0 (neither in this split). Neither `train1` nor the others are
    files. Videos lie in `root`, by default SPLITS, or below.
    """
    part = HMDB51_PART.fullmatch(source.name)
    if part is None:
        raise ValueError(
            f"{source}: expected a part of HMDB51 such as {source / 'train1'} or {source / 'test1'}"
        )
    mark, ending = {"train": "1", "test": "2"}[part[1]], f"_test_split{part[2]}.txt"
    files = {file.name.removesuffix(ending): file for file in sorted(source.parent.glob(f"*{ending}"))}
    if not files:
        raise ValueError(f"{source.parent} holds no files CLASS{ending}")
    order = tuple(classes) if classes is not None else tuple(sorted(files))
    parsed = []
    for name, file in files.items():
        for line, text in enumerate(read_text(file, "lines `video.avi 1`").splitlines(), 1):
            if not text.strip():
                continue
            video, _, given = text.strip().rpartition(" ")
            if not video or given not in ("0", "1", "2"):
                raise ValueError(f"{file}:{line}: expected `video.avi` and 0, 1 or 2, got {text!r}")
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
    """The list of videos given as ("file:line", name without suffix, class)."""
    numbers = {name: k for k, name in enumerate(classes)}
    folder = source.parent if root is None else root
    paths = locate(folder, {stem: name for _, stem, name in parsed}, suffix=".avi")
    rows = [
        Row(where, stem, VideoItem(paths[stem], class_number(name, numbers, where)))
        for where, stem, name in parsed
    ]
    return assemble(source, rows, classes, layout=layout, folder=folder, missing=missing)

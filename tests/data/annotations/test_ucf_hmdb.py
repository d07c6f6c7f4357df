"""The formats of UCF101 and HMDB51, on lines as in the official split files."""

from pathlib import Path

import pytest
from support.trees import touch, write

from nlnet.data.annotations.read import read_videos
from nlnet.errors import AnnotationError

CLASS_IND = "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n3 Archery\r\n"
TRAIN = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nArchery/v_Archery_g25_c07.avi 3\r\n"
TEST = "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\nApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi\r\n"


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    folder = tmp_path / "ucfTrainTestlist"
    for name, text in (("classInd.txt", CLASS_IND), ("trainlist01.txt", TRAIN), ("testlist01.txt", TEST)):
        write(folder / name, text)
    touch(tmp_path / "UCF-101", *TRAIN.replace(" 1", "").replace(" 3", "").split(), *TEST.split())
    return folder


def test_ucf101_numbers_from_one_become_numbers_from_zero(ucf101: Path, tmp_path: Path) -> None:
    train = read_videos(ucf101 / "trainlist01.txt", root=tmp_path / "UCF-101")
    assert [item.label for item in train.items] == [0, 2]
    assert train.classes == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    assert train.items[1].path == tmp_path / "UCF-101/Archery/v_Archery_g25_c07.avi"
    # the test list has no numbers: the folder is the class
    test = read_videos(ucf101 / "testlist01.txt", root=tmp_path / "UCF-101", classes=train.classes)
    assert [item.label for item in test.items] == [1, 0]


def test_ucf101_in_one_folder_and_re_encoded(ucf101: Path, tmp_path: Path) -> None:
    root = touch(tmp_path / "flat", "v_ApplyEyeMakeup_g08_c01.mp4", "v_Archery_g25_c07.mp4")
    videos = read_videos(ucf101 / "trainlist01.txt", root=root)
    assert [item.path.name for item in videos.items] == [
        "v_ApplyEyeMakeup_g08_c01.mp4",
        "v_Archery_g25_c07.mp4",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Archery/v_x.avi 2",
            "trainlist01.txt:1: class 'Archery' does not have the number 2 in classInd.txt",
        ),
        (
            "Archery/v_x.avi 0",
            "trainlist01.txt:1: class 'Archery' does not have the number 0 in classInd.txt",
        ),
        (
            "Archery/v_x.avi 4",
            "trainlist01.txt:1: class 'Archery' does not have the number 4 in classInd.txt",
        ),
        (
            "v_x.avi 2",
            "trainlist01.txt:1: expected `Class/video.avi 1` or `Class/video.avi`, got 'v_x.avi 2'",
        ),
        ("Archer/v_x.avi", "trainlist01.txt:1: 'Archer' is not one of the 3 classes; did you mean 'Archery'"),
    ],
)
def test_ucf101_mistakes(line: str, message: str, ucf101: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_videos(write(ucf101 / "trainlist01.txt", line + "\n"))


def test_ucf101_without_its_class_file(ucf101: Path) -> None:
    (ucf101 / "classInd.txt").unlink()
    with pytest.raises(
        AnnotationError,
        match="is a UCF101 list with class numbers from 1, and needs classInd.txt in the same folder",
    ):
        read_videos(ucf101 / "trainlist01.txt")


WAVE = "50_FIRST_DATES_wave_f_cm_np1_fr_med_0.avi 1 \n50_FIRST_DATES_wave_u_cm_np1_fr_goo_30.avi 2 \nAmadeus_wave_1.avi 0 \n"
PICK = "#122_Cleaning_Up_The_Beach_In_Chiba__Japan_pick_f_nm_np1_le_bad_2.avi 1 \nshow_(b)_pick_0.avi 2 \n"


@pytest.fixture
def hmdb51(tmp_path: Path) -> Path:
    folder = tmp_path / "testTrainMulti_7030_splits"
    for k in (1, 2):
        write(folder / f"wave_test_split{k}.txt", WAVE)
        write(folder / f"pick_test_split{k}.txt", PICK if k == 1 else PICK.replace(" 1 ", " 0 "))
    touch(tmp_path / "hmdb51_org", *(f"wave/{line.split()[0]}" for line in WAVE.splitlines()))
    touch(tmp_path / "hmdb51_org", *(f"pick/{line.split()[0]}" for line in PICK.splitlines()))
    return folder


def test_hmdb51_parts(hmdb51: Path, tmp_path: Path) -> None:
    root = tmp_path / "hmdb51_org"
    train = read_videos(hmdb51 / "train1", root=root)
    assert train.classes == ("pick", "wave")
    assert [(item.path.relative_to(root).as_posix(), item.label) for item in train.items] == [
        # a name that begins with # is a video, not a comment
        ("pick/#122_Cleaning_Up_The_Beach_In_Chiba__Japan_pick_f_nm_np1_le_bad_2.avi", 0),
        ("wave/50_FIRST_DATES_wave_f_cm_np1_fr_med_0.avi", 1),
    ]
    test = read_videos(hmdb51 / "test1", root=root, classes=train.classes)
    assert [(item.path.name, item.label) for item in test.items] == [
        ("show_(b)_pick_0.avi", 0),
        ("50_FIRST_DATES_wave_u_cm_np1_fr_goo_30.avi", 1),
    ]
    assert len(read_videos(hmdb51 / "train2", root=root)) == 1


def test_hmdb51_mistakes(hmdb51: Path) -> None:
    with pytest.raises(
        AnnotationError,
        match="expected the folder of the HMDB51 splits followed by the part of a split, such as .*/train1",
    ):
        read_videos(hmdb51, format="hmdb51")
    with pytest.raises(AnnotationError, match="holds no files CLASS_test_split3.txt"):
        read_videos(hmdb51 / "train3", format="hmdb51")
    with pytest.raises(AnnotationError, match=r"2 of 2 videos do not exist: .*\(pick_test_split1.txt:1\)"):
        read_videos(hmdb51 / "train1")
    for line in ("a.avi 3", "a.avi", "1"):
        write(hmdb51 / "wave_test_split1.txt", WAVE + line + "\n")
        with pytest.raises(
            AnnotationError, match="wave_test_split1.txt:4: expected `video.avi` and 0, 1 or 2, got"
        ):
            read_videos(hmdb51 / "train1")

"""`nlnet report`: analysis of hand-made scores, and the page of runs with and without test, block statistics, videos."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.color_videos import COLORS
from support.command_line import nlnet
from support.scores import saved_scores
from support.training import run, settings

from nlnet.apps.report.analysis import by_block, confusion, hardest, most_confused, smooth, verdicts
from nlnet.apps.report.command import write_report
from nlnet.apps.report.figures import classes_picture, confusion_picture, middle_frame
from nlnet.data import VideoError
from nlnet.engine.config import Config, override
from nlnet.engine.evaluation.score_files import write_scores
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import RunError

STATISTICS = {
    "kind": "block_stats",
    "block": "layer2.1.nonlocal_block",
    "pairwise": "gaussian",
    "switch": "norm",
}


def evaluation(labels, rows, classes=("a", "b", "c")) -> Evaluation:
    videos = (
        VideoScores(n, Path(f"{n}.mp4"), label, torch.tensor([row]))
        for n, (label, row) in enumerate(zip(labels, rows, strict=True))
    )
    return Evaluation(tuple(videos), (), classes)


ONE_CLASS = evaluation(
    (0, 0, 1, None, 2),
    ([0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.2, 0.5], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4]),
)


def test_the_confusion_matrix_counts_labelled_videos():
    matrix = confusion(ONE_CLASS)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert most_confused(matrix, "abc", 5) == [
        {"class": "a", "taken for": "b", "videos": 1, "share": 50.0},
        {"class": "b", "taken for": "c", "videos": 1, "share": 100.0},
    ]
    assert most_confused(matrix, "abc", 1) == most_confused(matrix, "abc", 5)[:1]


def test_several_classes_a_video_have_no_confusion_matrix():
    with pytest.raises(ValueError, match="a confusion matrix needs one class per video"):
        confusion(evaluation([(0, 1)], [[0.5, 0.5, 0.5]]))


def test_the_hardest_videos_gave_their_class_the_lowest_probability():
    found = [(v.path.name, v.truth, v.prediction) for v in hardest(ONE_CLASS, 3)]
    assert found == [("1.mp4", "a", "b"), ("2.mp4", "b", "c"), ("4.mp4", "c", "c")]
    assert hardest(ONE_CLASS, 1)[0].probability == pytest.approx(0.1)
    assert hardest(ONE_CLASS, 1)[0].predicted == pytest.approx(0.6)


def test_a_video_of_several_classes_is_as_hard_as_its_least_probable_one():
    labels, rows = [(0, 1), (2,), ()], [[0.9, 0.2, 0.4], [0.1, 0.2, 0.3], [0.9, 0.9, 0.9]]
    first, second = hardest(evaluation(labels, rows), 5)
    assert (first.truth, first.prediction) == ("b", "c")
    assert (first.probability, first.predicted) == pytest.approx((0.2, 0.4))
    assert (second.truth, second.prediction) == ("c", "b")


@given(st.lists(st.floats(-10, 10), max_size=30), st.integers(0, 6))
def test_smoothing_keeps_the_range_and_a_straight_line(values, half):
    window = 2 * half + 1
    smoothed = smooth(values, window)
    assert len(smoothed) == len(values)
    assert all(min(values) - 1e-9 <= v <= max(values) + 1e-9 for v in smoothed)
    line = [2.0 * n + 1 for n in range(len(values))]
    assert smooth(line, window) == pytest.approx(line)


@pytest.mark.parametrize("window", [0, 4])
def test_an_even_window_is_an_error(window):
    with pytest.raises(ValueError, match=f"window: got {window}, expected an odd number"):
        smooth([1.0], window)


def test_smoothing_is_a_mean_of_neighbours():
    assert smooth([0, 3, 6, 0], 3) == [0, 3, 3, 0]


def test_statistics_and_states_by_block():
    values = {"gamma": 0.1, "gamma_max": 0.2, "ratio": 0.1, "entropy": 0.5}
    other = STATISTICS | values | {"block": "layer3.0.nonlocal_block", "ratio": 0.0}
    records = [
        STATISTICS | values | {"iteration": 1, "kind": "vitals"},  # as older runs have it
        other | {"iteration": 1},
        {"kind": "train", "iteration": 1},
        STATISTICS | values | {"iteration": 2},
    ]
    assert {block: len(found) for block, found in by_block(records).items()} == {"layer2.1": 2, "layer3.0": 1}
    assert {block: verdict.state for block, verdict in verdicts(records).items()} == {
        "layer2.1": "learned",
        "layer3.0": "inactive",
    }


def colours(path: Path) -> int:
    """How many colours a picture has: an empty one has few."""
    pixels = (255 * torch.from_numpy(matplotlib.image.imread(path))[..., :3]).long()
    return len((pixels @ torch.tensor([65536, 256, 1])).unique())


@pytest.mark.parametrize("count", [3, 20, 60])
def test_pictures_of_few_and_of_many_classes(count, tmp_path):
    names = [f"class {n} of a long name that does not fit the margin" for n in range(count)]
    confusion_picture(torch.eye(count, dtype=torch.long), names, tmp_path / "c.png")
    rows = [{"class": name, "videos": n, "top1": 100 * n / count} for n, name in enumerate(names)]
    classes_picture([*rows, {"class": "unseen", "videos": 0, "top1": None}], "top1", tmp_path / "k.png")
    assert colours(tmp_path / "c.png") > 50
    assert colours(tmp_path / "k.png") > 20


@pytest.fixture(scope="module")
def trained(color_videos, tmp_path_factory) -> Path:
    """A short run and its test, by the command."""
    root = tmp_path_factory.mktemp("report")
    tests = ("test.clips=1", "test.crops=1", "test.short_side=26", "test.crop=24")
    run(settings(color_videos, "schedule.iterations=4", "training.block_stats_every=2", *tests), root / "run")
    done = nlnet("test", root / "run", "--data", color_videos / "val")
    assert done.returncode == 0, done.stderr
    assert "nlnet report" in done.stdout
    return root / "run"


def test_the_report_of_a_tested_run(trained):
    done = nlnet("report", trained, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((trained / "report" / "report.json").read_text())
    assert report["missing"] == []
    assert report["pictures"] == [
        f"{p}.png" for p in ("blocks", "classes", "confusion", "hardest", "training")
    ]
    assert all(colours(trained / "report" / picture) > 20 for picture in report["pictures"])
    assert report["blocks"]["layer2.1"]["last"]["iteration"] == 4
    assert sorted(v["truth"] for v in report["test"]["hardest"]) == sorted(2 * COLORS)
    summary = json.loads((trained / "test" / "summary.json").read_text())
    assert report["test"]["metrics"] == pytest.approx(summary["metrics"])
    text = (trained / "report" / "report.md").read_text()
    assert "## Non-local blocks" in text
    assert all(f"]({picture})" in text for picture in report["pictures"])


def test_the_report_of_a_run_without_test_says_how_to_add_it(color_videos, tmp_path):
    config = settings(color_videos, "schedule.iterations=1", "training.block_stats_every=0", "data.val=null")
    run(config, tmp_path / "run")
    out = tmp_path / "there"
    out.mkdir()
    for name in ("confusion", "vitals"):
        (out / f"{name}.png").write_text("of an earlier report")
    done = nlnet("report", tmp_path / "run", "--out", out)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "the run was not tested; test it with: nlnet test" in shown
    assert "training.block_stats_every is 0; set it to 20" in shown
    assert "set data.val=PATH" in shown
    assert sorted(p.name for p in out.iterdir()) == ["report.json", "report.md", "training.png"]
    assert not (tmp_path / "run" / "report").exists()


def made_run(path: Path, *more: str) -> RunDir:
    made = RunDir(path)
    made.create(override(Config(), list(more)), ("a b", "ü"))
    return made


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("i3d_mini_nl1", "an older version of nlnet trained the run"),
        ("c2d_mini", "c2d_mini has no non-local block"),
    ],
)
def test_a_run_without_records(model, reason, tmp_path):
    made = made_run(tmp_path, f"model.name={model}")
    report = write_report(made, tmp_path / "report")
    assert report["pictures"] == []
    assert any("no iteration is logged yet" in line for line in report["missing"])
    assert any(reason in line for line in report["missing"])


@pytest.mark.parametrize(
    ("labels", "pictures"),
    [
        ((0, 1, 0), {"classes", "confusion", "hardest"}),
        (((0, 1), (1,)), {"classes", "hardest"}),
        ((None,), set()),
    ],
)
def test_tests_of_every_kind_whose_videos_are_gone(labels, pictures, tmp_path):
    made = made_run(tmp_path)
    write_scores(tmp_path / "test" / "scores.safetensors", saved_scores(labels))
    report = write_report(made, tmp_path / "report")
    assert report["pictures"] == sorted(f"{name}.png" for name in pictures)
    gone = [line for line in report["missing"] if line.startswith("frame of a hardest video: ")]
    assert len(gone) == (len(labels) if pictures else 0)
    assert all("does not exist" in line for line in gone)
    if labels == (None,):
        assert any("the test videos have no labels" in line for line in report["missing"])
    if "confusion" not in pictures and pictures:
        assert any("several classes each" in line for line in report["missing"])
    assert "1 could not be read" in (tmp_path / "report" / "report.md").read_text()


def test_scores_that_cannot_be_read_are_reported(tmp_path):
    made = made_run(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "scores.safetensors").write_bytes(b"no scores")
    report = write_report(made, tmp_path / "report")
    assert any(line.startswith("test results: ") and "not a readable" in line for line in report["missing"])


def test_names_with_bars_do_not_break_tables(tmp_path):
    made = made_run(tmp_path)
    saved = saved_scores((0, 1, 0), classes=("left|right", "b"))
    wrong = tuple(replace(v, views=torch.tensor([[0.1, 0.9]]).expand(6, 2)) for v in saved.evaluation.videos)
    saved = replace(saved, evaluation=replace(saved.evaluation, videos=wrong))
    write_scores(tmp_path / "test" / "scores.safetensors", saved)
    write_report(made, tmp_path / "report")
    assert "| left\\|right | b | 2 | 100.0 |" in (tmp_path / "report" / "report.md").read_text()


def test_no_run_no_report(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        write_report(RunDir(tmp_path), tmp_path / "report")
    assert nlnet("report", tmp_path).returncode == 1
    assert not (tmp_path / "report").exists()


def test_the_middle_frame(color_videos, tmp_path):
    """The tint of the folder; a missing file raises."""
    frame = middle_frame(color_videos / "val" / "red" / "0.mp4").astype(int)
    assert frame.shape == (32, 32, 3)
    assert frame[..., 0].mean() > frame[..., 2].mean() + 50
    with pytest.raises(VideoError, match="does not exist"):
        middle_frame(tmp_path / "gone.mp4")


def test_training_ends_with_a_line_for_each_block(color_videos, tmp_path):
    config = settings(color_videos, "schedule.iterations=1", "data.val=null", "training.precise_norm=0")
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    done = nlnet("train", tmp_path / "run.yaml", "--out", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "block layer2.1 inactive: adds 0 % of its input, mean |γ| 0 → 0," in shown
    assert f"nlnet report {tmp_path / 'run'}" in shown

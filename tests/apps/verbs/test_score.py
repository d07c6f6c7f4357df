"""`nlnet test` and `nlnet score` through the command line: other metrics from the scores of one test."""

import json
import shutil
from pathlib import Path

import pytest
from support.command_line import nlnet
from support.training import settings

from nlnet.engine.config import override
from nlnet.engine.evaluation.score_files import read_scores
from nlnet.engine.network import build_model
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir


def untrained(directory: Path, config, classes) -> Path:
    """A run directory with fresh weights: enough to be tested."""
    run = RunDir(directory)
    run.create(config, classes)
    weights = build_model(config, len(classes)).state_dict()
    run.save("last", Checkpoint(weights=weights, config=config, classes=classes, iteration=0, metrics={}))
    return directory


@pytest.fixture(scope="module")
def tested(color_videos, tmp_path_factory) -> tuple[Path, Path]:
    """Two runs with different weights, tested on 4 clips × 3 crops."""
    root = tmp_path_factory.mktemp("scoring")
    sizes = ("test.clips=4", "test.short_side=26", "test.crop=24", f"data.test={color_videos / 'val'}")
    config = override(settings(color_videos), list(sizes))
    runs = tuple(untrained(root / name, config, ("blue", "green", "red")) for name in ("one", "two"))
    for run in runs:
        done = nlnet("test", run)
        assert done.returncode == 0, done.stderr
    return runs  # type: ignore[return-value]


def scored(*arguments: object) -> dict:
    done = nlnet("score", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_score_prints_the_metrics_of_the_test(tested):
    summary = json.loads((tested[0] / "test" / "summary.json").read_text())
    source = scored(tested[0])["sources"][0]
    assert source["metrics"] == pytest.approx(summary["metrics"], abs=1e-9)
    assert (source["protocol"], source["clips"], source["crops"]) == ("released", 4, 3)
    assert source["classes"] == json.loads((tested[0] / "test" / "classes.json").read_text())
    assert [row["clips"] for row in source["by_clips"]] == [1, 2, 3, 4]
    assert source["by_clips"][-1]["video_top1"] == pytest.approx(summary["metrics"]["video_top1"])


def test_fewer_clips_give_the_metrics_of_a_test_with_fewer_clips(tested, tmp_path):
    """Without decoding again; the scores of the run's own test stay as they are."""
    done = nlnet("test", tested[0], "test.clips=2", "test.crops=1", "--out", tmp_path / "few", "--json")
    assert done.returncode == 0, done.stderr
    source = scored(tested[0], "--clips", 2, "--centre-crop")["sources"][0]
    assert source["metrics"] == pytest.approx(json.loads(done.stdout)["metrics"], abs=1e-4)
    assert (source["clips"], source["crops"]) == (2, 1)
    largest = scored(tested[0], "--aggregate", "max")["sources"][0]
    assert largest["aggregate"] == "max"
    assert (tmp_path / "few" / "scores.safetensors").exists()
    assert read_scores(tested[0]).test.clips == 4  # the run's own test is as it was


def test_fusion(tested):
    report = scored(*tested, "--weight", 3, "--weight", 1)
    one, two = (read_scores(run).evaluation for run in tested)
    right = sum(
        int((3 * a.video + b.video).argmax() == a.label) for a, b in zip(one.videos, two.videos, strict=True)
    )
    assert report["fused"]["metrics"]["video_top1"] == pytest.approx(100 * right / 6)
    assert set(report["fused"]["metrics"]) == {"video_top1", "video_mean_class"}
    assert report["weights"] == [3, 1]
    assert scored(*tested)["weights"] == [1, 1]


def test_tables(tested):
    alone = nlnet("score", tested[0])
    assert alone.returncode == 0, alone.stderr
    words = " ".join(alone.stdout.split())
    assert "6 videos, protocol released, mean over 4 clips × 3 crops" in words
    assert "video_top1 by the number of clips" in words
    both = nlnet("score", *tested, "--clips", 1)
    assert "fused with weights 1, 1" in both.stdout
    assert "fused" in both.stdout
    assert "by the number of clips" not in both.stdout


def test_an_unread_video_is_counted_both_ways(tested, color_videos, corrupted, tmp_path):
    copy, _ = corrupted(color_videos, "val/red")
    done = nlnet("test", tested[0], "--data", copy / "val", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "unread as wrong" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    read, lost = summary["metrics"], summary["metrics_unread_as_wrong"]
    assert lost["video_top1"] == pytest.approx(read["video_top1"] * 5 / 6)
    assert "unread as wrong" in nlnet("score", tmp_path / "out").stdout
    assert scored(tmp_path / "out")["sources"][0]["metrics_unread_as_wrong"] == pytest.approx(lost)
    refused = nlnet("score", tested[0], tmp_path / "out")
    assert refused.returncode == 1
    assert f"{tmp_path / 'out'} has no scores of red/0.mp4" in refused.stderr


def test_another_protocol_by_its_name(tested, tmp_path):
    done = nlnet("test", tested[0], "test.protocol=paper", "--out", tmp_path / "paper", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["protocol"], summary["views_per_video"]) == ("paper", 10)
    saved = read_scores(tmp_path / "paper")
    assert (saved.test.crop, saved.test.crops) == (26, 1)
    assert saved.evaluation.videos[0].starts == tuple(range(10))  # int(k · 10/10)


def test_several_classes_a_video(color_videos, tmp_path):
    lines = [
        f"{path} {label}"
        for label, color in ((0, "blue"), (1, "green"), (2, "red"))
        for path in sorted((color_videos / "val" / color).iterdir())
    ]
    lines[0], lines[5] = lines[0] + " 1", lines[5] + " 0"
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    config = override(
        settings(color_videos),
        [
            "training.loss=sigmoid",
            "test.clips=2",
            "test.short_side=26",
            "test.crop=24",
            f"data.test={tmp_path / 'list.txt'}",
            "data.format=multilabel",
            "test.aggregate=max",
        ],
    )
    run = untrained(tmp_path / "run", config, ("0", "1", "2"))
    done = nlnet("test", run, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary["metrics"]) == {"video_map", "clip_map"}
    assert summary["classes_without_videos"] == 0
    rows = json.loads((run / "test" / "classes.json").read_text())
    mean = sum(row["average_precision"] for row in rows) / 3
    assert mean == pytest.approx(summary["metrics"]["video_map"], abs=1e-3)
    assert json.loads((run / "test" / "videos.json").read_text())[0]["label"] == ["0", "1"]
    assert scored(run)["sources"][0]["score"] == "sigmoid"
    assert "video_map by the number of clips" in nlnet("score", run).stdout


def test_an_interrupted_save_leaves_no_summary(tested, tmp_path, monkeypatch):
    """A summary marks a test as complete, so the old one is removed before anything is written."""
    run = tmp_path / "run"
    shutil.copytree(tested[0], run)

    def interrupted(path, saved):
        raise KeyboardInterrupt

    monkeypatch.setattr("nlnet.apps.verbs.test.write_scores", interrupted)
    assert nlnet("test", run).returncode == 130
    assert not (run / "test" / "summary.json").exists()
    assert not [p.name for p in (run / "test").iterdir() if p.name.startswith(".")]


def test_an_interrupted_test_changes_nothing(tested, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tested[0], run)
    before = {p.name: p.read_bytes() for p in (run / "test").iterdir()}

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nlnet.engine.evaluation.evaluate.score_views", interrupted)
    assert nlnet("test", run).returncode == 130
    assert {p.name: p.read_bytes() for p in (run / "test").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "--clips", "5"), "clips: got 5, expected 1 to 4"),
        (("RUN", "--clips", "0"), "--clips"),
        (("RUN", "--aggregate", "sum"), "'--aggregate': got 'sum', expected mean or max"),
        (("RUN", "--weight", "1"), "--weight: fusion needs the scores of two or more runs"),
        (("RUN", "RUN", "--weight", "1"), "weights: got 1 for 2 runs"),
        (("/no/run",), "/no/run: no such file of scores; `nlnet test RUN` writes one"),
        ((), "missing argument 'source"),
    ],
)
def test_wrong_input_is_one_message(arguments, message, tested):
    done = nlnet("score", *(tested[0] if a == "RUN" else a for a in arguments))
    assert done.returncode != 0
    assert message.lower() in done.stderr.lower()


def test_scores_without_labels(tested, color_videos, tmp_path):
    shutil.copytree(color_videos / "val" / "red", tmp_path / "loose")
    assert nlnet("test", tested[0], "--data", tmp_path / "loose", "--out", tmp_path / "out").returncode == 0
    done = nlnet("score", tmp_path / "out")
    assert done.returncode == 1
    assert "its videos have no labels, so no metric can be computed" in done.stderr

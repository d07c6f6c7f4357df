"""Training with any number of labels a video, in the Charades format; missing videos."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from nlnet.apps.verbs.data import run_data_check
from nlnet.engine.config import Config, override
from nlnet.engine.distributed import world
from nlnet.engine.runs.checkpoint import load_checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.train import train
from nlnet.engine.training.videos import read_training_videos
from nlnet.errors import ConfigError, RunError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
ACTIONS = {"blue": "c000 0.00 0.20;c002 0.10 0.30", "green": "", "red": "c001 0.00 0.40;c001 0.10 0.40"}


@pytest.fixture(scope="module")
def charades(color_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour videos in the Charades format: CSV files, class names, ID.mp4. Green ones show no action."""
    root = tmp_path_factory.mktemp("charades")
    (root / "Charades_v1_480").mkdir()
    (root / "Charades_v1_classes.txt").write_text("c000 Being blue\nc001 Being red\nc002 Being cold\n")
    for split, name in (("train", "train"), ("val", "test")):
        lines = [HEADER]
        for path in sorted((color_videos / split).rglob("*.mp4")):
            shutil.copy(path, root / "Charades_v1_480" / f"{name}{path.parent.name}{path.stem}.mp4")
            script = '"Noise, and no person."'
            action = ACTIONS[path.parent.name]
            lines.append(
                f"{name}{path.parent.name}{path.stem},X,Kitchen,6,7,Yes,{script},,Noise.,{action},0.4\n"
            )
        (root / f"Charades_v1_{name}.csv").write_text("".join(lines))
    return root


def settings(charades: Path, *more: str) -> Config:
    return override(
        Config(),
        [
            "model.name=i3d_mini_nl1",
            f"data.train={charades / 'Charades_v1_train.csv'}",
            f"data.val={charades / 'Charades_v1_test.csv'}",
            f"data.root={charades / 'Charades_v1_480'}",
            "data.frames=4",
            "data.stride=2",
            "data.crop=24",
            "data.scales=[26, 30]",
            "data.workers=0",
            "optimizer.lr=0.05",
            "optimizer.reference_batch=6",
            "schedule.iterations=2",
            "schedule.steps=[1]",
            "training.batch=6",
            "training.loss=sigmoid",
            "training.precise_norm=2",
            "training.log_every=1",
            *more,
        ],
    )


def run(config: Config, directory: Path, **options: object):
    with world("cpu") as here:
        return train(config, RunDir(directory), here, **options)  # type: ignore[arg-type]


def test_training_on_charades_halves_equal_the_whole(charades: Path, tmp_path: Path) -> None:
    config = settings(charades)
    outcome = run(config, tmp_path / "whole")
    run(config, tmp_path / "halves", until=1)
    run(config, tmp_path / "halves", resume=True)
    whole, halves = (load_checkpoint(tmp_path / name) for name in ("whole", "halves"))
    assert all(torch.equal(whole.weights[k], halves.weights[k]) for k in whole.weights)
    assert whole.classes == ("c000 Being blue", "c001 Being red", "c002 Being cold")
    first = next(r for r in RunDir(tmp_path / "whole").metrics() if r["kind"] == "train")
    # a fresh classifier puts every sigmoid near one half, so that the mean over clips and classes is near log 2
    assert first["loss"] == pytest.approx(0.693, abs=0.05)
    assert 0 <= first["clip_hit1"] <= 100
    assert "clip_top1" not in first
    assert "video_map" in outcome.metrics
    assert load_checkpoint(tmp_path / "whole", "best").metrics == whole.metrics


def test_the_loss_falls(charades: Path, tmp_path: Path) -> None:
    """Each class is in a third of the videos: a constant answer costs at best the entropy of ⅓, 0.64."""
    more = ("schedule.iterations=16", "schedule.steps=[14]", "training.precise_norm=0", "data.val=null")
    run(settings(charades, "optimizer.lr=0.1", *more), tmp_path)
    losses = [r["loss"] for r in RunDir(tmp_path).metrics() if r["kind"] == "train"]
    assert min(losses[-3:]) < 0.4


def test_labels_and_loss_must_fit(charades: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.loss=softmax .*/Charades_v1_train.csv \(Charades CSV\)"):
        run(settings(charades, "training.loss=softmax"), tmp_path)
    single = tmp_path / "val.txt"
    single.write_text("testblue0.mp4 0\ntestred0.mp4 1\n")
    with pytest.raises(
        ConfigError, match=r"training.loss=sigmoid .*/val.txt \(list of videos\) gives one class"
    ):
        run(settings(charades, f"data.val={single}"), tmp_path)
    with pytest.raises(
        ConfigError,
        match="training.label_smoothing: got 0.1, but training.loss=sigmoid has no label smoothing",
    ):
        settings(charades, "training.label_smoothing=0.1")
    assert not (tmp_path / "config.json").exists()


def test_missing_videos_are_an_error_or_counted_and_listed(charades: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(charades, tmp_path / "copy"))
    gone = copy / "Charades_v1_480/trainred3.mp4"
    gone.unlink()
    with pytest.raises(
        ValueError, match=r"1 of 12 videos do not exist: .*trainred3.mp4 .*data.missing=leave_out"
    ):
        run(settings(copy), tmp_path / "run")
    config = settings(copy, "data.missing=leave_out", "schedule.iterations=2", "data.val=null")
    facts: dict[str, str] = {}

    class Watcher:
        def begin(self, start: int, total: int, given: dict[str, str]) -> None:
            facts.update(given)

        def step(self, iteration: int) -> None: ...

        def record(self, record: dict[str, object]) -> None: ...

    run(config, tmp_path / "run", until=1, callback=Watcher())
    assert facts["videos"].startswith("11 in 3 classes (Charades CSV)")
    assert facts["left out"].startswith(
        f"videos missing from the disk: 1 of {copy}/Charades_v1_train.csv; listed in "
    )
    assert json.loads((tmp_path / "run/missing.json").read_text()) == {
        f"{copy}/Charades_v1_train.csv": [str(gone)]
    }
    # had it come back, or another gone, every epoch would be another order of videos
    shutil.copy(charades / "Charades_v1_480/trainred3.mp4", gone)
    with pytest.raises(
        RunError, match=r"the missing videos have changed since the run began \(then 1, now 0\)"
    ):
        run(config, tmp_path / "run", resume=True)
    gone.unlink()
    assert run(config, tmp_path / "run", resume=True).iteration == 2


def test_class_names_from_a_file(color_videos: Path, tmp_path: Path) -> None:
    names = tmp_path / "classids.json"
    names.write_text('{"red": 0, "\\"blue\\"": 2, "green": 1}')
    keys = (
        f"data.train={color_videos / 'train'}",
        "data.val=null",
        "training.loss=softmax",
        f"data.classes={names}",
    )
    run(settings(color_videos, *keys, "schedule.iterations=1", "training.precise_norm=0"), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").classes == ("red", "green", "blue")


def test_data_check_reports_the_layout_and_missing_videos(
    charades: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, root = charades / "Charades_v1_test.csv", charades / "Charades_v1_480"
    assert (
        run_data_check(
            source, root=root, format="auto", classes=None, first_frame=False, workers=0, as_json=True
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["layout"], found["videos"], found["readable"], found["missing"]) == (
        "Charades CSV",
        6,
        6,
        [],
    )
    assert (found["classes"], found["labels"]) == (3, "0 to 2 a video, 1.0 on average")
    text = source.read_text() + "GHOST,X,Kitchen,6,7,Yes,,,,c000 0 1,0.4\n"
    source.with_name("more.csv").write_text(text)
    assert (
        run_data_check(
            source.with_name("more.csv"),
            root=root,
            format="auto",
            classes=None,
            first_frame=False,
            workers=0,
            as_json=True,
        )
        == 1
    )
    assert json.loads(capsys.readouterr().out)["missing"] == [str(root / "GHOST.mp4")]
    assert (
        run_data_check(
            source.with_name("more.csv"),
            root=root,
            format="auto",
            classes=None,
            first_frame=False,
            workers=0,
            as_json=False,
        )
        == 1
    )
    shown = capsys.readouterr().out.split()
    assert "1 video left out, named in the list but not on the disk" in " ".join(shown)
    with pytest.raises(ConfigError, match="data check: data.format: Input should be 'auto', .*'folders'"):
        run_data_check(
            source, root=root, format="avi", classes=None, first_frame=False, workers=0, as_json=True
        )


def test_the_validation_list_has_the_class_numbers_of_the_training_list(
    color_videos: Path, tmp_path: Path
) -> None:
    red = tmp_path / "val.txt"
    red.write_text(f"{color_videos / 'val/red/0.mp4'} red\n")
    config = override(Config(), [f"data.train={color_videos / 'train'}", f"data.val={red}"])
    _, validation = read_training_videos(config)
    assert validation is not None
    assert validation.items[0].label == 2  # blue, green, red

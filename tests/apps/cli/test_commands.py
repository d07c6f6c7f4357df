"""The command line as a user sees it: exit codes, tables, JSON, one clear line for each kind of wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import nlnet
from support.training import settings
from support.videos import write_video

from nlnet.apps.recipes.catalogue import RECIPES, recipe_or_file
from nlnet.engine.config import Config
from nlnet.errors import ConfigError


@pytest.fixture(scope="module")
def trained(color_videos, tmp_path_factory) -> Path:
    """A short run, made by the command."""
    root = tmp_path_factory.mktemp("cli")
    tests = ("test.clips=2", "test.short_side=26", "test.crop=24", f"data.test={color_videos / 'val'}")
    (root / "colors.yaml").write_text(
        settings(color_videos, "schedule.iterations=20", "schedule.steps=[16]", *tests).model_dump_json()
    )
    done = nlnet("train", root / "colors.yaml", "--out", root / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iteration"] == 20
    return root / "run"


def test_a_test_prints_a_table_and_saves_every_score(trained):
    done = nlnet("test", trained)
    assert done.returncode == 0, done.stderr
    assert "video_top1" in done.stdout
    assert "clip_top1" in done.stdout
    assert "6 of 6 videos scored, 6 views each" in " ".join(done.stdout.split())  # the path may wrap the line
    summary = json.loads((trained / "test" / "summary.json").read_text())
    assert summary["protocol"] == "released"
    assert len(json.loads((trained / "test" / "videos.json").read_text())) == 6


def test_predict_agrees_with_test_to_1e_6(trained, color_videos):
    assert nlnet("test", trained).returncode == 0
    saved = load_file(trained / "test" / "scores.safetensors")
    rows = json.loads((trained / "test" / "videos.json").read_text())
    done = nlnet("predict", trained, *(row["path"] for row in rows), "--json")
    assert done.returncode == 0, done.stderr
    for row, answer in zip(rows, json.loads(done.stdout)["videos"], strict=True):
        mean = saved[str(row["index"])].mean(dim=0).tolist()
        named = dict(zip(("blue", "green", "red"), mean, strict=True))
        assert answer["path"] == row["path"]
        assert answer["classes"] == pytest.approx(named, abs=1e-6)
        assert next(iter(answer["classes"])) == row["prediction"]


def test_a_file_that_is_no_video_is_named_and_the_others_are_classified(trained, color_videos, tmp_path):
    bad = tmp_path / "notes.mp4"
    bad.write_text("no video")
    done = nlnet("predict", trained, bad, color_videos / "val" / "red" / "0.mp4", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert len(answer["videos"]) == 1
    assert str(bad) in answer["failures"][0]


def test_dry_run_prints_the_plan_and_writes_nothing(color_videos, tmp_path):
    done = nlnet(
        "train",
        "i3d_r50_nl5_8x8",
        f"data.train={color_videos / 'train'}",
        "--out",
        tmp_path / "run",
        "--dry-run",
        "--json",
    )
    plan = json.loads(done.stdout)
    assert plan["config"]["optimizer"]["lr"] == 0.01
    assert "5 non-local blocks" in plan["facts"]["model"]
    assert not (tmp_path / "run").exists()


def test_data_check_lists_what_cannot_be_read(color_videos, corrupted):
    good = nlnet("data", "check", color_videos / "train", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["frames"] == [10, 10, 10]
    copy, bad = corrupted(color_videos, "train/green")
    done = nlnet("data", "check", copy / "train", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["videos"], report["readable"]) == (12, 11)
    assert str(bad) in report["failures"][0]


def test_data_check_of_first_frames_and_on_one_process(tmp_path):
    (tmp_path / "a").mkdir()
    data = bytearray(write_video(tmp_path / "a" / "0.mp4", 30, size=(96, 128)).read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 400] = b"\xa5" * 400
    (tmp_path / "a" / "0.mp4").write_bytes(data)
    write_video(tmp_path / "a" / "1.mp4", 30)
    whole = nlnet("data", "check", tmp_path, "--workers", "1", "--json")
    assert (whole.returncode, json.loads(whole.stdout)["readable"]) == (1, 1)
    quick = nlnet("data", "check", tmp_path, "--workers", "1", "--first-frame", "--json")
    assert (quick.returncode, json.loads(quick.stdout)["readable"]) == (0, 2)
    assert json.loads(quick.stdout)["decoded"] == "first frames"


def test_missing_videos_count_as_wrong_in_the_second_column(trained, color_videos, tmp_path):
    rows = [f"{color_videos / 'val' / color / '0.mp4'} {color}" for color in ("blue", "green", "red")]
    (tmp_path / "val.txt").write_text("\n".join([*rows, "gone.mp4 red"]))
    test = (
        "test",
        trained,
        "--data",
        tmp_path / "val.txt",
        "data.missing=leave_out",
        "--out",
        tmp_path / "out",
    )
    summary = json.loads(nlnet(*test, "--json").stdout)
    assert summary["missing"] == [str(tmp_path / "gone.mp4")]
    share = summary["metrics_unread_as_wrong"]["video_top1"] / summary["metrics"]["video_top1"]
    assert share == pytest.approx(3 / 4)
    shown = nlnet(*test).stdout
    assert "unread as wrong" in shown
    assert "3 of 4 videos scored" in " ".join(shown.split())
    scored = json.loads(nlnet("score", tmp_path / "out", "--json").stdout)["sources"][0]
    assert scored["missing"] == 1
    assert scored["metrics_unread_as_wrong"]["video_top1"] == pytest.approx(
        summary["metrics_unread_as_wrong"]["video_top1"]
    )


def test_doctor_passes_on_this_machine():
    done = nlnet("doctor", "--json")
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    assert findings["operation"]["ok"]
    assert findings["video"]["ok"]


def test_models_lists_names_and_costs():
    done = nlnet("models", "i3d_r50_nl5", "--variant", "8x8", "--json")
    (row,) = json.loads(done.stdout)["models"]
    assert round(row["parameters"] / 1e6, 3) == 35.402
    assert round(row["macs"]["224"] / 1e9, 2) == 36.24


def test_the_installed_command_starts():
    command = Path(sys.executable).with_name("nlnet")
    done = subprocess.run([command, "train", "nothing.yaml"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("nlnet: nothing.yaml: cannot read it")


BAD = [
    (("train", "nothing.yaml"), r"nothing.yaml: cannot read it"),
    (("train", "i3d_r50_nl5_8"), "no recipe or YAML file 'i3d_r50_nl5_8'; did you mean 'i3d_r50_nl5_8x8'"),
    (("train", "i3d_r50_8x8"), "data.train: not set"),
    (("train", "i3d_r50_8x8", "data.train=/no/such"), "/no/such does not exist"),
    (("train", "i3d_r50_8x8", "optimizer.rl=1"), "unknown key 'optimizer.rl'; did you mean 'optimizer.lr'"),
    (("train", "i3d_r50_8x8", "model.name=i3d_r50_nl"), "data.train: not set"),
    (("train", "--resume", "/no/run"), "/no/run: not a run directory"),
    (("train",), "give a recipe, or --resume DIRECTORY"),
    (("train", "--resume", "run", "optimizer.lr=1"), "a resumed run keeps its recipe and its settings"),
    (
        ("models", "c2d_mini", "--recipes"),
        "'--recipes': lists all recipes, whatever the network; remove the names of networks",
    ),
    (("test", "/no/run"), "/no/run"),
    (("predict", "/no/run", "x.mp4"), "/no/run"),
    (("data", "check", "/no/such"), "/no/such does not exist"),
    (("tset", "x"), "No such command 'tset'. Did you mean 'test'?"),
    (("convert", "gone.pth", "x.safetensors"), "gone.pth: no such file"),
    (("train", "nosuch"), "no recipe or YAML file 'nosuch'; `nlnet models --recipes` lists the recipes"),
    (("train", "demo_local", "--until", "0"), "--until"),
    (("predict", "RUN", "x.mp4", "--top", "0"), "--top"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_wrong_input_prints_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = nlnet(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stderr.startswith("nlnet: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_foreign_pickle_is_refused(color_videos, tmp_path):
    class Foreign:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"w": Foreign()}, tmp_path / "foreign.pth")
    config = tmp_path / "c.yaml"
    config.write_text(settings(color_videos, f"init.weights={tmp_path / 'foreign.pth'}").model_dump_json())
    done = nlnet("train", config, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "foreign.pth: not weights that can be loaded safely" in done.stderr
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network_are_named(color_videos, tmp_path, trained):
    config = tmp_path / "c.yaml"
    more = ("model.name=c2d_r50", f"init.weights={trained}")
    config.write_text(settings(color_videos, *more).model_dump_json())
    done = nlnet("train", config, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "the weights do not fit the model" in done.stderr
    assert "of another shape (weights → model): bn1.bias (16,) → (64,)" in done.stderr


def test_a_test_cannot_change_the_model(trained):
    done = nlnet("test", trained, "model.name=c2d_r50")
    assert "a test can change test.*, data.* and training.precision only" in done.stderr


def test_every_recipe_is_a_configuration():
    for name in RECIPES:
        assert isinstance(recipe_or_file(name), Config)
    with pytest.raises(ConfigError, match="no recipe or YAML file 'nothing'"):
        recipe_or_file("nothing")

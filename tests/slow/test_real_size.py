"""The paper's networks at their own size: `make test-slow`, half an hour of one core for all recipes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.color_videos import write_video
from support.command_line import nlnet

from nlnet.apps.recipes.catalogue import RECIPES
from nlnet.apps.recipes.kinetics import IMAGENET, KINETICS
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import DiagnosticSpec
from nlnet.engine.runs.directory import RunDir
from nlnet.zoo import create_model

GIB = 2**30


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of 80-frame videos: a smooth texture that drifts to the right, or downwards."""
    root = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for name, step in (("right", (0, 3)), ("down", (3, 0))):
            for index in range(count):
                coarse = rng.integers(40, 215, (9, 12, 3)).astype(float)
                coarse[..., 0 if name == "right" else 2] *= 0.6
                texture = np.kron(coarse, np.ones((32, 32, 1)))[:256, :340]
                frames = [np.roll(texture, (step[0] * t, step[1] * t), (0, 1)) for t in range(80)]
                noisy = np.stack(frames) + rng.normal(0, 6, (80, 256, 340, 1))
                write_video(root / split / name / f"{index}.mp4", noisy.clip(0, 255).astype(np.uint8))
    return root


@pytest.mark.slow
def test_i3d_r50_nl5_trains_tests_and_predicts(videos, tmp_path):
    run = tmp_path / "run"
    done = nlnet(
        "train", "i3d_r50_nl5_8x8", f"data.train={videos / 'train'}", f"data.test={videos / 'test'}", "--out", run,
        "schedule.iterations=20", "training.batch=2", "training.log_every=5", "training.precise_norm=4",
        "optimizer.lr=0.001", "optimizer.reference_batch=2", "model.dropout=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = [r["loss"] for r in RunDir(run).metrics() if r["kind"] == "train"]
    print("losses of every five iterations:", [round(loss, 3) for loss in losses])
    assert losses[-1] < losses[0]

    assert nlnet("test", run).returncode == 0
    summary = json.loads((run / "test" / "summary.json").read_text())
    assert (summary["views_per_video"], summary["scored"]) == (30, 2)
    print(f"two videos, 30 views of 256×256 each: {summary['seconds']} s, {summary['metrics']}")

    rows = json.loads((run / "test" / "videos.json").read_text())
    scores = load_file(run / "test" / "scores.safetensors")
    done = nlnet("predict", run, rows[0]["path"], "--json")
    classes = json.loads(done.stdout)["videos"][0]["classes"]
    expected = dict(zip(("down", "right"), scores["0"].mean(dim=0).tolist(), strict=True))
    assert classes == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def diagnostic(tmp_path_factory) -> Path:
    """Ten-way diagnostic videos in class folders, and a list that gives some of them several classes."""
    root = tmp_path_factory.mktemp("diagnostic") / "videos"
    write_dataset(DiagnosticSpec(), root, {"train": 12, "val": 4, "test": 1, "stills": 0})
    files = sorted((root / "train").rglob("*.mp4"))
    lines = [f"{path} {i % 5}{' 7 9' if i % 2 else ''}" for i, path in enumerate(files)]
    (root / "several.txt").write_text("\n".join(lines))
    return root


def state_before(name: str) -> dict[str, torch.Tensor]:
    """A network of the recipe of that name; one with frozen norms begins where it should, or its maps explode."""
    recipe = KINETICS[name]
    earlier = state_before(recipe.start) if recipe.long else None
    options = RECIPES[name]().model.model_dump()
    return create_model(num_classes=400, **options, weights=earlier).state_dict()


def start_weights(name: str, directory: Path) -> Path:
    """What a recipe starts from, with random values: a 2-D ResNet of 1000 classes, or the recipe before it."""
    recipe = KINETICS[name]
    if recipe.start != IMAGENET:
        state = state_before(recipe.start)
    else:
        depth = "r101" if "r101" in recipe.model else "r50"
        still = create_model(f"c2d_{depth}", num_classes=1000).state_dict()
        state = {key: value.squeeze(2) if value.ndim == 5 else value for key, value in still.items()}
    torch.save(state, directory / "start.pt")
    return directory / "start.pt"


WATCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak_memory(command: list[str]) -> int:
    """Bytes that the command held at most; it must succeed.

    A small process of its own starts it: until it becomes another program, a child counts its parent's memory as its own.
    """
    done = subprocess.run([sys.executable, "-c", WATCHER, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout.rpartition("peak ")[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINETICS)
def test_every_recipe_runs_three_iterations_at_its_own_size(name, diagnostic, tmp_path):
    """One clip a step through the real command: start weights, schedule, statistics, checkpoint.

    The 128-frame networks recompute their activations. 20 GiB must do.
    """
    recipe = KINETICS[name]
    data = diagnostic / ("several.txt" if recipe.charades else "train")
    run = tmp_path / "run"
    long = ["training.checkpointing=true"] if "128x1" in name else ["training.precise_norm=1"]
    peak = peak_memory(
        [
            *(sys.executable, "-m", "nlnet", "train", name, "--out", str(run), "--device", "cpu"),
            *(f"data.train={data}", f"init.weights={start_weights(name, tmp_path)}", "data.workers=0"),
            *("training.batch=1", "schedule.iterations=3", "training.log_every=1", *long),
        ]
    )
    (tmp_path / "start.pt").unlink()
    records = [r for r in RunDir(run).metrics() if r["kind"] == "train"]
    print(f"{name}: {peak / GIB:.1f} GiB at most, losses {[round(r['loss'], 3) for r in records]}")
    assert [r["iteration"] for r in records] == [1, 2, 3]
    assert all(np.isfinite(r["loss"]) for r in records)
    assert all(r["lr"] == pytest.approx(0.01 / 64) for r in records)  # every recipe's rate for one clip
    assert peak < 20 * GIB
    for path in (run / "checkpoints").iterdir():  # up to a gigabyte
        path.unlink()

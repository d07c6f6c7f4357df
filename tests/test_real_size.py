"""The paper's network at its own size on 340×256 videos: `make test-slow`, several minutes."""

import json

import numpy as np
import pytest
from conftest import write_video
from safetensors.torch import load_file
from test_cli import nlnet

from nlnet.engine.rundir import RunDir


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

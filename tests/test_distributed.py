"""Two real processes under torchrun are one process on the same global batch, and test each video once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train import run, settings

from nlnet.apps.commands import load_network
from nlnet.data import read_videos
from nlnet.engine.config import override
from nlnet.engine.distributed import choose_device, world
from nlnet.engine.evaluate import evaluate
from nlnet.engine.rundir import load_checkpoint


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "nlnet", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def runs(color_videos, tmp_path_factory) -> dict[int, Path]:
    """The same run on one and on two processes: synchronised norms, no dropout."""
    root = tmp_path_factory.mktemp("runs")
    config = settings(
        color_videos,
        "model.norm=sync",
        "model.nonlocal_norm=sync",
        "model.dropout=0",
        "schedule.iterations=4",
        "training.precise_norm=0",
    )
    (root / "run.yaml").write_text(config.model_dump_json())
    run(config, root / "1")
    # two processes recompute their activations, which changes nothing (test_checkpointing.py)
    saving = "training.checkpointing=true"
    done = torchrun(2, "train", str(root / "run.yaml"), saving, "--out", str(root / "2"), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return {processes: root / str(processes) for processes in (1, 2)}


def test_two_processes_equal_one_on_the_same_global_batch(runs):
    one, two = (load_checkpoint(runs[n]).weights for n in (1, 2))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(
            one[key], two[key], rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}"
        )
    moved = [k for k in one if k.endswith("conv2.weight")]
    assert moved


def test_losses_agree(runs):
    losses = [
        [
            r["loss"]
            for r in map(json.loads, (runs[n] / "metrics.jsonl").read_text().splitlines())
            if r["kind"] == "train"
        ]
        for n in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_first_process_alone_records_vital_signs(runs):
    for directory in runs.values():
        records = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
        assert [r["iteration"] for r in records if r["kind"] == "vitals"] == [1, 4]


def test_two_processes_test_each_video_exactly_once(runs, color_videos):
    overrides = ["test.clips=2", "test.short_side=26", "test.crop=24", "--device", "cpu", "--json"]
    command = ["test", str(runs[2]), "--data", str(color_videos / "train"), *overrides]
    done = torchrun(2, *command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["videos"], summary["scored"], summary["views_per_video"]) == (12, 12, 6)
    rows = json.loads((runs[2] / "test" / "videos.json").read_text())
    assert [r["index"] for r in rows] == list(range(12))
    scores = load_file(runs[2] / "test" / "scores.safetensors")
    model, checkpoint = load_network(runs[2], "last", torch.device("cpu"))
    config = override(checkpoint.config, overrides[:3])
    with world("cpu") as here:
        alone = evaluate(model, read_videos(color_videos / "train"), config, world=here)
    for video in alone.videos:
        torch.testing.assert_close(video.views, scores[str(video.index)], rtol=1e-5, atol=1e-6)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device: got 'gpu', expected auto, cpu or cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda was asked for, but torch sees no CUDA device"):
            choose_device("cuda")


def test_one_process_needs_no_group():
    with world("cpu") as here:
        assert (here.rank, here.size, here.first) == (0, 1, True)
        assert here.gather("x") == ["x"]
        assert here.any(True)
        assert torch.equal(here.sum(torch.ones(2)), torch.ones(2))
        here.barrier()

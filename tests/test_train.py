"""Training on real encoded files: resuming is exact, stopping is clean, and nothing is skipped in silence."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nlnet.engine.config import Config, ConfigError, override
from nlnet.engine.distributed import world
from nlnet.engine.meter import TrainingError
from nlnet.engine.rundir import RunDir, RunError, load_checkpoint
from nlnet.engine.train import train


def settings(videos: Path, *more: str) -> Config:
    """A small complete run on the colour videos (conftest.py)."""
    return override(
        Config(),
        [
            "model.name=i3d_mini_nl1",
            f"data.train={videos / 'train'}",
            f"data.val={videos / 'val'}",
            "data.frames=4",
            "data.stride=2",
            "data.crop=24",
            "data.scales=[26, 30]",
            "data.workers=0",
            "optimizer.lr=0.02",
            "optimizer.reference_batch=6",
            "schedule.iterations=8",
            "schedule.steps=[6]",
            "training.batch=6",
            "training.validate_every=100",
            "training.checkpoint_every=100",
            "training.log_every=4",
            "training.precise_norm=2",
            *more,
        ],
    )


def run(config: Config, directory: Path, **options: object):
    with world("cpu") as here:
        return train(config, RunDir(directory), here, **options)  # type: ignore[arg-type]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory).weights


def test_loss_falls_and_everything_is_written(color_videos, tmp_path):
    outcome = run(settings(color_videos, "schedule.iterations=24", "schedule.steps=[20]"), tmp_path)
    records = RunDir(tmp_path).metrics()
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert outcome.iteration == 24
    assert outcome.metrics["clip_top1"] > 60  # three colours: chance is 33
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.classes == ("blue", "green", "red")
    assert checkpoint.iteration == 24
    assert {r["kind"] for r in records} == {"train", "validation", "vitals"}


@pytest.mark.parametrize(
    "more", [(), ("training.accumulate=2", "optimizer.kind=adamw", "optimizer.clip_norm=1")]
)
def test_two_halves_equal_the_whole_bit_for_bit(color_videos, tmp_path, more):
    config = settings(color_videos, *more)
    run(config, tmp_path / "whole")
    half = run(config, tmp_path / "halves", until=4)
    assert (half.iteration, half.interrupted) == (4, False)
    run(config, tmp_path / "halves", resume=True)
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[k], halves[k]) for k in whole)
    logged = [
        [(r["iteration"], r["loss"]) for r in RunDir(tmp_path / d).metrics() if r["kind"] == "train"]
        for d in ("whole", "halves")
    ]
    assert logged[0] == logged[1]


def test_decoding_in_workers_changes_nothing(color_videos, tmp_path):
    for workers in (0, 2):
        run(
            settings(color_videos, f"data.workers={workers}", "schedule.iterations=3"),
            tmp_path / str(workers),
        )
    a, b = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_accumulation_without_norm_coupling_equals_one_pass(color_videos, tmp_path):
    """With group norm a batch's samples do not see each other, so that two halves make the same step."""
    for steps in (1, 2):
        more = (
            f"training.accumulate={steps}",
            "model.norm=group",
            "model.nonlocal_norm=group",
            "model.dropout=0",
        )
        run(
            settings(color_videos, "schedule.iterations=3", "training.precise_norm=0", *more),
            tmp_path / str(steps),
        )
    a, b = weights(tmp_path / "1"), weights(tmp_path / "2")
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)


def test_precise_statistics_do_not_disturb_training(color_videos, tmp_path):
    for count in (0, 3):
        run(
            settings(color_videos, f"training.precise_norm={count}", "training.checkpoint_every=2"),
            tmp_path / str(count),
        )
    a, b = weights(tmp_path / "0"), weights(tmp_path / "3")
    same = {k for k in a if torch.equal(a[k], b[k])}
    assert {k for k in a if "running" in k}.isdisjoint(same)
    assert {k for k in a if "running" not in k} <= same


def test_transferred_weights_learn_slower_or_not_at_all(color_videos, tmp_path):
    run(settings(color_videos, "model.name=c2d_mini"), tmp_path / "first")
    source = weights(tmp_path / "first")
    frozen = (f"init.weights={tmp_path / 'first'}", "optimizer.transferred_lr=0", "schedule.iterations=2")
    run(settings(color_videos, "model.name=i3d_mini_nl1", *frozen), tmp_path / "second")
    after = weights(tmp_path / "second")
    assert torch.equal(after["layer1.0.conv2.weight"], source["layer1.0.conv2.weight"])
    torch.testing.assert_close(after["conv1.weight"].sum(dim=2, keepdim=True), source["conv1.weight"])
    assert after["layer2.1.nonlocal_block.norm.weight"].abs().max() > 0


def test_frozen_norms_keep_what_was_transferred(color_videos, tmp_path):
    run(settings(color_videos, "model.name=c2d_mini"), tmp_path / "first")
    more = (f"init.weights={tmp_path / 'first'}", "training.frozen_norm=true", "schedule.iterations=2")
    run(settings(color_videos, "model.name=c2d_mini_nl1", *more), tmp_path / "second")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(before[k], after[k]) for k in before if "bn" in k and "tracked" not in k)
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert after["layer2.1.nonlocal_block.norm.running_var"].ne(1).any()


def test_nothing_to_freeze(color_videos, tmp_path):
    with pytest.raises(ValueError, match=r"training\.frozen_norm: no batch norm came from init\.weights"):
        run(settings(color_videos, "training.frozen_norm=true"), tmp_path)


@pytest.mark.usefixtures("without_onednn")
def test_bfloat16_trains(color_videos, tmp_path):
    outcome = run(settings(color_videos, "training.precision=bf16", "schedule.iterations=2"), tmp_path)
    assert outcome.iteration == 2
    assert all(w.dtype != torch.bfloat16 for w in weights(tmp_path).values())


def test_a_corrupt_video_is_reported_by_path_and_counted(color_videos, tmp_path, corrupted):
    videos, bad = corrupted(color_videos, "train/green")
    run(settings(videos, "schedule.iterations=4"), tmp_path / "run")
    skipped = [r for r in RunDir(tmp_path / "run").metrics() if r["kind"] == "skipped"]
    assert skipped
    assert all(str(bad) in r["reason"] for r in skipped)


def test_only_corrupt_videos(tmp_path):
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.mp4").write_bytes(b"no video")
    config = settings(tmp_path, "data.val=null")
    with pytest.raises(TrainingError, match=r"no video of a whole batch could be read: .*x\.mp4"):
        run(config, tmp_path / "run")


def test_a_loss_that_is_no_number(color_videos, tmp_path):
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) before iteration \d+; try a lower optimizer\.lr"
    ):
        run(settings(color_videos, "optimizer.lr=1e20"), tmp_path)
    assert not (tmp_path / "checkpoints" / "last.safetensors").exists()


def test_what_a_run_refuses(color_videos, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train: not set"):
        run(settings(color_videos, "data.train=null"), tmp_path)
    with pytest.raises(ValueError, match=r"training\.batch: 6 clips do not divide into 4"):
        run(settings(color_videos, "training.accumulate=4"), tmp_path / "a")
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        run(settings(color_videos), tmp_path / "b", resume=True)
    run(settings(color_videos, "schedule.iterations=1"), tmp_path / "c")
    with pytest.raises(RunError, match="a run is already here"):
        run(settings(color_videos, "schedule.iterations=1"), tmp_path / "c")
    with pytest.raises(RunError, match="made with another configuration"):
        run(settings(color_videos, "schedule.iterations=2"), tmp_path / "c", resume=True)


def start_command(videos: Path, directory: Path) -> subprocess.Popen[str]:
    """A long run of the real command in its own process."""
    config = directory.with_suffix(".yaml")
    config.write_text(
        settings(videos, "schedule.iterations=100000", "training.checkpoint_every=3").model_dump_json()
    )
    command = [
        sys.executable,
        "-m",
        "nlnet",
        "train",
        str(config),
        "--out",
        str(directory),
        "--device",
        "cpu",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_saves_and_exits_with_130(color_videos, tmp_path):
    process = start_command(color_videos, tmp_path / "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: nlnet train --resume" in output
    assert "Traceback" not in output
    done = RunDir(tmp_path / "run").load_state()["iteration"]
    assert load_checkpoint(tmp_path / "run").iteration == done >= 1


def test_kill_9_leaves_a_run_that_resumes_to_the_same_weights(color_videos, tmp_path):
    process = start_command(color_videos, tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "resume.pt", process)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    config, _ = RunDir(tmp_path / "run").read_config()
    done = RunDir(tmp_path / "run").load_state()["iteration"]
    run(config, tmp_path / "run", resume=True, until=done + 4)
    run(config, tmp_path / "whole", until=done + 4)
    a = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    b = load_file(tmp_path / "whole" / "checkpoints" / "last.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)
    iterations = [
        r["iteration"] for r in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    ]
    assert iterations == sorted(set(iterations))
    left = os.listdir(tmp_path / "run" / "checkpoints")
    assert {"last.safetensors", "resume.pt"} <= set(left)

"""Two processes under torchrun train like one process on the same global batch, and test each video once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.training import run, settings

from nlnet.data import read_videos
from nlnet.engine.config import override
from nlnet.engine.distributed import choose_device, world
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.network import load_network
from nlnet.engine.runs.checkpoint import load_checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import ConfigError


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "nlnet", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


STARTED: list[subprocess.Popen[str]] = []


def start_torchrun(processes: int, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "nlnet", *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Terminate the runs of a test at its end: torchrun then ends its processes."""
    yield
    for process in STARTED:
        process.terminate()
        process.communicate(timeout=60)
    STARTED.clear()


def wait_until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trainers(launcher: subprocess.Popen[str]) -> list[int]:
    """The training processes that torchrun has started (Linux)."""
    tasks = Path(f"/proc/{launcher.pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in children if b"nlnet" in Path(f"/proc/{child}/cmdline").read_bytes()]


def path_of_tests() -> dict[str, str]:
    """An environment in which a script anywhere imports the tested package."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}


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


def test_the_first_process_alone_records_block_statistics(runs):
    for directory in runs.values():
        records = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
        assert [r["iteration"] for r in records if r["kind"] == "block_stats"] == [1, 4]


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
    with pytest.raises(ConfigError, match="device: got 'gpu', expected auto, cpu or cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device: cuda was asked for, but torch sees no CUDA device"):
            choose_device("cuda")


def test_one_process_needs_no_group():
    with world("cpu") as here:
        assert (here.rank, here.size, here.first) == (0, 1, True)
        assert here.gather("x") == ["x"]
        assert here.any(True)
        assert torch.equal(here.sum(torch.ones(2)), torch.ones(2))
        with here.together():
            pass
        with pytest.raises(KeyError), here.together():
            raise KeyError


def test_processes_wait_for_each_other_longer_than_a_test_takes(monkeypatch):
    """torch's own timeouts are 10 minutes (nccl) and 30 (gloo): hours of scores would be lost."""
    groups = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    for name, answer in {"get_rank": 0, "destroy_process_group": None}.items():
        monkeypatch.setattr(f"torch.distributed.{name}", lambda answer=answer: answer)
    monkeypatch.setattr(
        "torch.distributed.init_process_group", lambda kind, timeout: groups.update({kind: timeout})
    )
    monkeypatch.setattr(
        "torch.distributed.new_group", lambda backend, timeout: groups.update({backend: timeout})
    )
    with world("cuda"):
        assert groups["gloo"] >= timedelta(hours=12)
        assert groups["nccl"] >= timedelta(minutes=30)
    groups.clear()
    with world("cpu"):
        assert groups["gloo"] >= timedelta(hours=12)


FAILING = """
import sys
from pathlib import Path
from nlnet.engine.distributed import world
from nlnet.errors import ProcessError
said = []
with world("cpu") as here:
    with here.together():
        pass
    try:
        with here.together():
            if here.rank == 1:
                raise OSError("the disk is full")
    except (ProcessError, OSError) as error:
        said.append(f"{type(error).__name__}: {error}")
    said += [here.count(here.rank, 5), here.gather(here.rank), here.any(here.rank == 1)]
    Path(sys.argv[1], f"{here.rank}.txt").write_text(repr(said))
"""


def test_an_error_on_one_process_is_raised_on_all(tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "failing.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=path_of_tests())
    assert done.returncode == 0, done.stderr
    said = [literal_eval((tmp_path / f"{rank}.txt").read_text()) for rank in (0, 1)]
    words = ["ProcessError: process 1 failed: the disk is full", "OSError: the disk is full"]
    assert said == [[own, (1, 10), [0, 1], True] for own in words]


@pytest.fixture(scope="module")
def damaged(color_videos, tmp_path_factory) -> Path:
    """A copy of the videos in which one training video is empty."""
    copy = Path(shutil.copytree(color_videos, tmp_path_factory.mktemp("damaged") / "videos"))
    (copy / "train" / "green" / "1.mp4").write_bytes(b"")
    return copy


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_stopped_by_one_process_and_resumed_is_the_whole_bit_for_bit(damaged, tmp_path):
    """One clip a process: with an unreadable video a process has no clip, and still takes part in every exchange.

    The network's norms are each process's own, those of the block span both, and all are measured anew.
    """
    config = settings(
        damaged,
        "training.batch=2",
        "schedule.iterations=100000",
        "model.nonlocal_norm=sync",
        "training.validate_every=12",
        "data.workers=1",
    )
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    place = ("--out", str(tmp_path / "stopped"), "--device", "cpu")
    process = start_torchrun(2, "train", str(tmp_path / "run.yaml"), *place)
    log = tmp_path / "stopped" / "metrics.jsonl"
    wait_until(lambda: log.exists() and '"validation"' in log.read_text(), process)
    _, second = sorted(trainers(process))
    os.kill(second, signal.SIGTERM)  # the first process is told by this one
    output, _ = process.communicate(timeout=120)
    assert "stopped after iteration" in output, output
    assert "Traceback" not in output.partition("stopped after iteration")[0], (
        output
    )  # torchrun's own comes after
    run_dir = RunDir(tmp_path / "stopped")
    assert not run_dir.busy
    done = run_dir.load_state()["iteration"]
    assert load_checkpoint(run_dir.path).iteration == done
    more = ("--until", str(done + 3), "--device", "cpu")
    resumed = torchrun(2, "train", "--resume", str(tmp_path / "stopped"), *more)
    assert resumed.returncode == 0, resumed.stderr
    whole = torchrun(2, "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "whole"), *more)
    assert whole.returncode == 0, whole.stderr
    one, two = (load_checkpoint(tmp_path / name).weights for name in ("stopped", "whole"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert all(w.isfinite().all() for w in one.values())
    skipped = [r for r in RunDir(tmp_path / "whole").metrics() if r["kind"] == "skipped"]
    assert skipped
    assert all("green/1.mp4" in r["reason"] for r in skipped)
    assert [e["iteration"] for e in run_dir.sessions()] == [0, done]


def test_a_process_without_a_clip_is_a_micro_batch_without_one(damaged, tmp_path):
    """Without norms over several clips, two processes of one clip equal one process of two micro-batches."""
    plain = ("model.norm=group", "model.nonlocal_norm=group", "model.dropout=0", "training.precise_norm=0")
    config = settings(damaged, "training.batch=2", "schedule.iterations=12", "optimizer.lr=0.002", *plain)
    (tmp_path / "run.yaml").write_text(config.model_dump_json())
    run(override(config, ["training.accumulate=2"]), tmp_path / "1")
    done = torchrun(2, "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "2"), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(tmp_path / n).weights for n in ("1", "2"))
    for key in one:
        torch.testing.assert_close(
            one[key], two[key], rtol=1e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}"
        )
    records = [RunDir(tmp_path / n).metrics() for n in ("1", "2")]
    losses = [[r["loss"] for r in found if r["kind"] == "train"] for found in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [sum(r["unread"] for r in found if r["kind"] == "train") for found in records] == [2, 2]

"""Training on encoded files: resuming is bit for bit, signals stop cleanly, unreadable videos are reported."""

import contextlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.training import run, settings, weights
from torch.utils.data import DataLoader

from nlnet.data import read_videos
from nlnet.engine.config import override
from nlnet.engine.runs.checkpoint import load_checkpoint
from nlnet.engine.runs.directory import RunDir, block_stats_records
from nlnet.engine.signals import ignore_interrupts
from nlnet.engine.training.learner import Learner
from nlnet.engine.training.sampler import SampleOrder
from nlnet.errors import ConfigError, EvaluationError, RunError, TrainingError


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
    assert {r["kind"] for r in records} == {"train", "validation", "block_stats"}


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
    """With group norm the samples of a batch are independent, so two halves make the same step."""
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
    with pytest.raises(ConfigError, match=r"training\.frozen_norm: no batch norm came from init\.weights"):
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


def test_a_batch_without_a_readable_video_changes_nothing_and_ends_nothing(color_videos, tmp_path, corrupted):
    """One clip an iteration: the iteration of the unreadable video makes no step."""
    videos, bad = corrupted(color_videos, "train/green")
    config = settings(videos, "training.batch=1", "schedule.iterations=12", "training.block_stats_every=1")
    run(config, tmp_path / "whole")  # an epoch: each of the 12 videos comes once
    records = RunDir(tmp_path / "whole").metrics()
    (skipped,) = [r for r in records if r["kind"] == "skipped"]
    assert str(bad) in skipped["reason"]
    empty = skipped["iteration"]
    assert sum(r["unread"] for r in records if r["kind"] == "train") == 1
    measured = [r["iteration"] for r in records if r["kind"] == "block_stats"]
    assert measured == [k for k in range(1, 13) if k != empty]
    assert all(math.isfinite(r["loss"]) for r in records if r["kind"] == "train")
    # stopped before it and after it, the weights and the optimiser are the same
    run(config, tmp_path / "halves", until=empty - 1)
    before = RunDir(tmp_path / "halves").load_state()
    run(config, tmp_path / "halves", resume=True, until=empty)
    after = RunDir(tmp_path / "halves").load_state()
    assert (before["iteration"], after["iteration"]) == (empty - 1, empty)
    assert all(torch.equal(before["model"][k], after["model"][k]) for k in before["model"])
    momenta = [[v["momentum_buffer"] for v in s["optimizer"]["state"].values()] for s in (before, after)]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    run(config, tmp_path / "halves", resume=True)
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[k], halves[k]) for k in whole)


def test_an_empty_micro_batch_adds_nothing_to_the_gradient(color_videos, tmp_path):
    """One of two clips is unreadable. In a micro-batch of its own the gradient is (g + 0)/2; in one micro-batch it is g."""
    videos = Path(shutil.copytree(color_videos, tmp_path / "videos"))
    items = read_videos(videos / "train").items
    items[SampleOrder(len(items), seed=0)[1][0]].path.write_bytes(b"")  # the second clip of the first batch
    plain = ("model.norm=group", "model.nonlocal_norm=group", "model.dropout=0", "training.precise_norm=0")
    plain += ("optimizer.momentum=0", "optimizer.weight_decay=0", "data.val=null", "training.batch=2")
    after = {}
    for name, more in {
        "start": ("optimizer.lr=1e-30",),
        "one": (),
        "two": ("training.accumulate=2",),
    }.items():
        run(settings(videos, *plain, *more), tmp_path / name, until=1)
        after[name] = weights(tmp_path / name)
    for key in ("fc.weight", "fc.bias", "conv1.weight"):
        together, alone = (after[name][key] - after["start"][key] for name in ("one", "two"))
        assert together.abs().max() > 1e-4
        torch.testing.assert_close(2 * alone, together, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # torch's own use
def test_compiled_training_is_the_same_but_for_rounding(color_videos, tmp_path):
    """Three iterations; in the first and the last the blocks are measured, so they run uncompiled.

    Training makes rounding grow, so what is compared is how far all weights moved: within 1 % of it.
    """
    ways = {"start": ("optimizer.lr=1e-30",), "plain": (), "compiled": ("training.compile=true",)}
    for name, more in ways.items():
        run(settings(color_videos, "schedule.iterations=3", "model.dropout=0", *more), tmp_path / name)
    start, plain, compiled = (weights(tmp_path / name) for name in ways)
    learnt = [key for key in plain if "running" not in key and "tracked" not in key]
    moved, apart = (
        torch.cat([(one[key] - plain[key]).flatten() for key in learnt]).norm() for one in (start, compiled)
    )
    assert moved > 0.1
    assert apart < 0.01 * moved
    measured = [r["iteration"] for r in RunDir(tmp_path / "compiled").metrics() if r["kind"] == "block_stats"]
    assert measured == [1, 3]


def test_compiling_and_checkpointing_exclude_each_other(color_videos):
    with pytest.raises(
        ConfigError,
        match=r"^after the overrides: training\.compile: torch cannot compile a network with activation",
    ):
        settings(color_videos, "training.compile=true", "training.checkpointing=true")


@pytest.mark.parametrize("more", [(), ("data.val=null",)], ids=["validated", "without validation"])
def test_a_resume_writes_the_weights_that_a_kill_left_unwritten(color_videos, tmp_path, more):
    """A kill between the training state and the weights of the last iteration."""
    config = settings(color_videos, "schedule.iterations=2", *more)
    run(config, tmp_path / "whole")
    run(config, tmp_path / "killed")
    last = tmp_path / "killed" / "checkpoints" / "last.safetensors"
    last.unlink()
    assert run(config, tmp_path / "killed", resume=True).iteration == 2
    whole, again = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_only_corrupt_videos(tmp_path):
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.mp4").write_bytes(b"no video")
    config = settings(tmp_path, "data.val=null")
    with pytest.raises(TrainingError, match=r"no video could be read in 8 iterations in a row: .*x\.mp4"):
        run(config, tmp_path / "run")


def test_a_loss_that_is_nan_or_infinite(color_videos, tmp_path):
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) before iteration \d+; try a lower optimizer\.lr"
    ):
        run(settings(color_videos, "optimizer.lr=1e20"), tmp_path)
    assert not (tmp_path / "checkpoints" / "last.safetensors").exists()


def test_broken_weights_never_replace_the_last_good_state(color_videos, tmp_path):
    """Loss and weights are checked before each save, not only at a log line."""
    wild = ("optimizer.lr=1e20", "schedule.iterations=30", "training.log_every=1000", "data.val=null")
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf)|are NaN or infinite after iteration \d+"):
        run(settings(color_videos, *wild, "training.checkpoint_every=1", "training.precise_norm=0"), tmp_path)
    state = RunDir(tmp_path).load_state()
    names = [k for k in state["model"] if k.endswith(("weight", "bias"))]
    assert all(state["model"][k].isfinite().all() for k in names)


def test_weights_that_are_nan_are_not_saved(color_videos, tmp_path, monkeypatch):
    """The loss is computed before the last step, so a NaN of that step does not show in it."""
    step = Learner._update

    def broken(self):
        step(self)
        self.model.fc.bias.data[0] = float("nan")

    run(settings(color_videos), tmp_path, until=2)
    monkeypatch.setattr(Learner, "_update", broken)
    with pytest.raises(
        TrainingError, match=r"fc.bias and 0 other weights are NaN or infinite after iteration 3"
    ):
        run(settings(color_videos), tmp_path, resume=True, until=3)
    assert RunDir(tmp_path).load_state()["iteration"] == 2


def test_what_a_run_refuses(color_videos, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train: not set"):
        run(settings(color_videos, "data.train=null"), tmp_path)
    with pytest.raises(
        ConfigError, match=r"training\.batch: 6 clips do not divide into 4 .* choose a multiple of 4"
    ):
        run(settings(color_videos, "training.accumulate=4"), tmp_path / "a")
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        run(settings(color_videos), tmp_path / "b", resume=True)
    run(settings(color_videos, "schedule.iterations=1"), tmp_path / "c")
    with pytest.raises(RunError, match="a run is already here"):
        run(settings(color_videos, "schedule.iterations=1"), tmp_path / "c")
    with pytest.raises(RunError, match="made with another configuration"):
        run(settings(color_videos, "schedule.iterations=2"), tmp_path / "c", resume=True)


def test_the_state_is_there_before_the_validation(color_videos, tmp_path, corrupted):
    """A run that fails in its validation is resumed from the training state of that iteration."""
    config = settings(color_videos)
    run(config, tmp_path / "whole")
    videos, _ = corrupted(color_videos, "val/green")
    for path in (videos / "val").glob("*/*"):
        path.write_bytes(b"")
    broken = settings(videos)
    with pytest.raises(EvaluationError, match="none of the 6 videos could be read"):
        run(broken, tmp_path / "run")
    directory = RunDir(tmp_path / "run")
    assert directory.load_state()["iteration"] == 8
    assert not (directory.checkpoints / "last.safetensors").exists()
    shutil.copytree(color_videos / "val", videos / "val", dirs_exist_ok=True)
    outcome = run(broken, tmp_path / "run", resume=True)
    whole, late = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[k], late[k]) for k in whole)
    records = [
        [r for r in RunDir(tmp_path / d).metrics() if r["kind"] == "validation"] for d in ("whole", "run")
    ]
    assert records[0] == records[1]
    assert outcome.metrics["clip_top1"] == records[0][0]["clip_top1"]
    assert load_checkpoint(tmp_path / "run", "best").iteration == 8


def test_the_best_checkpoint_is_the_best_of_all_sessions(color_videos, tmp_path):
    config = settings(color_videos, "training.validate_every=2")
    run(config, tmp_path / "whole")
    for until in (2, 6, 8):
        run(config, tmp_path / "parts", resume=until > 2, until=until)
    parts, whole = (load_checkpoint(tmp_path / d, "best") for d in ("parts", "whole"))
    assert (parts.iteration, parts.metrics) == (whole.iteration, whole.metrics)
    found = [r["clip_top1"] for r in RunDir(tmp_path / "whole").metrics() if r["kind"] == "validation"]
    assert whole.metrics["clip_top1"] == max(found)
    assert whole.iteration == 2 * (found.index(max(found)) + 1)


def test_a_resumed_run_needs_the_videos_that_it_began_with(color_videos, tmp_path):
    videos = Path(shutil.copytree(color_videos, tmp_path / "videos"))
    config = settings(videos)
    run(config, tmp_path / "run", until=2)

    def refused(message: str) -> None:
        with pytest.raises(RunError, match=rf"train has changed since the run began: {message}"):
            run(config, tmp_path / "run", resume=True, until=3)

    more = videos / "train" / "red" / "9.mp4"
    shutil.copy(videos / "train" / "red" / "0.mp4", more)
    refused("it has 13 videos and had 12; a resumed run needs the videos that it began with")
    (videos / "train" / "red" / "1.mp4").unlink()
    refused("it still has 12 videos, but their paths, labels or order differ")
    shutil.move(more, videos / "train" / "red" / "1.mp4")
    for split in ("train", "val"):
        shutil.move(videos / split / "red", videos / split / "pink")
    refused(r"its classes differ .'red' is gone, 'pink' is new.")
    for split in ("train", "val"):
        shutil.move(videos / split / "pink", videos / split / "red")
    shutil.copy(videos / "val" / "red" / "0.mp4", videos / "val" / "red" / "7.mp4")
    with pytest.raises(RunError, match="val has changed since the run began: it has 7 videos and had 6"):
        run(config, tmp_path / "run", resume=True, until=3)
    (videos / "val" / "red" / "7.mp4").unlink()
    assert run(config, tmp_path / "run", resume=True, until=3).iteration == 3


def test_a_run_records_the_provenance_of_every_session(color_videos, tmp_path):
    config = settings(color_videos)
    run(config, tmp_path, until=2)
    run(config, tmp_path, resume=True, until=4)
    entries = json.loads((tmp_path / "provenance.json").read_text())
    assert [entry["iteration"] for entry in entries] == [0, 2]
    assert all(entry["torch"] == torch.__version__ for entry in entries)


def test_a_run_of_an_older_version_is_resumed(color_videos, tmp_path):
    """Its files have the key vitals_every, records of kind vitals, and passport.json."""
    config = settings(color_videos, "training.block_stats_every=2")
    run(config, tmp_path / "whole")
    old = RunDir(tmp_path / "old")
    run(config, old.path, until=4)
    old.provenance_path.rename(old.path / "passport.json")
    for path in (old.path / "config.json", old.metrics_path):
        text = path.read_text().replace('"block_stats_every"', '"vitals_every"')
        path.write_text(text.replace('"block_stats"', '"vitals"'))
    state = old.load_state()
    assert '"block_stats_every":2' in state["config"]
    old.save_state(state | {"config": state["config"].replace("block_stats_every", "vitals_every")})
    stored, _ = old.read_config()
    assert stored == config
    run(stored, old.path, resume=True)
    whole, resumed = weights(tmp_path / "whole"), weights(old.path)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert [entry["iteration"] for entry in old.sessions()] == [0, 4]
    measured = block_stats_records(old.metrics())
    assert [r["iteration"] for r in measured] == [1, 2, 4, 6, 8]
    assert [r["kind"] for r in measured] == ["vitals"] * 3 + ["block_stats"] * 2
    with pytest.raises(RunError, match="made with another configuration"):
        run(override(config, ["training.block_stats_every=3"]), old.path, resume=True)


def test_a_directory_has_one_run_at_a_time(color_videos, tmp_path):
    config = settings(color_videos)
    run(config, tmp_path / "run", until=1)
    with RunDir(tmp_path / "run").lock(), pytest.raises(RunError, match="another process trains in this run"):
        run(config, tmp_path / "run", resume=True, until=2)
    with RunDir(tmp_path / "new").lock(), pytest.raises(RunError, match="another process trains in this run"):
        run(config, tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


STARTED: list[subprocess.Popen[str]] = []


def start_command(videos: Path, directory: Path, *more: str) -> subprocess.Popen[str]:
    """A long run of the real command in its own process and process group."""
    config = directory.with_suffix(".yaml")
    changes = ("schedule.iterations=100000", "training.checkpoint_every=3", *more)
    config.write_text(settings(videos, *changes).model_dump_json())
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
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Kill the runs of a test at its end, also when it fails."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    STARTED.clear()


def group_of(process: subprocess.Popen[str]) -> list[int]:
    """The living processes of its group (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, _, rest = stat.read_text().partition(" (")
            state, _, group = rest.rpartition(") ")[2].split()[:3]
            if int(group) == process.pid and state != "Z":
                found.append(int(number))
    return found


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
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
    assert "continue with: nlnet train --resume" in output
    assert "Traceback" not in output
    done = RunDir(tmp_path / "run").load_state()["iteration"]
    assert load_checkpoint(tmp_path / "run").iteration == done >= 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_sigterm_to_the_whole_group_stops_as_cleanly(color_videos, tmp_path):
    """As batch systems do; the workers ignore it, the main process stops."""
    process = start_command(color_videos, tmp_path / "run", "data.workers=2")
    wait_for(tmp_path / "run" / "checkpoints" / "resume.pt", process)
    assert len(group_of(process)) >= 3
    assert RunDir(tmp_path / "run").busy
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "continue with: nlnet train --resume" in output
    assert "worker" not in output
    assert load_checkpoint(tmp_path / "run").iteration == RunDir(tmp_path / "run").load_state()["iteration"]
    assert group_of(process) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_run(color_videos, tmp_path):
    process = start_command(color_videos, tmp_path / "run", "data.workers=2")
    wait_for(tmp_path / "run" / "checkpoints" / "resume.pt", process)
    assert len(group_of(process)) >= 3
    process.kill()
    process.communicate(timeout=60)
    assert not RunDir(tmp_path / "run").busy  # while workers may still look for it
    deadline = time.monotonic() + 30
    while group_of(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_of(process) == []


class Stuck(torch.utils.data.Dataset):
    """A data set of process ids, whose later samples never come."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index > 1:
            time.sleep(1000)
        return os.getpid()


def test_a_worker_that_is_stuck_ends_with_its_loader():
    """torch sends a SIGTERM from the main process, which the worker does not ignore."""
    batches = iter(DataLoader(Stuck(), batch_size=None, num_workers=2, worker_init_fn=ignore_interrupts))
    workers = {next(batches), next(batches)}
    assert len(workers) == 2
    for worker in workers:  # somebody else's does nothing
        subprocess.run(["kill", "-TERM", str(worker)], check=True)
    time.sleep(0.5)
    assert all(Path(f"/proc/{worker}").exists() for worker in workers) or not Path("/proc/self").exists()
    began = time.monotonic()
    del batches
    for child in multiprocessing.active_children():
        if child.pid in workers:
            child.join(timeout=20)
            assert child.exitcode == 0
    assert time.monotonic() - began < 30


def test_kill_9_leaves_a_run_that_resumes_to_the_same_weights(color_videos, tmp_path):
    process = start_command(color_videos, tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "resume.pt", process)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    config, _ = RunDir(tmp_path / "run").read_config()
    done = RunDir(tmp_path / "run").load_state()["iteration"]
    (tmp_path / "run" / "checkpoints" / ".resume.pt.ab12_cd3").write_bytes(b"half")  # from another kill
    run(config, tmp_path / "run", resume=True, until=done + 4)
    run(config, tmp_path / "whole", until=done + 4)
    a = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    b = load_file(tmp_path / "whole" / "checkpoints" / "last.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)
    iterations = [
        r["iteration"] for r in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    ]
    assert iterations == sorted(set(iterations))
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {
        "config.json",
        "last.safetensors",
        "lock",
        "metrics.jsonl",
        "provenance.json",
        "resume.pt",
    }

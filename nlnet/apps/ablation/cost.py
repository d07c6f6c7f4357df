"""Estimate how long the study takes on this machine, from one timed step of every network and a few timed videos.

    seconds of a run = 2 · START + read · videos + step · iterations + ⅓ step/batch · clips without gradient

Clips without gradient are those of precise batch normalisation, validation and test. Times are CPU seconds of one core,
so the estimate is the same on a busy machine, and it holds for a study that has the machine to itself. Runs side by side
share the memory bandwidth; the estimate does not count that.
"""

import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nlnet.apps.ablation.plan import CLASSES, Plan
from nlnet.apps.ablation.study import DataSet, Study
from nlnet.apps.jobs import Job
from nlnet.apps.recipes.costs import measurements
from nlnet.data import Video
from nlnet.data.diagnostic.files import encode_mp4, encode_png
from nlnet.data.diagnostic.task import DiagnosticSpec, make_clip, make_still
from nlnet.engine.config import Config, ModelConfig
from nlnet.engine.network import build_model

START = 6.0
"""Seconds that a process of `nlnet train` or `nlnet test` needs before its first clip: imports, listing the folders."""
SAMPLE = 20
"""Videos, or stills, that are timed."""
STEPS = 2
"""Training steps that are timed; the fastest counts."""


def estimate(plan: Plan, *, jobs: int) -> dict[str, Any]:
    """Return the minutes for each table and for all of them, with `jobs` runs at a time, without the finished runs."""
    tables = {}
    for name, table in plan.tables.items():
        runs = plan.runs_of(table)
        used = {row.data for row in table.rows}
        depths = {row.depth for row in table.rows}
        tables[name] = {
            "title": table.title,
            "rows": len(table.rows),
            "runs": len(runs),
            "done": sum(job.tested for job in runs.values()),
            "minutes": _minutes(plan, runs.values(), used, depths, jobs),
        }
    names = {row.data for table in plan.tables.values() for row in table.rows}
    return {
        "tables": tables,
        "runs": len(plan.runs),
        "done": sum(job.tested for job in plan.runs.values()),
        "minutes": _minutes(plan, plan.runs.values(), names, set(plan.stills), jobs),
        "basis": {
            "formula": "2·START + read·videos + step·iterations + ⅓ step/batch·clips without gradient, over the jobs",
            "timed here": f"a step of each network (the faster of {STEPS}, one thread), {SAMPLE} videos of each data set",
            "START": f"{START:g} s",
        },
    }


def _minutes(plan: Plan, runs: Iterable[Job], data: set[str], depths: set[str], jobs: int) -> float:
    """Minutes of the runs that are left, their 2-D networks, and the data sets that are not yet written."""
    seconds = sum(_remaining(plan, job) for job in runs)
    seconds += sum(_remaining(plan, plan.stills[depth]) for depth in depths)
    for name in data:
        if not plan.data(name).exists():
            seconds += clip_seconds(plan.study.data[name])[0] * sum(plan.study.videos.values())
    if not plan.data("stills").exists():
        # 1.1: a tenth as many stills are written for validation
        seconds += still_seconds(plan.study.stills_spec) * 1.1 * plan.study.stills
    return seconds / jobs / 60


def _remaining(plan: Plan, job: Job) -> float:
    """Seconds that a run still needs."""
    if job.tested:
        return 0.0
    config = plan.configs[job.name]
    # a run that was stopped goes on where it was
    share = 1 - min(1.0, job.iterations_done() / config.schedule.iterations)
    training, testing = run_seconds(config, plan.study, job.tests)
    return share * training + testing


def run_seconds(config: Config, study: Study, tests: bool) -> tuple[float, float]:
    """Return the seconds of training (with its validations) and of the test."""
    frames, crop, batch = config.data.frames or 1, config.data.crop, config.training.batch
    step = step_seconds(config.model, (batch, frames, crop))
    # the backward pass costs two forward passes, so a clip without gradient costs a third of a step's clip
    forward = step / batch / 3
    # precise batch normalisation runs before every checkpoint and validation; validations are counted as often
    without_gradient = measurements(config) * (config.training.precise_norm * batch + study.videos["val"])
    # runs that are tested train on videos, the others on stills (0.5 ms each); both are decoded once and then cached
    videos = study.videos["train"] if tests else study.stills
    read = clip_seconds(_data_of(config, study))[1] if tests else 0.0005
    training = START + read * videos + step * config.schedule.iterations + forward * without_gradient
    views = config.test.clips * config.test.crops * study.videos["test"]
    return training, (START + read * study.videos["test"] + forward * views) if tests else 0.0


def _data_of(config: Config, study: Study) -> DataSet:
    """The data set that a configuration trains on, by the name of its folder."""
    assert config.data.train is not None
    return study.data[Path(config.data.train).parent.name]


@cache
def step_seconds(model: ModelConfig, clip: tuple[int, int, int]) -> float:
    """Return the CPU seconds of a forward and backward pass on one thread; `clip` is (batch, frames, side)."""
    batch, frames, side = clip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = build_model(Config(model=model), CLASSES)
        network.to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
        x = torch.randn(batch, 3, frames, side, side).contiguous(memory_format=torch.channels_last_3d)
        labels = torch.arange(batch) % CLASSES
        times = []
        # the first step allocates memory and chooses kernels, and does not count
        for _ in range(1 + STEPS):
            start = time.process_time()
            F.cross_entropy(network(x), labels).backward()
            times.append(time.process_time() - start)
        return min(times[1:])
    finally:
        torch.set_num_threads(threads)


@cache
def clip_seconds(data: DataSet) -> tuple[float, float]:
    """Return the CPU seconds of writing one video and of decoding it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.mp4" for index in range(SAMPLE)]
        start = time.process_time()
        for index, path in enumerate(paths):
            encode_mp4(make_clip(data.spec, "train", index).frames, path)
        written = time.process_time()
        for path in paths:
            with Video(path) as video:
                video.frames(list(range(video.num_frames)))
        return (written - start) / SAMPLE, (time.process_time() - written) / SAMPLE


@cache
def still_seconds(spec: DiagnosticSpec) -> float:
    """Return the CPU seconds of making one still."""
    start = time.process_time()
    for index in range(SAMPLE):
        encode_png(make_still(spec, "train", index)[0])
    return (time.process_time() - start) / SAMPLE

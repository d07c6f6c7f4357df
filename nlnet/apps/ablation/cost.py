"""How long the study will take on this machine: one step of every network, and a few videos, timed.

A run = 2 · START + read · videos + step · iterations + ⅓ step/batch · clips without gradient (precise BN, validation,
test). Timed in seconds of one core, so that a busy machine does not matter; it should not be busy in the study.
Runs side by side share the memory's bandwidth, for which nothing is added.
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
"""Seconds until a process of `nlnet train` or `nlnet test` is at work: imports, and looking through the folders."""
SAMPLE = 20
STEPS = 2


def estimate(plan: Plan, *, jobs: int) -> dict[str, Any]:
    """Minutes for each table on its own and for all together, `jobs` runs at a time; what is done is not counted."""
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
            "timed here": f"a step of each network ({STEPS} after one, one thread), {SAMPLE} videos of each data set",
            "START": f"{START:g} s",
        },
    }


def _minutes(plan: Plan, runs: Iterable[Job], data: set[str], depths: set[str], jobs: int) -> float:
    seconds = sum(_remaining(plan, job) for job in runs)
    seconds += sum(_remaining(plan, plan.stills[depth]) for depth in depths)
    for name in data:
        if not plan.data(name).exists():
            seconds += clip_seconds(plan.study.data[name])[0] * sum(plan.study.videos.values())
    if not plan.data("stills").exists():
        seconds += still_seconds(plan.study.stills_spec) * 1.1 * plan.study.stills
    return seconds / jobs / 60


def _remaining(plan: Plan, job: Job) -> float:
    if job.tested:
        return 0.0
    config = plan.configs[job.name]
    share = 1 - min(1.0, job.done() / config.schedule.iterations)
    training, testing = run_seconds(config, plan.study, job.tests)
    return share * training + testing


def run_seconds(config: Config, study: Study, tests: bool) -> tuple[float, float]:
    """Of training with its validations, and of the test."""
    frames, crop, batch = config.data.frames or 1, config.data.crop, config.training.batch
    step = step_seconds(config.model, (batch, frames, crop))
    forward = step / batch / 3
    aside = measurements(config) * (config.training.precise_norm * batch + study.videos["val"])
    videos = study.videos["train"] if tests else study.stills
    read = clip_seconds(_data_of(config, study))[1] if tests else 0.0005
    training = START + read * videos + step * config.schedule.iterations + forward * aside
    views = config.test.clips * config.test.crops * study.videos["test"]
    return training, (START + read * study.videos["test"] + forward * views) if tests else 0.0


def _data_of(config: Config, study: Study) -> DataSet:
    assert config.data.train is not None
    return study.data[Path(config.data.train).parent.name]


@cache
def step_seconds(model: ModelConfig, clip: tuple[int, int, int]) -> float:
    """Forward and backward of a batch of (B, T, side) clips, one thread."""
    batch, frames, side = clip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = build_model(Config(model=model), CLASSES)
        network.to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
        x = torch.randn(batch, 3, frames, side, side).contiguous(memory_format=torch.channels_last_3d)
        labels = torch.arange(batch) % CLASSES
        times = []
        for _ in range(1 + STEPS):
            start = time.process_time()
            F.cross_entropy(network(x), labels).backward()
            times.append(time.process_time() - start)
        return min(times[1:])
    finally:
        torch.set_num_threads(threads)


@cache
def clip_seconds(data: DataSet) -> tuple[float, float]:
    """Of writing one video, and of reading it again."""
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
    """Of writing one still."""
    start = time.process_time()
    for index in range(SAMPLE):
        encode_png(make_still(spec, "train", index)[0])
    return (time.process_time() - start) / SAMPLE

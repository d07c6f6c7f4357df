"""`nlnet demo`: make videos, train a network on them with and without a non-local block, and compare the accuracies.

1. Write the videos of the diagnostic data set as .mp4 files.
2. Train a 2-D network on single frames, to know digits and colours.
3. Inflate it and fine-tune it on the videos as three networks: as it is (local), with a residual block added (control),
   and with a non-local block added. Test each on several views of held-out handwritings.
4. Write the report.

Every training run is a `nlnet train` in its own process, as many at a time as there are cores. A demo that was stopped
goes on where it was when the same command is given again.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.demo.report import NETWORKS, report
from nlnet.apps.jobs import Job, phase, run_jobs
from nlnet.apps.recipes.catalogue import DEMO_SPEC, DEMO_VIDEOS
from nlnet.apps.verbs.data import write_videos
from nlnet.engine.signals import sigterm_raises


def run_demo(out: Path, *, seeds: int, jobs: int | None, as_json: bool) -> int:
    """Run `nlnet demo`; return the exit code, 1 if the non-local network is not the best on every seed."""
    start = time.perf_counter()
    # a termination signal unwinds the stack, so that the running processes are ended and write their checkpoints
    with sigterm_raises(SystemExit(143)):
        runs = make_runs(out, seeds=seeds, jobs=jobs)
    with phase("4. report"):
        result = report(out, runs, seconds=time.perf_counter() - start)
    if as_json:
        print_json(result)
    else:
        show(result, out)
    return 0 if result["nonlocal_wins_on_every_seed"] else 1


def make_runs(out: Path, *, seeds: int, jobs: int | None) -> list[Job]:
    """Make the videos, train and test the networks, except what exists already; return the jobs of fine-tuning."""
    data = out / "data"
    with phase("1. videos: colour-cued digits, far apart in space and time"):
        write_videos(DEMO_SPEC, data, DEMO_VIDEOS)
    with phase("2. stills: training the 2-D network on single frames"):
        run_jobs([stills_job(out, data)], at_once=1)
    with phase(f"3. runs: fine-tuning and testing {len(NETWORKS)} networks on {seeds} seeds"):
        runs = fine_tuning_jobs(out, data, seeds)
        run_jobs(runs, at_once=min(jobs or os.cpu_count() or 1, len(runs)))
    return runs


def stills_job(out: Path, data: Path) -> Job:
    """Return the training run of the 2-D network on single frames."""
    sources = (f"data.train={data / 'stills' / 'train'}", f"data.val={data / 'stills' / 'val'}")
    return Job(name="stills", recipe="demo_stills", run=out / "stills", overrides=sources, tests=False)


def fine_tuning_jobs(out: Path, data: Path, seeds: int) -> list[Job]:
    """Return the runs of the three networks, seed by seed, so that the first seed can be compared early."""
    sources = tuple(f"data.{split}={data / split}" for split in ("train", "val", "test"))
    weights = f"init.weights={out / 'stills'}"
    return [
        Job(
            name=f"{network}-{seed}",
            recipe=f"demo_{network}",
            run=out / f"{network}-{seed}",
            overrides=(*sources, weights, f"training.seed={seed}"),
            tests=True,
        )
        for seed in range(seeds)
        for network in NETWORKS
    ]


def show(result: dict[str, Any], out: Path) -> None:
    """Print the table of the networks, the accuracies to compare them with, and where the report is."""
    rows = []
    for network in result["networks"]:
        scores = network["video_top1"]
        rows.append(
            [
                network["title"],
                f"{network['parameters']:,}",
                f"{network['macs'] / 1e6:.1f}",
                " / ".join(f"{s:.1f}" for s in scores),
                f"{statistics.mean(scores):.1f}",
            ]
        )
    columns = ["network", "parameters", "MACs, M", "video_top1 by seed, %", "mean, %"]
    OUT.print(table(result["title"], columns, rows))
    for line in result["yardsticks"]:
        OUT.print(f"  {line}", highlight=False)
    OUT.print(
        f"report: {out / 'report.md'}, with curves and an attention picture; {result['seconds']:.0f} s in all"
    )

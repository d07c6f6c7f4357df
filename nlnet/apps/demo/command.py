"""`nlnet demo`: the paper's claim on a fresh machine, by the same commands that a user would type.

Videos of the diagnostic are written as .mp4 files; a 2-D network learns digits and colours on stills; it is
inflated and fine-tuned on the videos three times over: as it is (local), with a residual block added (control),
and with a non-local block added. All are tested on several views of held-out handwritings.

Every training run is a `nlnet train` of its own in its own process, as many at a time as there are cores. A demo
that was stopped goes on where it was.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.demo.report import NETWORKS, report
from nlnet.apps.jobs import Job, phase, work
from nlnet.apps.recipes.catalogue import DEMO_SPEC, DEMO_VIDEOS
from nlnet.apps.verbs.data import write_videos
from nlnet.engine.signals import sigterm_raises


def run_demo(out: Path, *, seeds: int, jobs: int | None, as_json: bool) -> int:
    """`nlnet demo`. Exit code 1 where the non-local network did not win."""
    start = time.perf_counter()
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
    """Videos, stills and the fine-tuned networks, tested; what is there already stays."""
    data = out / "data"
    with phase("1. videos: colour-cued digits, in space and time apart"):
        write_videos(DEMO_SPEC, data, DEMO_VIDEOS)
    with phase("2. stills: the 2-D network learns digits and colours"):
        work([stills_job(out, data)], at_once=1)
    with phase(f"3. fine-tuning: {len(NETWORKS)} networks × {seeds} seeds, each tested on many views"):
        runs = fine_tuning_jobs(out, data, seeds)
        work(runs, at_once=min(jobs or os.cpu_count() or 1, len(runs)))
    return runs


def stills_job(out: Path, data: Path) -> Job:
    sources = (f"data.train={data / 'stills' / 'train'}", f"data.val={data / 'stills' / 'val'}")
    return Job(name="stills", recipe="demo_stills", run=out / "stills", overrides=sources, tests=False)


def fine_tuning_jobs(out: Path, data: Path, seeds: int) -> list[Job]:
    """Seed by seed, so that the first seed's three networks are comparable early."""
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

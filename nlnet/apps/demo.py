"""`nlnet demo`: the paper's claim on a fresh machine, by the same commands that a user would type.

Videos of the diagnostic are written as .mp4 files; a 2-D network learns digits and colours on stills; it is
inflated and fine-tuned on the videos three times over: as it is (local), with a residual block added (control),
and with a non-local block added. All are tested on several views of held-out handwritings.

Every training run is a `nlnet train` of its own in its own process, as many at a time as there are cores. A demo
that was stopped goes on where it was.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlnet.apps.console import ERR, OUT, bar, table
from nlnet.apps.recipes import DEMO_SPEC, DEMO_VIDEOS, RECIPES
from nlnet.engine.rundir import RunDir, RunError

NETWORKS = {"local": "C2D, local", "control": "C2D + residual block", "nonlocal": "C2D + non-local block"}


@dataclass(frozen=True)
class Job:
    """One training run and the test after it."""

    name: str
    recipe: str
    run: Path
    overrides: tuple[str, ...]
    tests: bool

    @property
    def total(self) -> int:
        return RECIPES[self.recipe]().schedule.iterations

    @property
    def log(self) -> Path:
        return self.run.with_suffix(".log")

    def done(self) -> int:
        """Iterations that metrics.jsonl knows of."""
        return max((r["iteration"] for r in RunDir(self.run).metrics()), default=0)

    def commands(self) -> list[list[str]]:
        """What is left to do, each a command of nlnet."""
        nlnet = [sys.executable, "-m", "nlnet"]
        left = []
        if not (self.run / "checkpoints" / "resume.pt").exists():
            left.append(
                [*nlnet, "train", self.recipe, "--out", str(self.run), "--device", "cpu", *self.overrides]
            )
        elif RunDir(self.run).load_state()["iteration"] < self.total:
            left.append([*nlnet, "train", "--resume", str(self.run), "--device", "cpu"])
        if self.tests and not (self.run / "test" / "summary.json").exists():
            left.append([*nlnet, "test", str(self.run), "--device", "cpu"])
        return left


def run_demo(out: Path, *, seeds: int, jobs: int | None, as_json: bool) -> int:
    """`nlnet demo`. Exit code 1 where the non-local network did not win."""
    from nlnet.apps.commands import write_videos
    from nlnet.apps.demo_report import report

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the runs are ended, too
    start = time.perf_counter()
    data = out / "data"
    with phase("1. videos: colour-cued digits, in space and time apart"):
        write_videos(DEMO_SPEC, data, DEMO_VIDEOS)
    with phase("2. stills: the 2-D network learns digits and colours"):
        work([stills_job(out, data)], at_once=1)
    with phase(f"3. fine-tuning: {len(NETWORKS)} networks × {seeds} seeds, each tested on many views"):
        runs = fine_tuning_jobs(out, data, seeds)
        work(runs, at_once=min(jobs or os.cpu_count() or 1, len(runs)))
    with phase("4. report"):
        result = report(out, runs, seconds=time.perf_counter() - start)
    if as_json:
        from nlnet.apps.cli import print_json

        print_json(result)
    else:
        show(result, out)
    return 0 if result["nonlocal_wins_on_every_seed"] else 1


def stills_job(out: Path, data: Path) -> Job:
    sources = (f"data.train={data / 'stills' / 'train'}", f"data.val={data / 'stills' / 'val'}")
    return Job("stills", "demo_stills", out / "stills", sources, tests=False)


def fine_tuning_jobs(out: Path, data: Path, seeds: int) -> list[Job]:
    """Seed by seed, so that the first seed's three networks are comparable early."""
    sources = tuple(f"data.{split}={data / split}" for split in ("train", "val", "test"))
    weights = f"init.weights={out / 'stills'}"
    return [
        Job(
            f"{network}-{seed}",
            f"demo_{network}",
            out / f"{network}-{seed}",
            (*sources, weights, f"training.seed={seed}"),
            tests=True,
        )
        for seed in range(seeds)
        for network in NETWORKS
    ]


def work(jobs: Sequence[Job], *, at_once: int) -> None:
    """Run every job, `at_once` at a time, with a bar for each; stop all if one fails."""
    # the miniature's layers are too small for threads: one core each is fastest, above all on a busy machine
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    waiting, running = list(jobs), list[tuple[Job, Iterator[None]]]()
    progress = bar()
    with progress:
        lines = {job.name: progress.add_task(job.name, total=job.total, note="waiting") for job in jobs}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    progress.reset(lines[job.name], note="")
                    running.append((job, steps(job, environment)))
                for job, alive in list(running):
                    if next(alive, False) is False:
                        running.remove((job, alive))
                    progress.update(lines[job.name], completed=job.done(), note=news(job))
                time.sleep(0.3)
        finally:
            for _, alive in running:
                alive.close()  # type: ignore[attr-defined]


def steps(job: Job, environment: dict[str, str]) -> Iterator[None]:
    """Run the job's commands one after the other; yields while one runs, ends it when closed."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    for command in job.commands():
        with job.log.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                while process.poll() is None:
                    yield
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode != 0:
            last = (job.log.read_text().strip().splitlines() or ["it printed nothing"])[-1]
            raise RunError(f"{job.name}: `{' '.join(command[1:])}` failed: {last} (all of it: {job.log})")


def news(job: Job) -> str:
    """The newest validation, or loss, of a run."""
    for record in reversed(RunDir(job.run).metrics()):
        if record["kind"] == "validation":
            return f"validation clip_top1 {record['clip_top1']:.1f} %"
        if record["kind"] == "train":
            return f"loss {record['loss']:.2f}"
    return ""


@contextmanager
def phase(title: str) -> Iterator[None]:
    """A line at the end of a phase with its time."""
    start = time.perf_counter()
    ERR.print(f"[bold]{title}")
    yield
    ERR.print(f"   {time.perf_counter() - start:.0f} s")


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

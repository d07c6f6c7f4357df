"""Training runs side by side: each a `nlnet train` of its own process and the `nlnet test` after it.

What was stopped goes on where it was: a run directory says how far it is.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from nlnet.apps.console import ERR, bar
from nlnet.apps.recipes.catalogue import recipe_or_file
from nlnet.engine.config import Config, override
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.signals import end_with_parent
from nlnet.errors import RunError

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The miniature's layers are too small for threads: one core a run is fastest, above all on a busy machine."""


@dataclass(frozen=True)
class Job:
    """One training run and the test after it."""

    name: str
    recipe: str
    """A recipe's name or a YAML file."""
    run: Path
    overrides: tuple[str, ...]
    tests: bool
    device: str = "cpu"
    processes: int = 1
    """More than one runs under torchrun."""
    weight: float = 1.0
    """Relative cost of an iteration, for the estimate of the time left."""

    @cached_property
    def config(self) -> Config:
        return override(recipe_or_file(self.recipe), self.overrides)

    @property
    def total(self) -> int:
        return self.config.schedule.iterations

    @property
    def log(self) -> Path:
        return self.run.with_suffix(".log")

    def done(self) -> int:
        """Iterations that metrics.jsonl knows of."""
        return max((r["iteration"] for r in RunDir(self.run).metrics()), default=0)

    @property
    def tested(self) -> bool:
        """Whether the test is done: its summary is written last."""
        return (self.run / "test" / "summary.json").exists()

    def commands(self) -> list[list[str]]:
        """What is left to do, each a command of nlnet."""
        left, run = [], RunDir(self.run)
        if not run.resume_path.exists():
            left.append(self._nlnet("train", self.recipe, "--out", str(self.run), *self.overrides))
        elif not run.finished(self.total):
            left.append(self._nlnet("train", "--resume", str(self.run)))
        if self.tests and not self.tested:
            left.append(self._nlnet("test", str(self.run)))
        return left

    def _nlnet(self, verb: str, *arguments: str) -> list[str]:
        several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}", "-m"]
        launcher = several if self.processes > 1 else []
        return [sys.executable, "-m", *launcher, "nlnet", verb, *arguments, "--device", self.device]

    def clear_false_start(self) -> None:
        """Remove what a run that was killed before its first checkpoint left: it has to start anew."""
        run = RunDir(self.run)
        if run.exists and not run.resume_path.exists():
            shutil.rmtree(self.run)


class Board:
    """A line for all runs with the minutes left, and one for each that is running."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.progress, self.began = jobs, bar(), time.perf_counter()
        self.work = sum(job.weight * job.total for job in jobs)
        self.finished = 0
        self.shares = {job.name: min(job.done(), job.total) * job.weight for job in jobs}
        self.at_start = sum(self.shares.values())
        self.whole = self.progress.add_task(f"{len(jobs)} runs", total=len(jobs), note="")
        self.lines = {
            job.name: self.progress.add_task(f"  {job.name}", total=job.total, note="", visible=False)
            for job in jobs
        }

    def show(self, job: Job) -> None:
        done = job.done()
        self.shares[job.name] = min(done, job.total) * job.weight
        self.progress.update(self.lines[job.name], completed=done, note=news(job), visible=True)
        self.progress.update(self.whole, completed=self.finished, note=self.left())

    def end(self, job: Job, how: str) -> None:
        self.finished += 1
        self.progress.update(self.lines[job.name], visible=False)
        self.progress.update(self.whole, completed=self.finished)
        ERR.print(f"   {job.name}: {how}", highlight=False, markup=False)

    def left(self) -> str:
        """From the speed of this session; empty while nothing is known."""
        gained = sum(self.shares.values()) - self.at_start
        if gained <= 0:
            return ""
        seconds = (time.perf_counter() - self.began) / gained * (self.work - self.at_start - gained)
        return f"about {max(1, round(seconds / 60))} min left"


def work(
    jobs: Sequence[Job],
    *,
    at_once: int,
    environments: Sequence[Mapping[str, str]] = (ONE_THREAD,),
    keep_going: bool = False,
    on_end: Callable[[str], None] = lambda name: None,
) -> dict[str, str]:
    """Run every job, `at_once` at a time; those that failed, with the reason.

    Args:
        environments: of the places where jobs run, in turn: one for each device, say.
        keep_going: let the others run on where one fails; otherwise all stop.
        on_end: called with the name of every job that ended well and had something to do.

    Ends the running processes before it returns, also on Ctrl-C; each of them writes a checkpoint first. Where this
    process is killed, the kernel tells them to end (Linux).

    Raises:
        RunError: a job failed, unless `keep_going`.
    """
    waiting, running = list(jobs), dict[int, tuple[Job, Iterator[None]]]()
    failed: dict[str, str] = {}
    at_work = set[str]()
    board = Board(jobs)
    with board.progress:
        try:
            while waiting or running:
                for place in range(at_once):
                    if waiting and place not in running:
                        job = waiting.pop(0)
                        if job.commands():
                            at_work.add(job.name)
                        board.progress.reset(board.lines[job.name])
                        environment = os.environ | environments[place % len(environments)]
                        running[place] = (job, steps(job, environment))
                for place, (job, alive) in list(running.items()):
                    try:
                        ended = next(alive, False) is False
                    except RunError as error:
                        if not keep_going:
                            raise
                        ended, failed[job.name] = True, str(error)
                    board.show(job)
                    if ended:
                        del running[place]
                        board.end(job, failed.get(job.name) or news(job) or "done")
                        if job.name in at_work and job.name not in failed:
                            on_end(job.name)
                time.sleep(0.3)
        finally:
            for _, alive in running.values():
                alive.close()  # type: ignore[attr-defined]
    return failed


def steps(job: Job, environment: Mapping[str, str]) -> Iterator[None]:
    """Run the job's commands one after the other; yields while one runs, ends it when closed.

    A directory in which another process is at work is waited for.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    while RunDir(job.run).busy:  # a run whose study was killed saves its state before it ends
        yield
    job.clear_false_start()
    for command in job.commands():
        with job.log.open("a") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )
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

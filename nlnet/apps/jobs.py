"""Training runs in their own processes, several at a time: `nlnet train`, then `nlnet test`.

A run that was stopped continues where it was: its directory says how many iterations are done.
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
"""Environment variables of a job on the CPU. The small networks' layers gain nothing from threads: one core for each
run is fastest, above all on a busy machine."""


@dataclass(frozen=True)
class Job:
    """One training run and, if `tests`, the test after it."""

    name: str
    recipe: str
    """The name of a recipe, or a YAML file."""
    run: Path
    """The run directory."""
    overrides: tuple[str, ...]
    """`section.key=value` settings for `nlnet train`."""
    tests: bool
    device: str = "cpu"
    processes: int = 1
    """With more than one, the commands run under torchrun."""
    weight: float = 1.0
    """Cost of an iteration relative to the other jobs, for the estimate of the time left."""

    @cached_property
    def config(self) -> Config:
        """The recipe with the overrides."""
        return override(recipe_or_file(self.recipe), self.overrides)

    @property
    def total(self) -> int:
        """Iterations of the whole run."""
        return self.config.schedule.iterations

    @property
    def log(self) -> Path:
        """The file that takes what the commands print."""
        return self.run.with_suffix(".log")

    def iterations_done(self) -> int:
        """The last iteration in metrics.jsonl; 0 before the first."""
        return max((r["iteration"] for r in RunDir(self.run).metrics()), default=0)

    @property
    def tested(self) -> bool:
        """Whether the test is complete: its summary is written last."""
        return (self.run / "test" / "summary.json").exists()

    def commands(self) -> list[list[str]]:
        """The `nlnet` commands that are still to run, in order; empty if the job is complete."""
        left, run = [], RunDir(self.run)
        if not run.resume_path.exists():
            left.append(self._nlnet("train", self.recipe, "--out", str(self.run), *self.overrides))
        elif not run.finished(self.total):
            left.append(self._nlnet("train", "--resume", str(self.run)))
        if self.tests and not self.tested:
            left.append(self._nlnet("test", str(self.run)))
        return left

    def _nlnet(self, verb: str, *arguments: str) -> list[str]:
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}", "-m"]
        launcher = torchrun if self.processes > 1 else []
        return [sys.executable, "-m", *launcher, "nlnet", verb, *arguments, "--device", self.device]

    def remove_if_unstarted(self) -> None:
        """Remove the directory of a run that was killed before its first checkpoint: `nlnet train` needs a new one."""
        run = RunDir(self.run)
        if run.exists and not run.resume_path.exists():
            shutil.rmtree(self.run)


class ProgressBoard:
    """A progress bar for all jobs, with the minutes left, and one for each job that is running."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.progress, self.start = jobs, bar(), time.perf_counter()
        # costs are in weighted iterations, so that jobs of large networks count for more
        self.total_cost = sum(job.weight * job.total for job in jobs)
        self.cost_done = {job.name: min(job.iterations_done(), job.total) * job.weight for job in jobs}
        self.cost_at_start = sum(self.cost_done.values())
        self.finished = 0
        self.all_jobs = self.progress.add_task(f"{len(jobs)} runs", total=len(jobs), note="")
        self.bars = {
            job.name: self.progress.add_task(f"  {job.name}", total=job.total, note="", visible=False)
            for job in jobs
        }

    def begin(self, job: Job) -> None:
        """Start the clock of a job's bar."""
        self.progress.reset(self.bars[job.name])

    def update(self, job: Job) -> None:
        """Show the progress of a running job."""
        done = job.iterations_done()
        self.cost_done[job.name] = min(done, job.total) * job.weight
        self.progress.update(self.bars[job.name], completed=done, note=latest_result(job), visible=True)
        self.progress.update(self.all_jobs, completed=self.finished, note=self.time_left())

    def end(self, job: Job, outcome: str) -> None:
        """Replace a job's bar by a line with its outcome."""
        self.finished += 1
        self.progress.update(self.bars[job.name], visible=False)
        self.progress.update(self.all_jobs, completed=self.finished)
        ERR.print(f"   {job.name}: {outcome}", highlight=False, markup=False)

    def time_left(self) -> str:
        """The estimated minutes left, at the speed since the start; empty before the first iteration."""
        gained = sum(self.cost_done.values()) - self.cost_at_start
        if gained <= 0:
            return ""
        seconds_per_cost = (time.perf_counter() - self.start) / gained
        seconds = seconds_per_cost * (self.total_cost - self.cost_at_start - gained)
        return f"about {max(1, round(seconds / 60))} min left"


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    environments: Sequence[Mapping[str, str]] = (ONE_THREAD,),
    keep_going: bool = False,
    on_end: Callable[[str], None] = lambda name: None,
) -> dict[str, str]:
    """Run all jobs, `at_once` at a time; return {name: reason} of the jobs that failed.

    Args:
        environments: additional environment variables of the slots in which jobs run, such as one GPU for each slot;
            used in turn if there are more slots.
        keep_going: run the other jobs to their end after a failure; otherwise a failure stops all.
        on_end: called with the name of each job that succeeded and was not complete before.

    Before it returns or raises, also on Ctrl-C, it ends the running processes, and each of them writes a checkpoint.
    If this process is killed, the kernel tells them to end (Linux).

    Raises:
        RunError: a job failed, unless `keep_going`.
    """
    waiting, running = list(jobs), dict[int, tuple[Job, Iterator[None]]]()
    failed: dict[str, str] = {}
    incomplete = set[str]()
    board = ProgressBoard(jobs)
    with board.progress:
        try:
            while waiting or running:
                for slot in range(at_once):
                    if waiting and slot not in running:
                        job = waiting.pop(0)
                        if job.commands():
                            incomplete.add(job.name)
                        board.begin(job)
                        environment = os.environ | environments[slot % len(environments)]
                        running[slot] = (job, run_commands(job, environment))
                for slot, (job, process) in list(running.items()):
                    try:
                        ended = next(process, False) is False
                    except RunError as error:
                        if not keep_going:
                            raise
                        ended, failed[job.name] = True, str(error)
                    board.update(job)
                    if ended:
                        del running[slot]
                        board.end(job, failed.get(job.name) or latest_result(job) or "done")
                        if job.name in incomplete and job.name not in failed:
                            on_end(job.name)
                time.sleep(0.3)
        finally:
            for _, process in running.values():
                process.close()  # type: ignore[attr-defined]
    return failed


def run_commands(job: Job, environment: Mapping[str, str]) -> Iterator[None]:
    """Generator that runs the job's commands in order; closing it ends the command that is running.

    Waits as long as another process works in the run directory.

    Raises:
        RunError: a command failed; the message has the last line that it printed, and the log.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    while RunDir(job.run).busy:  # a run whose study was killed saves its state before it ends
        yield
    job.remove_if_unstarted()
    for command in job.commands():
        with job.log.open("a") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
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
            raise RunError(
                f"{job.name}: `{' '.join(command[1:])}` failed: {last} (its whole output: {job.log})"
            )


def latest_result(job: Job) -> str:
    """Return the latest validation accuracy or training loss of a run, whichever is newer; empty if it has none."""
    for record in reversed(RunDir(job.run).metrics()):
        if record["kind"] == "validation":
            return f"validation clip_top1 {record['clip_top1']:.1f} %"
        if record["kind"] == "train":
            return f"loss {record['loss']:.2f}"
    return ""


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Print the title of a phase of a study, and at its end the seconds that it took."""
    start = time.perf_counter()
    ERR.print(f"[bold]{title}")
    yield
    ERR.print(f"   {time.perf_counter() - start:.0f} s")

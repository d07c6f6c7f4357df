"""Training runs in their own processes: failures by name, directories at work, torchrun."""

import sys

import pytest

from nlnet.apps.jobs import Job, run_commands, run_jobs
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import RunError


def test_keep_going_runs_the_other_jobs_after_a_failure(tmp_path, monkeypatch):
    """`keep_going` returns the reason by name; without it the first failure ends the work."""

    def commands(job: Job) -> list[list[str]]:
        code = "raise SystemExit('no luck')" if job.name == "bad" else f"open({str(job.run)!r}, 'w')"
        return [[sys.executable, "-c", code]]

    monkeypatch.setattr(Job, "commands", commands)
    jobs = [Job(name, "demo_local", tmp_path / name, (), tests=False) for name in ("bad", "good")]
    failed = run_jobs(jobs, at_once=1, keep_going=True)
    assert list(failed) == ["bad"]
    assert "no luck" in failed["bad"]
    assert (tmp_path / "good").exists()
    with pytest.raises(RunError, match="bad: .* failed: no luck"):
        run_jobs(jobs, at_once=2)


def test_a_locked_directory_is_waited_for(tmp_path, monkeypatch):
    """Nothing starts, and nothing is removed, while another process holds the run."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (run.path / "config.json").write_text("{}")
    monkeypatch.setattr(Job, "commands", lambda job: [])
    job = Job("x", "demo_local", run.path, (), tests=False)
    with run.lock():
        alive = run_commands(job, {})
        next(alive)
        next(alive)
        assert run.exists
    assert list(alive) == []
    assert not run.exists, "a run without checkpoint, removed once no process holds it"


def test_several_processes_run_under_torchrun(tmp_path):
    job = Job("x", "demo_local", tmp_path / "x", ("a.b=1",), tests=True, device="cuda", processes=4)
    train, test = job.commands()
    assert train[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m"]
    assert train[6:8] == ["nlnet", "train"]
    assert train[-3:] == ["a.b=1", "--device", "cuda"]
    assert test[6:9] == ["nlnet", "test", str(job.run)]

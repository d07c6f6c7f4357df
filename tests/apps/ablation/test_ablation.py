"""A study of two rows from end to end: whole, stopped and killed, with a failed run, and published."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nlnet.apps.ablation import command as ablations
from nlnet.apps.ablation.command import command_of, run_ablations
from nlnet.apps.ablation.plan import make_plan
from nlnet.apps.ablation.report import publish_results, report, without_measurements
from nlnet.apps.ablation.results import Session, read_outcome, read_sessions, runs_by_provenance
from nlnet.apps.ablation.rows import net
from nlnet.apps.ablation.study import DataSet, Row, Study, Table
from nlnet.apps.cli.commands import app
from nlnet.apps.jobs import run_jobs
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import DiagnosticSpec
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import EvaluationError

HERE = Path(__file__).parent
TOY_DATA = {
    "toy": DataSet(
        spec=DiagnosticSpec(height=36, width=36, frames=15, tile=12, visible=3, jitter=0),
        frames=4,
        stride=4,
    )
}
TOY = Study(
    data=TOY_DATA,
    videos={"train": 12, "val": 10, "test": 60},
    stills=44,
    stills_spec=TOY_DATA["toy"].spec,
    stills_iterations=2,
    stills_batch=8,
    iterations=4,
    batch=4,
    warmup=1,
    validate_every=2,
    precise_norm=1,
)
TWO_ROWS = {
    "2a": Table(
        title="Two rows",
        rows=(
            Row(name="baseline", model=net("c2d_mini"), data="toy", paper="C2D baseline"),
            Row(
                name="dot product",
                model=net("c2d_mini_nl1", {"pairwise": "dot_product"}),
                data="toy",
                paper="dot-product",
            ),
        ),
    )
}


def here(command: list[str]) -> None:
    """A command of the study in this process: starting Python is most of its time."""
    assert command[1:3] == ["-m", "nlnet"]
    app(command[3:], standalone_mode=False)


def in_this_process(jobs, *, on_end=lambda name: None, **options) -> dict[str, str]:
    for job in jobs:
        job.remove_if_unstarted()
        commands = job.commands()
        for command in commands:
            here(command)
        if commands:
            on_end(job.name)
    return {}


def outside(jobs, name: str, **options) -> dict[str, str]:
    """The job of that name by `run_jobs`, the others in this process."""
    in_this_process([job for job in jobs if job.name != name])
    return run_jobs([job for job in jobs if job.name == name], **options)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the study's own processes have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study that nothing stopped."""
    out = tmp_path_factory.mktemp("study") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, "run_jobs", in_this_process)
        patch.setattr(ablations, "write_videos", write_dataset)  # one process
        assert run_toy(out) == 0
    return out


def run_toy(out: Path) -> int:
    return run_ablations(
        ["2a"],
        out=out,
        seeds=1,
        jobs=2,
        device="cpu",
        dry_run=False,
        as_json=True,
        publish=None,
        study=TOY,
        tables=TWO_ROWS,
    )


def test_a_two_row_table_end_to_end(whole):
    """Every number of the table again, from the runs' own files."""
    result = json.loads((whole / "ablations.json").read_text())
    plan = make_plan(TWO_ROWS, TOY, whole, seeds=1, device="cpu")
    baseline, ours = result["tables"]["2a"]["rows"]
    assert (baseline["paper"], ours["paper"]) == ([71.8, 89.7], [72.9, 90.3])
    for row, job in zip((baseline, ours), plan.runs.values(), strict=True):
        summary = json.loads((job.run / "test" / "summary.json").read_text())
        assert row["accuracy"]["value"] == pytest.approx(summary["metrics"]["video_top1"], abs=1e-3)
        assert sum(b["videos"] for b in row["reach"]["space"]) == 60
    assert ours["macs"] > baseline["macs"]
    assert baseline["blocks"] == {}
    last = [r for r in RunDir(job.run).metrics() if r["kind"] == "block_stats"][-1]
    assert ours["blocks"] == {last["block"]: {key: last[key] for key in ("gamma", "ratio", "entropy")}}
    assert (whole / "ablations" / "2a-blocks.png").read_bytes().startswith(b"\x89PNG")
    assert result["failed"] == {}
    verdicts = {claim["statement"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["Every instantiation improves on the baseline."] == "not run"
    text = (whole / "ablations.md").read_text()
    assert "| dot product | 72.9 |" in text
    assert "(ablations/2a.png)" in text
    assert (whole / "ablations" / "2a.png").read_bytes().startswith(b"\x89PNG")


def test_stopped_at_any_moment_and_started_again_it_ends_the_same(whole, monkeypatch):
    """One run killed between two checkpoints, one before its first; the first goes on in processes of its own."""
    out = whole.parent / "stopped"
    shutil.copytree(
        whole / "data", out / "data"
    )  # written by the same code; the paths differ, the files do not
    plan = make_plan(TWO_ROWS, TOY, out, seeds=1, device="cpu")
    plan.write_configs()
    first, second = plan.runs.values()
    monkeypatch.setattr(ablations, "run_jobs", lambda jobs, **rest: outside(jobs, first.name, **rest))
    in_this_process(plan.stills.values())
    here([*first.commands()[0], "--until", "3"])
    with (first.run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "iteration": 4, "loss": 0.1}\n{"kind": "tra')  # killed while it wrote
    second.run.mkdir(parents=True)
    (second.run / "config.json").write_text((whole / "runs" / second.name / "config.json").read_text())
    assert run_toy(out) == 0
    assert first.commands() == second.commands() == []
    result = json.loads((out / "ablations.json").read_text())
    expected = json.loads((whole / "ablations.json").read_text())
    assert without_measurements(result) == without_measurements(expected)
    for job in (first, second):
        weights, same = (
            load_file(folder / "runs" / job.name / "checkpoints" / "last.safetensors")
            for folder in (whole, out)
        )
        assert all(torch.equal(weights[key], same[key]) for key in weights | same)


def alive(out: Path) -> list[int]:
    """Processes of runs under `out`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if str(out / "runs").encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal on a parent's death is Linux's")
def test_killed_without_warning_it_leaves_nothing_running_and_ends_the_same(whole, monkeypatch):
    """A real study in a process of its own, SIGKILL while its first run trains, then the same command again, here."""
    out = whole.parent / "killed"
    shutil.copytree(whole / "data", out / "data")
    shutil.copytree(whole / "stills", out / "stills")
    plan = make_plan(TWO_ROWS, TOY, out, seeds=1, device="cpu")
    first = next(iter(plan.runs.values()))
    code = f"from pathlib import Path; from test_ablation import run_toy; run_toy(Path({str(out)!r}))"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    study = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (first.run / "config.json").exists())
    study.kill()
    study.wait()
    wait_for(lambda: not alive(out))
    assert first.iterations_done() < first.total, "the run trained on to its end without the study"
    assert not (out / "ablations.json").exists()
    monkeypatch.setattr(ablations, "run_jobs", in_this_process)
    assert run_toy(out) == 0
    result = json.loads((out / "ablations.json").read_text())
    assert without_measurements(result) == without_measurements(
        json.loads((whole / "ablations.json").read_text())
    )
    made = result["measured"]["runs_made_by"]
    assert [maker["runs"] for maker in made] == [2]
    assert made[0]["provenance"]["commit"]


def test_sessions_say_which_commit_made_which_runs(tmp_path):
    """Two commits, and a run that no session lists."""
    one, two = {"commit": "1"}, {"commit": "2"}
    sessions = [
        {"provenance": one, "runs": ["a", "b"]},
        {"provenance": two, "runs": ["c"]},
        {"provenance": one, "runs": ["d"]},
    ]
    assert runs_by_provenance(sessions, ["a", "b", "c", "d", "e"]) == [
        {"provenance": one, "runs": 3},
        {"provenance": two, "runs": 1},
        {"provenance": None, "runs": 1},
    ]
    assert runs_by_provenance(sessions, ["c"]) == [{"provenance": two, "runs": 1}]
    first = Session(tmp_path, "nlnet ablate 2a --seeds 1")
    first.save()
    assert read_sessions(tmp_path) == [], "a session without runs is not recorded"
    first.add_run("a")
    Session(tmp_path, "again").add_run("b")
    assert [(s["command"], s["runs"]) for s in read_sessions(tmp_path)] == [
        ("nlnet ablate 2a --seeds 1", ["a"]),
        ("again", ["b"]),
    ]


def test_sessions_of_older_studies_are_read(tmp_path):
    """They call the provenance a passport; a new session is added under the new name."""
    old = {
        "command": "nlnet ablate 2a",
        "passport": {"commit": "1"},
        "started": "",
        "seconds": 2.0,
        "runs": ["a"],
    }
    (tmp_path / "sessions.json").write_text(json.dumps([old]))
    Session(tmp_path, "again").add_run("b")
    first, second = read_sessions(tmp_path)
    assert first == {"command": "nlnet ablate 2a", "provenance": {"commit": "1"}} | {
        key: old[key] for key in ("started", "seconds", "runs")
    }
    assert runs_by_provenance([first, second], ["a"]) == [{"provenance": {"commit": "1"}, "runs": 1}]
    assert "passport" not in (tmp_path / "sessions.json").read_text()


def test_provenance_is_no_result_under_either_name():
    assert without_measurements([{"passport": 1, "a": 2}, {"provenance": 1, "measured": 3}]) == [{"a": 2}, {}]


def test_the_command_is_what_was_typed():
    assert command_of(["all"], seeds=2, jobs=None, device="cpu") == "nlnet ablate all --seeds 2"
    assert command_of(["2a", "2c"], seeds=1, jobs=4, device="cuda") == (
        "nlnet ablate 2a 2c --seeds 1 --jobs 4 --device cuda"
    )


def test_a_failed_run_is_named_and_the_rest_is_reported(whole):
    plan = make_plan(TWO_ROWS, TOY, whole, seeds=1, device="cpu")
    lost = list(plan.runs.values())[1].name
    copy = whole.parent / "failed"
    shutil.copytree(whole, copy)
    moved = make_plan(TWO_ROWS, TOY, copy, seeds=1, device="cpu")
    result = report(moved, failed={lost: "the loss is nan"}, command="nlnet ablate 2a")
    assert [row["name"] for row in result["tables"]["2a"]["rows"]] == ["baseline"]
    assert result["tables"]["2a"]["without_result"] == ["dot product"]
    assert f"- {lost}: the loss is nan" in (copy / "ablations.md").read_text()


def test_publishing_copies_page_json_and_pictures(whole, tmp_path):
    old = tmp_path / "docs" / "ablations" / "2a-vitals.png"
    old.parent.mkdir(parents=True)
    old.write_text("the block statistics of an older version")
    publish_results(whole, tmp_path / "docs")
    for name in ("ablations.md", "ablations.json", "ablations/2a.png"):
        assert (tmp_path / "docs" / name).read_bytes() == (whole / name).read_bytes()
    assert not old.exists()


def test_unreadable_test_videos_are_errors(whole, monkeypatch):
    plan = make_plan(TWO_ROWS, TOY, whole, seeds=1, device="cpu")
    (run, _) = (job.run for job in plan.runs.values())

    class Damaged:
        class evaluation:
            failures = ("x",)

    monkeypatch.setattr("nlnet.apps.ablation.results.read_scores", lambda run: Damaged)
    with pytest.raises(
        EvaluationError, match="1 test videos could not be read; remove .*test and the data set"
    ):
        read_outcome([run], TOY_DATA["toy"].spec)


def test_the_plan_counts_what_is_left(whole, capsys):
    options = {"out": whole, "seeds": 2, "jobs": 2, "device": "cpu", "publish": None}
    run_ablations(["all"], dry_run=True, as_json=True, study=TOY, tables=TWO_ROWS, **options)
    result = json.loads(capsys.readouterr().out)
    assert (result["runs"], result["done"]) == (4, 2)
    assert 0 < result["minutes"] < 5
    run_ablations(["2a"], dry_run=True, as_json=False, study=TOY, tables=TWO_ROWS, **options)
    assert "all tables" in capsys.readouterr().out


def test_each_gpu_runs_its_own_jobs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in ablations.job_environments("cuda")] == ["0", "1", "2"]
    assert ablations.job_environments("cpu") == [{"OMP_NUM_THREADS": "1"}]

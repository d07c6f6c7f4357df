"""The demo at toy size: jobs and their commands, failures by name, the report and its pictures."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from nlnet.apps.demo.command import NETWORKS, fine_tuning_jobs, stills_job
from nlnet.apps.demo.report import report
from nlnet.apps.jobs import Job, run_jobs
from nlnet.apps.recipes.catalogue import DEMO_SPEC, RECIPES
from nlnet.apps.verbs.test import run_test
from nlnet.data.diagnostic.files import write_dataset
from nlnet.engine.config import override
from nlnet.engine.distributed import world
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.train import train
from nlnet.errors import RunError


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[Job]]:
    """Every run of a demo, two iterations long, on a few videos."""
    out = tmp_path_factory.mktemp("demo")
    write_dataset(DEMO_SPEC, out / "data", {"train": 20, "val": 10, "test": 10, "stills": 22})
    jobs = [stills_job(out, out / "data"), *fine_tuning_jobs(out, out / "data", seeds=2)]
    short = (
        "schedule.iterations=2",
        "schedule.warmup=0",
        "training.batch=4",
        "training.precise_norm=0",
        "training.log_every=1",
    )
    with world("cpu") as here:
        for job in jobs:
            train(override(RECIPES[job.recipe](), [*job.overrides, *short]), RunDir(job.run), here)
            if job.tests:
                run_test(
                    job.run,
                    ["test.clips=1", "test.crops=1"],
                    data=None,
                    checkpoint="last",
                    device="cpu",
                    as_json=True,
                )
    return out, jobs[1:]


def test_the_report_has_every_network_and_its_pictures(finished):
    out, jobs = finished
    result = report(out, jobs, seconds=1.0)
    assert [n["network"] for n in result["networks"]] == list(NETWORKS)
    local, control, ours = result["networks"]
    assert control["parameters"] == pytest.approx(ours["parameters"], rel=0.01)
    assert local["parameters"] < control["parameters"]
    assert all(len(n["video_top1"]) == 2 for n in result["networks"])
    assert json.loads((out / "report.json").read_text()) == result
    path = re.search(r"\((.*)\)", result["yardsticks"][1]).group(1)
    assert (Path(__file__).parents[3] / path).is_file()
    attention = result["attention"]
    assert attention["videos"] == 10
    assert len(attention["trained"]) == 2
    assert all(0 < share < 1 for share in (*attention["trained"], attention["before_training"]))
    assert 1 / 16 <= attention["uniform"] <= 2 / 16
    assert (out / attention["picture"]["video"]).exists()
    text = (out / "report.md").read_text()
    assert "C2D + non-local block" in text
    assert f"nlnet attend nonlocal-0 {attention['picture']['video']}" in text
    assert "attention from the cue to the digit of its colour" in text
    for name in ("curves.png", "attention.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert name in text


def test_a_win_is_a_win_on_every_seed(finished):
    """Recomputed from the tests' own files."""
    out, jobs = finished
    scores = {
        j.name: json.loads((j.run / "test" / "summary.json").read_text())["metrics"]["video_top1"]
        for j in jobs
    }
    wins = all(scores[f"nonlocal-{s}"] > max(scores[f"local-{s}"], scores[f"control-{s}"]) for s in (0, 1))
    assert report(out, jobs, seconds=1.0)["nonlocal_wins_on_every_seed"] == wins


def test_jobs_share_everything_but_the_network(tmp_path):
    jobs = fine_tuning_jobs(tmp_path, tmp_path / "data", seeds=2)
    assert [j.name for j in jobs[:3]] == ["local-0", "control-0", "nonlocal-0"]
    configs = [RECIPES[j.recipe]() for j in jobs[:3]]
    for section in ("data", "optimizer", "schedule", "training", "test"):
        assert len({getattr(c, section).model_dump_json() for c in configs}) == 1
    assert {c.model.name for c in configs} == {"c2d_mini", "c2d_mini_rb1", "c2d_mini_nl1"}


def test_commands_that_are_left(finished, tmp_path):
    _, jobs = finished
    fresh = Job("x", "demo_local", tmp_path / "x", ("a=b",), tests=True)
    train_it, test_it = fresh.commands()
    assert train_it[:5] == [sys.executable, "-m", "nlnet", "train", "demo_local"]
    assert test_it[3:5] == ["test", str(fresh.run)]
    assert [c[3:5] for c in jobs[0].commands()] == [
        ["train", "--resume"]
    ]  # two of the recipe's iterations are done


def test_a_failing_run_is_named_with_its_last_line(tmp_path):
    job = Job("local-0", "demo_local", tmp_path / "local-0", ("data.train=/no/such",), tests=False)
    with pytest.raises(
        RunError, match=r"local-0: .*nlnet train demo_local.* failed: .*/no/such does not exist"
    ):
        run_jobs([job], at_once=1)
    assert not os.path.exists(job.run)

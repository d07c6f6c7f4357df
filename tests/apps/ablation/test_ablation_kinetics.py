"""The paper's own rows at full size: their runs, what has to be given, and their cost."""

import json
from pathlib import Path

import pytest

from nlnet.apps.ablation.command import run_study
from nlnet.apps.ablation.kinetics import (
    collect,
    for_depth,
    missing_settings,
    page,
    plan_kinetics,
    without_start,
)
from nlnet.apps.recipes.published import TABLES as PAPER


def test_the_papers_rows_at_full_size(tmp_path):
    """Shared recipes once; long clips after, and from, the rows that they start from; depths are told apart."""
    rows = [*PAPER["2e"], *PAPER["2g"][:3]]
    words = ["data.train=a", "data.test=b", "r50:init.weights=r50.pth", "r101:init.weights=r101.pth"]
    runs = plan_kinetics(rows, words, out=tmp_path, seeds=1, device="cpu")
    assert missing_settings(runs) == []
    assert runs["c2d_r101_32x2", 0].config.init.weights == Path("r101.pth")
    long, start = runs["i3d_r50_nl5_128x1", 0], runs["i3d_r50_32x2", 0]
    assert long.config.init.weights == start.job.run
    assert start.config.init.weights == Path("r50.pth")
    assert (start.from_imagenet, long.from_imagenet) == (True, False)
    assert missing_settings(plan_kinetics(rows, words[1:], out=tmp_path, seeds=1, device="cpu")) == [
        "data.train"
    ]
    reason = without_start(list(runs.values()), {start.job.name: "no memory"})
    assert reason == {long.job.name: f"it starts from {start.job.name}, which failed"} | {
        run.job.name: f"it starts from {start.job.name}, which failed"
        for run in runs.values()
        if run.config.init.weights == start.job.run
    }
    assert without_start(list(runs.values()), {}) == {}
    for run in runs.values():
        (run.job.run / "test").mkdir(parents=True)
        (run.job.run / "test" / "summary.json").write_text(
            '{"metrics": {"video_top1": 70.04, "video_top5": 90.0}}'
        )
    result = collect(rows, runs, {runs["i3d_r101_32x2", 0].job.name: "no memory"})
    assert "| 2e | I3D 3×3×3 | 74.1 / 91.2 | 70.0 | 90.0 |" in page(result)
    assert "| 2e | I3D 3×1×1 | 74.4 / 91.1 | – | – |" in page(result)


def test_assignments_for_one_depth():
    words = ["a.b=c:d", "r50:x.y=1", "r101:x.y=2"]
    assert for_depth(words, "r50") == ["a.b=c:d", "x.y=1"]
    assert for_depth(words, "r101") == ["a.b=c:d", "x.y=2"]


def test_the_cost_of_the_papers_rows(tmp_path, capsys):
    options = {"recipe": "kinetics", "device": "cpu", "dry_run": True, "publish": None, "as_json": True}
    assert run_study(["2a"], out=tmp_path, seeds=1, jobs=1, **options) == 0
    rows = {row["row"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["C2D baseline"]["clips"] == 400_000 * 64
    # at 224 pixels, test_zoo
    assert rows["C2D baseline"]["macs"] == pytest.approx(20.23e9, rel=1e-3)
    assert not any(tmp_path.iterdir())

"""The ablation study: rows as data, intervals and verdicts, and a two-row table end to end, stopped and not."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from nlnet.apps.ablation import command as ablations
from nlnet.apps.ablation.claims import CLAIMS, Claim, Part
from nlnet.apps.ablation.command import chosen, command_of, run_ablations, run_study
from nlnet.apps.ablation.kinetics import collect, for_depth, needs, page, plan_kinetics, stranded
from nlnet.apps.ablation.plan import identity, make_plan
from nlnet.apps.ablation.report import publish_results, report, without_measurements
from nlnet.apps.ablation.results import Distances, Outcome, distances, reach, read_outcome
from nlnet.apps.ablation.rows import TABLES, net, published
from nlnet.apps.ablation.sessions import Session, makers, read_sessions
from nlnet.apps.ablation.statistics import (
    Interval,
    above,
    accuracy,
    alike,
    below,
    better,
    difference,
    drop,
    no_gain,
    together,
    wilson,
)
from nlnet.apps.ablation.study import DATA, DataSet, Row, Study, Table
from nlnet.apps.ablation.verdicts import judge, thirds
from nlnet.apps.cli.main import app
from nlnet.apps.jobs import Job, steps, work
from nlnet.apps.recipes.costs import NetworkCost
from nlnet.apps.recipes.published import TABLES as PAPER
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import DiagnosticSpec, make_clip
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import ConfigError, RunError
from nlnet.models.memory import Memory

# --- intervals -----------------------------------------------------------------------------------------------------

HERE = Path(__file__).parent


def test_wilson_is_the_published_formula():
    """Wilson (1927) for 8 of 10: 0.490 to 0.943 (Newcombe 1998, and any statistics table)."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # z²/(n + z²)
    with pytest.raises(ValueError, match="at least one video"):
        wilson(0, 0)


@given(right=st.integers(0, 300), more=st.integers(0, 300))
def test_wilson_solves_its_equation(right, more):
    """Its ends are where |p − q| = z √(q(1 − q)/n); it mirrors under p → 1 − p and stays inside [0, 1]."""
    count = right + more
    if count == 0:
        return
    low, high = wilson(right, count)
    p = right / count
    assert 0 <= low <= p <= high <= 1
    for q in (low, high):
        if 0 < q < 1:
            assert abs(p - q) == pytest.approx(1.959964 * np.sqrt(q * (1 - q) / count), abs=1e-6)
    mirrored = wilson(more, count)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_accuracy_is_the_mean_over_seeds_with_the_interval_of_one_test_set():
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    value = accuracy(correct)
    assert (value.value, value.seeds) == (62.5, (75.0, 50.0))
    assert (value.low, value.high) == pytest.approx([100 * v for v in wilson(2.5, 4)])


@given(seed=st.integers(0, 2**16), seeds=st.integers(1, 3), videos=st.integers(2, 40))
def test_differences_are_paired_by_video(seed, seeds, videos):
    """sd of the videos' differences by hand; a network does not differ from itself; swapping turns the sign."""
    rng = np.random.default_rng(seed)
    one, two = rng.random((2, seeds, videos)) < 0.6
    d = [sum(int(one[s, v]) - int(two[s, v]) for s in range(seeds)) / seeds for v in range(videos)]
    mean = sum(d) / videos
    sd = (sum((x - mean) ** 2 for x in d) / (videos - 1)) ** 0.5
    found = difference(one, two)
    assert found.value == pytest.approx(100 * mean)
    assert found.high - found.value == pytest.approx(100 * 1.959964 * sd / videos**0.5, abs=1e-4)
    assert difference(one, one) == Interval(0.0, 0.0, 0.0, (0.0,) * seeds)
    back = difference(two, one)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_drop_adds_the_variances_of_two_sets():
    near, far = np.array([[1, 1, 1, 0]], dtype=bool), np.array([[1, 0]], dtype=bool)
    error = (0.25 / 4 + 0.5 / 2) ** 0.5  # sample variances 0.25 and 0.5
    found = drop(near, far)
    assert found.value == pytest.approx(25.0)
    assert found.high == pytest.approx(25 + 100 * 1.959964 * error, abs=1e-3)


@pytest.mark.parametrize(
    ("rule", "interval", "verdict"),
    [
        (better, Interval(5, 1, 9, (4, 6)), "shown"),
        (better, Interval(5, 1, 11, (-1, 11)), "not shown"),  # a seed disagrees
        (better, Interval(2, -1, 5, (1, 3)), "not shown"),
        (better, Interval(-5, -9, -1, (-4, -6)), "contradicted"),
        (alike, Interval(1, -2, 2.9, (1, 1)), "shown"),
        (alike, Interval(1, -2, 4, (1, 1)), "not shown"),
        (
            alike,
            Interval(0.1, -2.5, 2.7, (38.5, -38.3)),
            "not shown",
        ),  # seeds far apart, whose mean is near 0
        (alike, Interval(8, 6, 10, (8, 8)), "contradicted"),
        (alike, Interval(-8, -10, -6, (-8, -8)), "contradicted"),
        (alike, Interval(8, 6, 10, (1, 15)), "not shown"),
        (no_gain, Interval(-9, -12, -5, (-9, -9)), "shown"),
        (no_gain, Interval(1, -2, 4, (1, 1)), "not shown"),
        (no_gain, Interval(0.1, -2.5, 2.7, (38.5, -38.3)), "not shown"),
        (no_gain, Interval(9, 5, 12, (9, 9)), "contradicted"),
        (no_gain, Interval(9, 5, 12, (1, 17)), "not shown"),
    ],
)
def test_verdicts(rule, interval, verdict):
    assert rule(interval) == verdict


def test_levels_and_their_opposites():
    high, low, split = (
        Interval(90, 88, 92, (89, 91)),
        Interval(50, 47, 53, (49, 51)),
        Interval(80, 77, 83, (70, 90)),
    )
    assert [above(i, 75) for i in (high, low, split)] == ["shown", "contradicted", "not shown"]
    assert [below(i, 75) for i in (high, low, split)] == ["contradicted", "shown", "not shown"]


def test_a_claim_is_as_good_as_its_worst_part():
    assert together(["shown", "shown"]) == "shown"
    assert together(["shown", "not shown"]) == "not shown"
    assert together(["not shown", "contradicted"]) == "contradicted"
    assert together(["contradicted", "not run"]) == "not run"


# --- distances and claims ------------------------------------------------------------------------------------------


def outcome(correct, space=None, time=None, macs=1) -> Outcome:
    correct = np.array(correct, dtype=bool)
    videos = correct.shape[1]
    return Outcome(
        correct=correct,
        distances=Distances(
            space=np.zeros(videos) if space is None else np.array(space, float),
            time=np.zeros(videos) if time is None else np.array(time, float),
        ),
        cost=NetworkCost(
            parameters=1, blocks=0, macs=macs, eval_macs=1, memory=Memory(kept=1, checkpointed=1)
        ),
        seconds=1.0,
    )


@pytest.mark.parametrize("task", ["space", "time", "spacetime"])
def test_distances_are_from_the_cue_to_the_digit_of_its_colour(task):
    """By the definition, from the items; what a task does not separate has distance 0."""
    spec = DATA[task].spec
    found = distances(spec, tuple(range(12)))
    for index in range(12):
        clip = make_clip(spec, "test", index)
        cue = clip.items[2]
        digit = next(item for item in clip.items[:2] if item.color == cue.color)
        assert digit.digit == clip.label
        assert found.space[index] == ((cue.top - digit.top) ** 2 + (cue.left - digit.left) ** 2) ** 0.5
        gaps = [abs(f - g) for f in cue.frames for g in digit.frames]
        assert found.time[index] == min(gaps)
    assert (found.space == 0).all() == (task == "time")
    assert (found.time == 0).all() == (task == "space")


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(1, 40))
def test_bins_hold_every_video_once(time, least):
    """In rising order, equal distances together, none smaller than `least`; too few videos give no bin."""
    correct = np.arange(len(time))[None] % 3 == 0
    bins = reach(outcome(correct, time=time), "time", least=least)
    if len(time) < least:
        assert bins == []
        return
    assert sum(b.videos for b in bins) == len(time)
    assert all(b.videos >= least for b in bins)
    assert all(one.high < two.low for one, two in zip(bins, bins[1:], strict=False))
    right = sum(round(b.accuracy.value / 100 * b.videos) for b in bins)
    assert right == correct.sum()


def test_thirds_are_the_near_and_the_far():
    near, far = thirds(np.arange(9))
    assert list(np.flatnonzero(near)) == [0, 1, 2]
    assert list(np.flatnonzero(far)) == [6, 7, 8]
    for few in ([3, 3, 3, 9], [3, 9, 9, 9], [3, 3, 9, 9]):
        near, far = thirds(np.array(few))
        assert list(near) == [d == 3 for d in few]
        assert list(far) == [d == 9 for d in few]
    with pytest.raises(ValueError, match="expected distances that differ, got 3 for every video"):
        thirds(np.full(5, 3))


def test_a_claim_is_judged_on_its_rows():
    videos = 200
    good, bad = np.ones((2, videos), bool), np.tile(np.arange(videos) % 2 == 0, (2, 1))
    time = np.arange(videos)
    falling = np.tile(time < 100, (2, 1))
    outcomes = {
        "nl": outcome(good, time=time, macs=1),
        "local": outcome(bad, time=time, macs=2),
        "conv": outcome(falling, time=time),
    }

    def verdict(*parts: Part) -> str:
        return judge(Claim(table="2a", statement="", source="", parts=parts), outcomes)[0]

    assert verdict(Part("better", "nl", "local")) == "shown"
    assert verdict(Part("better", "local", "nl")) == "contradicted"
    assert verdict(Part("no gain", "local", "nl")) == "shown"
    assert verdict(Part("alike", "local", "nl")) == "contradicted"
    assert verdict(Part("related", "nl"), Part("unrelated", "local")) == "shown"
    assert verdict(Part("falls", "conv"), Part("flat", "nl")) == "shown"
    assert verdict(Part("flat", "conv")) == "contradicted"
    assert verdict(Part("loses", "nl", "conv"), Part("keeps", "local", "nl")) == "shown"
    assert verdict(Part("keeps", "nl", "local")) == "contradicted"
    assert verdict(Part("loses", "local", "nl")) == "contradicted"
    assert verdict(Part("cheaper", "nl", "local")) == "shown"
    assert verdict(Part("cheaper", "local", "nl")) == "contradicted"
    assert verdict(Part("better", "nl", "absent")) == "not run"
    assert "absent did not run" in judge(CLAIMS[0], {})[1][0].text.replace("Gaussian and baseline", "absent")


# --- rows as data --------------------------------------------------------------------------------------------------


def test_claims_speak_of_rows_that_exist():
    for claim in CLAIMS:
        names = {row.name for row in TABLES[claim.table].rows}
        for part in claim.parts:
            assert {part.ours, part.other or part.ours} <= names, (claim.statement, part)
    assert {claim.table for claim in CLAIMS} == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_baseline_a_control_and_no_name_twice(name):
    rows = TABLES[name].rows
    assert len({row.name for row in rows}) == len(rows)
    assert any("_rb" in row.model.name for row in rows)
    assert any(
        row.model.name.startswith(("c2d_mini20", "c2d_mini38")) and "_" not in row.model.name[4:]
        for row in rows
    )


def test_every_row_of_the_papers_tables_at_one_depth_is_there_with_its_figures():
    """2c has both depths; the other tables one, which is R50 except in 2e."""
    for name in ("2a", "2b", "2c", "2d", "2e", "2f", "2g"):
        quoted = {row.paper for row in TABLES[name].rows if row.paper}
        there = {row.row for row in PAPER[name] if name in ("2c",) or not row.row.startswith("R101")}
        assert quoted == there
    assert published("2a", TABLES["2a"]["dot product"]) == (72.9, 90.3)
    assert published("2a", TABLES["2a"]["residual block (control)"]) is None


def test_rows_are_trained_once_however_many_tables_they_are_in(tmp_path):
    plan = make_plan(TABLES, Study(), tmp_path, seeds=2, device="cpu")
    rows = sum(len(table.rows) for table in TABLES.values())
    assert len(plan.runs) == 2 * len({(r.model, r.data) for t in TABLES.values() for r in t.rows}) < 2 * rows
    assert len({job.run for job in plan.runs.values()}) == len(plan.runs)
    assert not any(tmp_path.iterdir()), "a plan writes nothing"


def test_all_rows_share_the_recipe(tmp_path):
    """Network, data set and seed are all that differ."""
    plan = make_plan(TABLES, Study(), tmp_path, seeds=1, device="cpu")
    configs = [plan.configs[job.name] for job in plan.runs.values()]
    for section in ("optimizer", "schedule", "training"):
        assert len({getattr(config, section).model_dump_json() for config in configs}) == 1


def test_a_run_is_named_by_all_that_it_depends_on(monkeypatch):
    row, study = TABLES["2a"]["embedded Gaussian"], Study()
    spec = replace(study.data["spacetime"].spec, noise=0.05)
    others = [
        identity(TABLES["2a"]["dot product"], study),
        identity(replace(row, data="space"), study),
        identity(row, replace(study, iterations=501)),
        identity(row, replace(study, videos=dict(study.videos) | {"train": 4999})),
        identity(row, replace(study, stills=6601)),
        identity(row, replace(study, stills_iterations=1201)),
        identity(row, replace(study, data={"spacetime": replace(study.data["spacetime"], spec=spec)})),
    ]
    mine = identity(row, study)
    assert len({mine, *others}) == len(others) + 1
    assert identity(replace(row, name="another", paper=None), study) == mine
    monkeypatch.setattr("nlnet.apps.ablation.plan.MEANING", 2)
    assert identity(row, study) != mine


def test_crops_never_cut_an_item():
    for data in DATA.values():
        assert data.spec.height - data.crop <= data.spec.margin


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["2z"], {}, "no table '2z'; expected 2a"),
        (["2a"], {"recipe": "imagenet"}, "recipe: got 'imagenet', expected miniature or kinetics"),
        (["2a", "data.train=x"], {}, "settings are for --recipe kinetics"),
        (["conventions"], {"recipe": "kinetics"}, "no table 'conventions'; expected 2a"),
        (["2a"], {"recipe": "kinetics"}, "need data.test, data.train, r50:init.weights"),
        (["data.train=x"], {"recipe": "kinetics"}, "no table given"),
    ],
)
def test_wrong_requests_are_told(words, options, message, tmp_path):
    usual = {"recipe": "miniature", "device": "cpu", "dry_run": False, "as_json": True, "publish": None}
    with pytest.raises(ConfigError, match=message):
        run_study(words, out=tmp_path, seeds=1, jobs=1, **(usual | options))


def test_tables_come_in_the_papers_order():
    assert chosen(["2c", "2a"], TABLES) == ["2a", "2c"]
    assert chosen(["all"], TABLES) == list(TABLES)


# --- the paper's own rows ------------------------------------------------------------------------------------------


def test_the_papers_rows_at_full_size(tmp_path):
    """Shared recipes once; long clips after, and from, the rows that they start from; depths are told apart."""
    rows = [*PAPER["2e"], *PAPER["2g"][:3]]
    words = ["data.train=a", "data.test=b", "r50:init.weights=r50.pth", "r101:init.weights=r101.pth"]
    runs = plan_kinetics(rows, words, out=tmp_path, seeds=1, device="cpu")
    assert needs(runs) == []
    assert runs["c2d_r101_32x2", 0].config.init.weights == Path("r101.pth")
    long, start = runs["i3d_r50_nl5_128x1", 0], runs["i3d_r50_32x2", 0]
    assert long.config.init.weights == start.job.run
    assert start.config.init.weights == Path("r50.pth")
    assert (start.first, long.first) == (True, False)
    assert needs(plan_kinetics(rows, words[1:], out=tmp_path, seeds=1, device="cpu")) == ["data.train"]
    reason = stranded(list(runs.values()), {start.job.name: "no memory"})
    assert reason == {long.job.name: f"it starts from {start.job.name}, which failed"} | {
        run.job.name: f"it starts from {start.job.name}, which failed"
        for run in runs.values()
        if run.config.init.weights == start.job.run
    }
    assert stranded(list(runs.values()), {}) == {}
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


# --- end to end ----------------------------------------------------------------------------------------------------

TOY_DATA = {
    "toy": DataSet(
        what="toy",
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
        job.clear_false_start()
        commands = job.commands()
        for command in commands:
            here(command)
        if commands:
            on_end(job.name)
    return {}


def outside(jobs, name: str, **options) -> dict[str, str]:
    """The job of that name by `work`, the others in this process."""
    in_this_process([job for job in jobs if job.name != name])
    return work([job for job in jobs if job.name == name], **options)


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
        patch.setattr(ablations, "work", in_this_process)
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
    last = [r for r in RunDir(job.run).metrics() if r["kind"] == "vitals"][-1]
    assert ours["blocks"] == {last["block"]: {key: last[key] for key in ("gamma", "ratio", "entropy")}}
    assert (whole / "ablations" / "2a-vitals.png").read_bytes().startswith(b"\x89PNG")
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
    monkeypatch.setattr(ablations, "work", lambda jobs, **rest: outside(jobs, first.name, **rest))
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
    assert first.done() < first.total, "the run trained on to its end without the study"
    assert not (out / "ablations.json").exists()
    monkeypatch.setattr(ablations, "work", in_this_process)
    assert run_toy(out) == 0
    result = json.loads((out / "ablations.json").read_text())
    assert without_measurements(result) == without_measurements(
        json.loads((whole / "ablations.json").read_text())
    )
    made = result["measured"]["runs_made_by"]
    assert [maker["runs"] for maker in made] == [2]
    assert made[0]["passport"]["commit"]


def test_sessions_say_which_commit_made_which_runs(tmp_path):
    """Two commits, a run that no session knows, and a session whose runs were made again."""
    one, two = {"commit": "1"}, {"commit": "2"}
    sessions = [
        {"passport": one, "runs": ["a", "b"]},
        {"passport": two, "runs": ["c"]},
        {"passport": one, "runs": ["d"]},
    ]
    assert makers(sessions, ["a", "b", "c", "d", "e"]) == [
        {"passport": one, "runs": 3},
        {"passport": two, "runs": 1},
        {"passport": None, "runs": 1},
    ]
    assert makers(sessions, ["c"]) == [{"passport": two, "runs": 1}]
    first = Session(tmp_path, "nlnet ablate 2a --seeds 1")
    first.save()
    assert read_sessions(tmp_path) == [], "a session without runs leaves no trace"
    first.ended("a")
    Session(tmp_path, "again").ended("b")
    assert [(s["command"], s["runs"]) for s in read_sessions(tmp_path)] == [
        ("nlnet ablate 2a --seeds 1", ["a"]),
        ("again", ["b"]),
    ]


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


def test_publishing_copies_page_numbers_and_pictures(whole, tmp_path):
    publish_results(whole, tmp_path / "docs")
    for name in ("ablations.md", "ablations.json", "ablations/2a.png"):
        assert (tmp_path / "docs" / name).read_bytes() == (whole / name).read_bytes()


def test_unreadable_test_videos_are_refused(whole, monkeypatch):
    plan = make_plan(TWO_ROWS, TOY, whole, seeds=1, device="cpu")
    (run, _) = (job.run for job in plan.runs.values())

    class Damaged:
        class evaluation:
            failures = ("x",)

    monkeypatch.setattr("nlnet.apps.ablation.results.read_scores", lambda run: Damaged)
    with pytest.raises(ValueError, match="1 test videos could not be read"):
        read_outcome([run], TOY_DATA["toy"].spec)


def test_the_plan_counts_what_is_left(whole, capsys):
    options = {"out": whole, "seeds": 2, "jobs": 2, "device": "cpu", "publish": None}
    run_ablations(["all"], dry_run=True, as_json=True, study=TOY, tables=TWO_ROWS, **options)
    result = json.loads(capsys.readouterr().out)
    assert (result["runs"], result["done"]) == (4, 2)
    assert 0 < result["minutes"] < 5
    run_ablations(["2a"], dry_run=True, as_json=False, study=TOY, tables=TWO_ROWS, **options)
    assert "all together" in capsys.readouterr().out


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_others_run_on_where_one_fails(tmp_path, monkeypatch):
    """`keep_going` returns the reason by name; without it the first failure ends the work."""

    def commands(job: Job) -> list[list[str]]:
        code = "raise SystemExit('no luck')" if job.name == "bad" else f"open({str(job.run)!r}, 'w')"
        return [[sys.executable, "-c", code]]

    monkeypatch.setattr(Job, "commands", commands)
    jobs = [Job(name, "demo_local", tmp_path / name, (), tests=False) for name in ("bad", "good")]
    failed = work(jobs, at_once=1, keep_going=True)
    assert list(failed) == ["bad"]
    assert "no luck" in failed["bad"]
    assert (tmp_path / "good").exists()
    with pytest.raises(RunError, match="bad: .* failed: no luck"):
        work(jobs, at_once=2)


def test_a_directory_at_work_is_waited_for(tmp_path, monkeypatch):
    """Nothing starts, and nothing is removed, while another process holds the run."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (run.path / "config.json").write_text("{}")
    monkeypatch.setattr(Job, "commands", lambda job: [])
    job = Job("x", "demo_local", run.path, (), tests=False)
    with run.lock():
        alive = steps(job, {})
        next(alive)
        next(alive)
        assert run.exists
    assert list(alive) == []
    assert not run.exists, "a false start, removed once nobody is at work on it"


def test_several_processes_run_under_torchrun(tmp_path):
    job = Job("x", "demo_local", tmp_path / "x", ("a.b=1",), tests=True, device="cuda", processes=4)
    train, test = job.commands()
    assert train[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m"]
    assert train[6:8] == ["nlnet", "train"]
    assert train[-3:] == ["a.b=1", "--device", "cuda"]
    assert test[6:9] == ["nlnet", "test", str(job.run)]


def test_each_gpu_is_a_place_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in ablations.environments("cuda")] == ["0", "1", "2"]
    assert ablations.environments("cpu") == [{"OMP_NUM_THREADS": "1"}]

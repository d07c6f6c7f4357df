"""The tables row by row against the paper's, and the runs behind them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nlnet.apps.ablation.command import chosen_tables, run_study
from nlnet.apps.ablation.plan import identity, make_plan
from nlnet.apps.ablation.rows import TABLES, published
from nlnet.apps.ablation.study import DATA, Study
from nlnet.apps.recipes.published import TABLES as PAPER
from nlnet.errors import ConfigError


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
    monkeypatch.setattr("nlnet.apps.ablation.plan.CODE_VERSION", 2)
    assert identity(row, study) != mine


def test_the_published_study_has_the_runs_that_the_code_names():
    """Names of runs are stable: a study made before a key of the configuration was renamed goes on with its runs.

    docs/ablations.json is the output of `nlnet ablate all --seeds 2` at commit 7b84bc0.
    """
    made = json.loads((Path(__file__).parents[3] / "docs" / "ablations.json").read_text())["tables"]
    assert set(made) == set(TABLES)
    for name, table in made.items():
        runs = {row["name"]: row["run"] for row in table["rows"]}
        assert runs == {row.name: identity(row, Study()) for row in TABLES[name].rows}


def test_crops_never_cut_an_item():
    for data in DATA.values():
        assert data.spec.height - data.crop <= data.spec.margin


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (
            ["2z"],
            {},
            "there is no table '2z'; expected 2a, 2b, 2c, 2d, 2e, 2f, 2g, conventions, reach or all",
        ),
        (["2a"], {"recipe": "imagenet"}, "recipe: got 'imagenet', expected miniature or kinetics"),
        (
            ["2a", "data.train=x"],
            {},
            "'data.train=x': --recipe miniature takes no settings.*use --recipe kinetics",
        ),
        (["conventions"], {"recipe": "kinetics"}, "there is no table 'conventions'; expected 2a"),
        (
            ["2a"],
            {"recipe": "kinetics"},
            "settings are missing: data.test, data.train, r50:init.weights; give each as key=value",
        ),
        (["data.train=x"], {"recipe": "kinetics"}, "no table was given; expected 2a"),
    ],
)
def test_wrong_requests_are_errors(words, options, message, tmp_path):
    usual = {"recipe": "miniature", "device": "cpu", "dry_run": False, "as_json": True, "publish": None}
    with pytest.raises(ConfigError, match=message):
        run_study(words, out=tmp_path, seeds=1, jobs=1, **(usual | options))


def test_tables_come_in_the_papers_order():
    assert chosen_tables(["2c", "2a"], TABLES) == ["2a", "2c"]
    assert chosen_tables(["all"], TABLES) == list(TABLES)

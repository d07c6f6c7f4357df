"""The recipes against the release's yaml files and scripts and the paper's tables, written out by hand."""

import re
from pathlib import Path

import pytest
import torch

from nlnet.apps.recipes.catalogue import RECIPES, recipe_or_file
from nlnet.apps.recipes.kinetics import KINETICS, VIDEOS
from nlnet.apps.recipes.published import METRICS, TABLES, published
from nlnet.engine.config.inputs import sampling
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.flops import ShapesOnly
from nlnet.zoo import create_model

# The release's fifteen, row by row from its yaml files and scripts: model, (frames, stride), devices, batch, rate,
# where the rate falls, iterations, epochs of 234,643 videos to a decimal
SHORT = (8, 64, 0.01, (150_000, 300_000), 400_000, 109.1)
LONG = (8, 16, 0.0025, (150_000, 300_000), 400_000, 27.3)
ZOO = {
    "run_c2d_baseline_400k_32f": ("c2d_r50", (32, 2), *SHORT),
    "run_c2d_nlnet_400k_32f": ("c2d_r50_nl5", (32, 2), *SHORT),
    "run_i3d_baseline_400k_32f": ("i3d_r50", (32, 2), *SHORT),
    "run_i3d_nlnet_400k_32f": ("i3d_r50_nl5", (32, 2), *SHORT),
    "run_i3d_baseline_affine_400k_128f": ("i3d_r50", (128, 1), *LONG),
    "run_i3d_nlnet_affine_400k_128f": ("i3d_r50_nl5", (128, 1), *LONG),
    "run_c2d_baseline_400k": ("c2d_r50", (8, 8), *SHORT),
    "run_c2d_nlnet_400k": ("c2d_r50_nl5", (8, 8), *SHORT),
    "run_i3d_baseline_400k": ("i3d_r50", (8, 8), *SHORT),
    "run_i3d_nlnet_400k": ("i3d_r50_nl5", (8, 8), *SHORT),
    "run_i3d_baseline_affine_400k": ("i3d_r50", (32, 4), *LONG),
    "run_i3d_nlnet_affine_400k": ("i3d_r50_nl5", (32, 4), *LONG),
    "run_i3d_baseline_300k": ("i3d_r50", (8, 8), 8, 64, 0.01, (150_000, 250_000), 300_000, 81.8),
    "run_i3d_baseline_600k_4gpu": ("i3d_r50", (8, 8), 4, 32, 0.005, (300_000, 500_000), 600_000, 81.8),
    "run_i3d_baseline_300k_4gpu": ("i3d_r50", (8, 8), 4, 32, 0.005, (150_000, 250_000), 300_000, 40.9),
}
ROWS = {row.row: row for row in TABLES["release"]}


def test_the_release_has_fifteen_models():
    assert list(ROWS) == list(ZOO)
    assert len({row.recipe for row in ROWS.values()}) == 15


@pytest.mark.parametrize("script", ZOO)
def test_a_recipe_is_its_script(script):
    model, clip, devices, batch, rate, steps, iterations, epochs = ZOO[script]
    recipe = KINETICS[ROWS[script].recipe]
    config = recipe.config()
    assert (config.model.name, sampling(config)) == (model, clip)
    assert (recipe.devices, config.training.batch) == (devices, batch)
    assert (config.optimizer.lr, config.optimizer.reference_batch) == (rate, batch)
    assert (config.schedule.steps, config.schedule.iterations) == (steps, iterations)
    assert round(iterations * batch / VIDEOS, 1) == epochs
    # the 4-GPU 300k script alone has neither scale jitter nor dropout
    plain = script == "run_i3d_baseline_300k_4gpu"
    assert (config.data.scales, config.model.dropout) == (((256, 256), 0.0) if plain else ((256, 320), 0.5))


@pytest.mark.parametrize("name", KINETICS)
def test_what_all_recipes_share(name):
    config = KINETICS[name].config()
    sgd, schedule, training, data = config.optimizer, config.schedule, config.training, config.data
    assert (sgd.kind, sgd.momentum, sgd.nesterov) == ("sgd", 0.9, True)
    assert (sgd.weight_decay, sgd.norm_weight_decay) == (1e-4, 0.0)
    assert sgd.lr / sgd.reference_batch == pytest.approx(
        0.01 / 64
    )  # the linear rule holds between all of them
    assert (schedule.policy, schedule.gamma, schedule.warmup) == ("step", 0.1, 0)
    assert (training.checkpoint_every, training.validate_every) == (10_000, 20_000)
    assert training.precise_norm == (0 if KINETICS[name].long else 200)
    # batch norm stays enabled in fine-tuning (§4.1), but for the long clips' affine layers
    assert not training.frozen_norm
    assert config.model.norm == ("affine" if KINETICS[name].long else "batch")
    assert (255 * data.mean, 255 * data.std) == pytest.approx((114.75, 57.375))
    assert data.flip
    assert KINETICS[name].start == "imagenet" or KINETICS[name].start in KINETICS


@pytest.mark.parametrize("name", [n for n, r in KINETICS.items() if r.long and not r.charades])
def test_long_clips_start_from_a_local_network_of_short_ones(name):
    recipe, config = KINETICS[name], KINETICS[name].config()
    start = KINETICS[recipe.start].config()
    assert "_nl" not in start.model.name
    assert start.model.name == config.model.name.removesuffix("_nl5")
    assert sampling(start) == {(128, 1): (32, 2), (32, 4): (8, 8)}[sampling(config)]
    assert (config.model.norm, config.model.nonlocal_norm) == ("affine", "none")
    assert config.init.drop == ("fc.*", "*.nonlocal_block.*")


def test_long_clips_group_res3_alone_by_four_frames():
    config = RECIPES["i3d_r50_nl5_128x1"]()
    with ShapesOnly():
        model = create_model(num_classes=400, **config.model.model_dump())
    groups = {path: block.groups for path, block in nonlocal_blocks(model).items()}
    # 128 frames are 16 at res3: 4 groups of 4
    assert groups == {
        f"{place}.nonlocal_block": 4 if place.startswith("layer2") else 1
        for place in ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5")
    }
    assert all(isinstance(block.norm, torch.nn.Identity) for block in nonlocal_blocks(model).values())


def test_charades_of_the_paper():
    for model in ("i3d_r101", "i3d_r101_nl5"):
        recipe = KINETICS[f"charades_{model}_128x1"]
        config = recipe.config()
        assert (config.model.name, sampling(config), recipe.start) == (model, (128, 1), f"{model}_128x1")
        assert (config.training.batch, config.optimizer.lr) == (8, 0.00125)
        assert (config.schedule.iterations, config.schedule.steps) == (200_000, (75_000, 150_000))
        # crops of 224 from 256 … 320, scaled by 288/224
        assert config.data.crop == 288
        assert config.data.scales == (round(256 * 288 / 224), round(320 * 288 / 224))
        assert config.training.loss == "sigmoid"
        assert (config.test.protocol, config.test.short_side) == ("paper", 320)
        assert config.init.drop == ("fc.*",)  # the non-local blocks stay
        assert recipe.origin == f"the run of {model}_128x1"


def table_rows(table):
    """(row, figures, configuration) of each row."""
    return [(row.row, row.figures, RECIPES[row.recipe]()) for row in TABLES[table]]


def block_of(config):
    with ShapesOnly():
        return nonlocal_blocks(create_model(num_classes=400, **config.model.model_dump()))


def test_rows_of_the_tables():
    assert {table: len(table_rows(table)) for table in TABLES} == {
        "2a": 5, "2b": 5, "2c": 8, "2d": 8, "2e": 4, "2f": 6, "2g": 6, "3": 2, "4": 2, "release": 15
    }  # fmt: skip
    for table in ("2a", "2b", "2c", "2d", "2e", "2f"):
        assert all(sampling(config) == (32, 2) for _, _, config in table_rows(table))
    assert all(sampling(config) == (128, 1) for _, _, config in table_rows("2g"))
    by_name = {f"{table} {name}": config for table in TABLES for name, _, config in table_rows(table)}
    kinds = {
        name: {b.pairwise for b in block_of(by_name[f"2a {name}"]).values()}
        for name, _, _ in table_rows("2a")
    }
    assert kinds == {
        "C2D baseline": set(),
        "Gaussian": {"gaussian"},
        "Gaussian, embedded": {"embedded_gaussian"},
        "dot-product": {"dot_product"},
        "concatenation": {"concatenation"},
    }
    places = {name: [*block_of(config)] for name, _, config in table_rows("2b")}
    assert places == {
        "baseline": [],
        "res2": ["layer1.1.nonlocal_block"],
        "res3": ["layer2.2.nonlocal_block"],
        "res4": ["layer3.4.nonlocal_block"],
        "res5": ["layer4.1.nonlocal_block"],
    }
    counts = {name: len(block_of(config)) for name, _, config in table_rows("2c")}
    assert counts == {
        f"{depth} {row}": count
        for depth in ("R50", "R101")
        for row, count in {"baseline": 0, "1-block": 1, "5-block": 5, "10-block": 10}.items()
    }
    axes = {name: {b.axis for b in block_of(config).values()} for name, _, config in table_rows("2d")}
    assert axes["R101 space-only"] == {"space"}
    assert axes["R50 time-only"] == {"time"}
    assert axes["R50 spacetime"] == {"spacetime"}
    for table in ("2c", "2d", "2f", "2g"):
        for name, _, config in table_rows(table):
            assert ("r101" in config.model.name) == name.startswith("R101")


def test_figures_agree_between_tables():
    """The same network has the same figures wherever the paper shows it (3 and 2g, the baselines, …)."""
    seen: dict[str, set[tuple[float, float]]] = {}
    for table, rows in TABLES.items():
        for row in rows:
            if table != "release":
                seen.setdefault(row.recipe, set()).add(row.figures)
            assert 0 < row.figures[0] < row.figures[1] < 100
    assert all(len(figures) == 1 for figures in seen.values())
    assert str(published("i3d_r50_nl5_32x2")[0]) == (
        "release, run_i3d_nlnet_400k_32f: top-1 74.9, top-5 91.6 (test.protocol=released)"
    )
    assert published("charades_i3d_r101_nl5_128x1")[0].figures == (37.5, 39.5)
    assert METRICS["4"] == ("mAP train/val", "mAP trainval/test")


# The figures as they stand in the paper (Tables 2a–2g, 3 and 4) and in the release's README, copied from the page
FIGURES = {
    "2a": [(71.8, 89.7), (72.5, 90.2), (72.7, 90.5), (72.9, 90.3), (72.8, 90.5)],
    "2b": [(71.8, 89.7), (72.7, 90.3), (72.9, 90.4), (72.7, 90.5), (72.3, 90.1)],
    "2c": [
        *((71.8, 89.7), (72.7, 90.5), (73.8, 91.0), (74.3, 91.2)),
        *((73.1, 91.0), (74.3, 91.3), (75.1, 91.7), (75.1, 91.6)),
    ],
    "2d": [
        *((71.8, 89.7), (72.9, 90.8), (73.1, 90.5), (73.8, 91.0)),
        *((73.1, 91.0), (74.4, 91.3), (74.4, 90.5), (75.1, 91.7)),
    ],
    "2e": [(73.1, 91.0), (74.1, 91.2), (74.4, 91.1), (75.1, 91.7)],
    "2f": [(71.8, 89.7), (73.3, 90.7), (74.9, 91.6), (73.1, 91.0), (74.4, 91.1), (76.0, 92.1)],
    "2g": [(73.8, 91.2), (74.9, 91.7), (76.5, 92.6), (75.3, 91.8), (76.4, 92.7), (77.7, 93.3)],
    "3": [(76.5, 92.6), (77.7, 93.3)],
    "4": [(35.5, 37.2), (37.5, 39.5)],
    "release": [
        *((72.0, 90.0), (73.9, 91.0), (73.6, 90.8), (74.9, 91.6), (75.2, 92.0), (76.5, 92.7)),
        *((71.9, 90.0), (74.4, 91.4), (73.4, 90.9), (74.7, 91.6), (75.5, 92.0), (76.5, 92.6)),
        *((73.2, 90.8), (73.0, 90.4), (72.0, 90.1)),
    ],
}


@pytest.mark.parametrize("table", FIGURES)
def test_figures_are_those_of_the_paper(table):
    assert [row.figures for row in TABLES[table]] == FIGURES[table]
    assert TABLES.keys() == FIGURES.keys()


@pytest.mark.parametrize("name", KINETICS)
def test_a_recipe_is_tested_as_its_figure_was(name):
    """The paper tests on whole frames; the release's figures, which more recipes share, are of three crops."""
    released = {row.recipe for row in TABLES["release"]}
    test = KINETICS[name].config().test
    assert (test.protocol, test.clips, test.crops) == (
        ("released", 10, 3) if name in released else ("paper", 10, 1)
    )
    for row in published(name):
        assert row.protocol == ("released" if row.table == "release" else "paper")


def test_numbers_of_videos_are_known_for_kinetics_alone():
    for recipe in KINETICS.values():
        expected = (None, None) if recipe.charades else (234_643, 19_761)
        assert (recipe.videos, recipe.eval_videos) == expected


def test_what_was_reported_for_several_runs_of_one_network():
    assert [row.figures[0] for row in published("i3d_r50_32x2")] == [73.6, 73.3]


def test_names_of_recipes():
    for name, recipe in KINETICS.items():
        assert re.fullmatch(
            r"(charades_)?(c2d|i3d|i3d333)_r(50|101)(_(nl|rb)\d+)?(_[a-z0-9_]+)?_\d+x\d+(_.*)?", name
        )
        assert recipe_or_file(name) == recipe.config()


def test_docs_paper_has_every_row():
    page = (Path(__file__).parents[3] / "docs" / "paper.md").read_text()
    for row in (row for rows in TABLES.values() for row in rows):
        place = "release" if row.table == "release" else f"Table {row.table}"
        first, second = row.figures
        assert f"| {place} | {row.row} | `{row.recipe}` | {first} / {second} | {row.protocol} |" in page

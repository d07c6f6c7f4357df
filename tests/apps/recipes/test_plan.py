"""The plan of a run: its schedule in phases, its cost by the stated formula, and what it warns of."""

import io
import json

import pytest
import torch
from rich.console import Console
from support.command_line import nlnet
from support.training import run, settings

from nlnet.apps.recipes.catalogue import recipe_or_file
from nlnet.apps.recipes.costs import (
    PEAK,
    UTILISATION,
    gpu_hours,
    measurements,
    network_cost,
    run_cost,
    step_bytes,
)
from nlnet.apps.recipes.kinetics import KINETICS
from nlnet.apps.recipes.plan import make_plan
from nlnet.apps.recipes.preflight import differences, too_large
from nlnet.engine.config import Config, override
from nlnet.engine.distributed import World
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.schedule import phases
from nlnet.weights.write import write_weights
from nlnet.zoo import create_model


def alone(size=1):
    return World(0, size, torch.device("cpu"))


def plan_of(tmp_path, name, *overrides, size=1):
    base = recipe_or_file(name)
    return make_plan(
        override(base, overrides), name=name, base=base, run=RunDir(tmp_path / "run"), world=alone(size)
    )


def test_phases_of_the_release():
    """0.01 ÷ 10 at 150k and 300k of 400k; 64 clips of 234,643 videos an iteration."""
    made = phases(recipe_or_file("i3d_r50_nl5_8x8"), 234_643)
    assert [(p.start, p.stop) for p in made] == [(0, 150_000), (150_000, 300_000), (300_000, 400_000)]
    assert [p.first_rate for p in made] == pytest.approx([0.01, 0.001, 0.0001])
    assert [p.last_rate for p in made] == [p.first_rate for p in made]
    assert [round(p.epochs[1], 1) for p in made] == [40.9, 81.8, 109.1]


def test_the_rate_follows_the_batch():
    made = phases(override(recipe_or_file("i3d_r50_8x8"), ["training.batch=16"]), 1000)
    assert made[0].first_rate == pytest.approx(0.0025)
    assert made[0].epochs == (0, 2400)


def test_phases_with_a_warm_up_and_of_a_cosine():
    config = override(Config(), ["schedule.warmup=10", "schedule.steps=[50]", "schedule.iterations=100"])
    made = phases(config, 64)
    assert [(p.start, p.stop) for p in made] == [(0, 10), (10, 50), (50, 100)]
    assert (made[0].first_rate, made[0].last_rate) == pytest.approx((0.001, 0.0091))
    (whole,) = phases(override(config, ["schedule.policy=cosine", "schedule.warmup=0"]), 64)
    assert (whole.start, whole.stop, whole.first_rate) == (0, 100, 0.01)
    assert whole.last_rate < 1e-5


def test_cost_is_the_stated_formula():
    config = recipe_or_file("i3d_r50_nl5_8x8")
    network = network_cost(config, 400)
    assert round(network.macs / 1e9, 2) == 36.24
    assert round(network.eval_macs / 1e9, 2) == 48.57
    cost = run_cost(config, network)
    # 25.6 M clips forward and twice that backward; precise BN at 40 checkpoints (validation needs data.val)
    assert measurements(config) == 40
    assert cost.clips == 25_600_000
    assert cost.macs == network.macs * (3 * 25_600_000 + 40 * 200 * 64)
    assert cost.gpu_hours == pytest.approx(2 * cost.macs / (0.25 * 156e12) / 3600)
    assert gpu_hours(UTILISATION * PEAK["bf16"] / 2 * 3600, "bf16") == 1
    saving = override(config, ["training.checkpointing=true", "training.precise_norm=0"])
    assert run_cost(saving, network).macs == network.macs * 4 * 25_600_000


def test_measurements_count_checkpoints_and_validations_once():
    """Of 50 iterations: checkpoints at 20 and 40, validations at 15, 30, 45, and the end."""
    config = override(
        Config(),
        [
            "schedule.iterations=50",
            "training.checkpoint_every=20",
            "training.validate_every=15",
            "data.val=x",
        ],
    )
    assert measurements(config) == 6
    assert measurements(override(config, ["data.val=null"])) == 3


def test_bytes_of_a_step():
    config = recipe_or_file("i3d_r50_8x8")
    network = network_cost(config, 400)
    activations, states = step_bytes(config, network, 8)
    assert (activations, states) == (8 * network.memory.kept, 3 * 4 * network.parameters)
    half = override(
        config, ["training.precision=bf16", "training.checkpointing=true", "optimizer.kind=adamw"]
    )
    assert step_bytes(half, network, 8) == (4 * network.memory.checkpointed, 4 * 4 * network.parameters)


def test_a_plan_without_data_says_what_is_missing(tmp_path):
    plan = plan_of(tmp_path, "i3d_r50_nl5_128x1", size=8)
    assert plan.warnings[:3] == (
        "no training videos: give data.train=PATH",
        "no validation videos, so no best checkpoint will be saved: give data.val=PATH",
        "no initial weights, but the recipe starts from the run of i3d_r50_32x2, norms folded: give init.weights=PATH",
    )
    assert plan.facts["batch"].startswith("16 clips = 8 × 1 × 2")
    assert plan.facts["precise BN"] == "off"
    assert plan.published[0] == (
        "release, run_i3d_nlnet_affine_400k_128f: top-1 76.5, top-5 92.7 (test.protocol=released)"
    )
    assert plan.published[1] == "Table 2g, R50 NL I3D: top-1 76.5, top-5 92.6 (test.protocol=paper)"
    assert plan.cost["epochs"] == pytest.approx(27.275, abs=1e-3)
    json.dumps(plan.document())


def test_a_plan_with_data_and_weights_counts_its_own_epochs(color_videos, tmp_path):
    run(settings(color_videos, "model.name=c2d_mini", "schedule.iterations=1"), tmp_path / "first")
    config = settings(color_videos, f"init.weights={tmp_path / 'first'}", "schedule.iterations=80")
    plan = make_plan(config, name="mine", base=config, run=RunDir(tmp_path / "run"), world=alone())
    assert plan.cost["epochs"] == 80 * 6 / 12
    assert plan.phases[-1].epochs[1] == 40
    assert plan.facts["videos"] == "12 in 3 classes, 6 for validation"
    assert "inflated" in plan.facts["weights"]
    assert plan.warnings == ()


def test_differences_from_the_recipe_are_warned_of():
    base, recipe = recipe_or_file("i3d_r50_8x8"), KINETICS["i3d_r50_8x8"]
    assert differences(base, base, recipe, 8) == []
    (norm,) = differences(base, base, recipe, 1)
    assert (
        norm
        == "batch norm sees 64 clips at a time, 8 in the recipe (8 GPUs); training.accumulate=8 makes it 8"
    )
    small = override(base, ["training.batch=16"])
    clips, norm = differences(small, base, recipe, 4)
    assert "16 clips × 400,000 iterations are 0.25 times the recipe's clips" in clips
    assert clips.endswith("schedule.iterations=1600000 schedule.steps=[600000,1200000]")
    assert norm == "batch norm sees 4 clips at a time, 8 in the recipe (8 GPUs)"
    # 12 clips of one process: no number of passes has 8 of them
    *_, norm = differences(override(base, ["training.batch=12"]), base, recipe, 1)
    assert norm == "batch norm sees 12 clips at a time, 8 in the recipe (8 GPUs)"
    *_, norm = differences(override(base, ["training.batch=24"]), base, recipe, 1)
    assert norm.endswith("; training.accumulate=3 makes it 8")
    *_, norm = differences(override(base, ["training.accumulate=16"]), base, recipe, 1)
    assert norm.endswith("8 in the recipe (8 GPUs); training.accumulate=8 makes it 8")
    made_up = override(small, ["schedule.iterations=1600000", "schedule.steps=[600000,1200000]"])
    assert differences(made_up, base, recipe, 2) == []
    uneven = differences(base, base, recipe, 3)
    assert uneven[0].startswith("a batch of 64 clips cannot be divided into 3 processes × 1 passes")
    long = recipe_or_file("i3d_r50_128x1")
    assert (
        differences(long, long, KINETICS["i3d_r50_128x1"], 1) == []
    )  # frozen norms do not depend on the batch


def test_no_epochs_for_an_unknown_number_of_videos(tmp_path):
    """Charades and a configuration of one's own have other videos than Kinetics."""
    for name in ("charades_i3d_r101_128x1", "finetune_i3d_r50_nl5_8x8"):
        plan = plan_of(tmp_path, name, "model.name=c2d_mini", "model.variant=8x8", "model.groups=1")
        assert plan.cost["epochs"] is None
        assert all(phase.epochs is None for phase in plan.phases)
        text = str(plan.facts) + str(plan.document())
        assert "epochs, " not in plan.facts["cost"]
        assert plan.facts["videos"] == "not given"
        assert "19,761" not in text
        assert "Kinetics" not in plan.facts["test"]
        screen = io.StringIO()
        Console(file=screen, width=80).print(plan)
        assert "–" in screen.getvalue()


def test_another_normalisation_than_that_of_the_weights_is_warned_of(color_videos, tmp_path):
    model = create_model("i3d_mini_nl1", num_classes=3, padding="mmaction2", convention="mmcv", scale=1.0)
    write_weights(model, tmp_path / "x.pth", "mmaction2")
    config = settings(
        color_videos, f"init.weights={tmp_path / 'x.pth'}", "model.name=i3d_mini_nl1",
        "model.padding=mmaction2", "model.convention=mmcv", "model.scale=1.0",
    )  # fmt: skip
    plan = make_plan(config, name="mine", base=config, run=RunDir(tmp_path / "run"), world=alone())
    (warning,) = [line for line in plan.warnings if "pixels" in line]
    assert warning == (
        "init.weights were trained on pixels with mean (0.485, 0.456, 0.406) and standard deviation "
        "(0.229, 0.224, 0.225), but this run has 0.45 and 0.225; the same as theirs: "
        "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225]"
    )
    same = override(config, ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]"])
    plan = make_plan(same, name="mine", base=same, run=RunDir(tmp_path / "run"), world=alone())
    assert not [line for line in plan.warnings if "pixels" in line]


def test_too_large_for_this_machine():
    assert too_large(alone(), 1 << 20) == []
    assert "training.checkpointing=true" in too_large(alone(), 1 << 60)[0]


def test_the_command_prints_it_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = nlnet("train", "c2d_r50_nl1_gaussian_32x2", "--dry-run", "training.batch=16")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in (
        "1 non-local blocks",
        "0 – 150,000",
        "Table 2a, Gaussian: top-1 72.5",
        "no training videos",
    ):
        assert words in text
    assert not list(tmp_path.iterdir())


def test_the_plan_of_a_resumed_run(color_videos, tmp_path):
    run(settings(color_videos), tmp_path / "run", until=2)
    done = nlnet("train", "--resume", tmp_path / "run", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["facts"]["weights"] == "the checkpoint at iteration 2"
    assert plan["warnings"] == []
    config, _ = RunDir(tmp_path / "run").read_config()
    again = make_plan(config, name="mine", base=config, run=RunDir(tmp_path / "run"), world=alone())
    assert "has a run already" in again.warnings[0]


def test_eighty_columns_are_enough(tmp_path):
    screen = io.StringIO()
    Console(file=screen, width=80).print(plan_of(tmp_path, "i3d_r50_8x8"))
    assert max(len(line) for line in screen.getvalue().splitlines()) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("i3d_r50_nl",), "no network matches 'i3d_r50_nl'; did you mean 'i3d_r50_nl"),
        (("--variant", "16x4"), "--variant: got '16x4', expected one of"),
        (("c2d_mini*", "--variant", "32x2"), "c2d_mini* has clips of 8x8 only; give --variant 8x8"),
    ],
)
def test_wrong_arguments_of_models_are_named(arguments, message):
    done = nlnet("models", *arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_models_in_eighty_columns(monkeypatch):
    monkeypatch.setattr("nlnet.apps.verbs.models.OUT", screen := Console(file=io.StringIO(), width=80))
    assert nlnet("models", "i3d_r50_nl5", "i3d_mini", "--variant", "8x8").returncode == 0
    lines = screen.file.getvalue().splitlines()
    assert lines[2].split()[:4] == ["i3d_r50_nl5", "35.402", "36.24", "48.57"]
    assert all(len(line) <= 80 for line in lines)


def test_long_clips_say_why_they_have_fewer_parameters(monkeypatch):
    monkeypatch.setattr("nlnet.apps.verbs.models.OUT", screen := Console(file=io.StringIO(), width=80))
    assert nlnet("models", "i3d_r50", "--variant", "128x1").returncode == 0
    text = " ".join(screen.file.getvalue().split())
    assert "Frozen γ and β do not count as parameters: 27.990 M would be 28.043 M with them" in text
    assert "i3d_r50 27.990 " in text


def test_recipes_are_listed_with_what_was_reported(monkeypatch):
    monkeypatch.setattr("nlnet.apps.verbs.recipe_list.network_cost", lambda config, classes: network)
    network = network_cost(recipe_or_file("c2d_r50_8x8"), 400)  # counting all of them takes seconds
    document = json.loads(nlnet("models", "--recipes", "--json").stdout)
    assert set(document["recipes"]) == set(KINETICS)
    assert document["recipes"]["i3d_r50_8x8"]["starts_from"] == "an ImageNet ResNet-50"
    assert document["tables"]["2a"][1] == {
        "row": "Gaussian",
        "recipe": "c2d_r50_nl1_gaussian_32x2",
        "published": [72.5, 90.2],
        "protocol": "paper",
    }
    assert document["tables"]["release"][0]["protocol"] == "released"
    one = document["recipes"]["c2d_r50_32x2"]
    assert one["source"][:2] == ["release: run_c2d_baseline_400k_32f", "Table 2a: C2D baseline"]
    assert one["published"][1] == {
        "where": "Table 2a: C2D baseline",
        "metrics": ["top-1", "top-5"],
        "figures": [71.8, 89.7],
        "protocol": "paper",
    }
    assert document["recipes"]["c2d_r50_rb5_32x2"]["source"] == ["§5.1, in words alone"]
    assert document["recipes"]["c2d_r50_rb5_32x2"]["published"] == []
    charades = document["recipes"]["charades_i3d_r101_128x1"]
    assert (charades["epochs"], charades["published"][0]["metrics"]) == (
        None,
        ["mAP train/val", "mAP trainval/test"],
    )
    monkeypatch.setattr("nlnet.apps.verbs.recipe_list.OUT", screen := Console(file=io.StringIO(), width=80))
    assert nlnet("models", "--recipes").returncode == 0
    text = screen.file.getvalue()
    assert "no recipe was trained here" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    rows = [line for line in text.splitlines() if line.startswith("run_")]
    assert len(rows) == 15

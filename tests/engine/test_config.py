"""Configuration: strict keys, helpful messages, and a round trip through files."""

import json

import pytest

from nlnet.engine.config import (
    Config,
    EvalConfig,
    from_json,
    from_mapping,
    known_keys,
    override,
    read_yaml,
)
from nlnet.engine.config.read import RENAMED
from nlnet.errors import ConfigError


def test_defaults_are_the_releases_recipe():
    # original recipe (8 GPUs × 8 clips): 0.01 at 64 clips, ÷10 at 150k and 300k of 400k, Nesterov, 1e-4, 0 on BN
    config = Config()
    assert (config.optimizer.lr, config.training.batch, config.schedule.iterations) == (0.01, 64, 400_000)
    assert config.schedule.steps == (150_000, 300_000)
    assert (config.optimizer.weight_decay, config.optimizer.norm_weight_decay) == (1e-4, 0.0)
    assert config.optimizer.nesterov
    assert config.data.scales == (256, 320)
    assert config.data.mean * 255 == pytest.approx(114.75)
    assert config.data.std * 255 == pytest.approx(57.375)
    assert (config.test.clips, config.test.crops, config.test.crop) == (10, 3, 256)


def test_overrides_change_single_fields():
    changed = override(
        Config(), ["optimizer.lr=0.1", "data.scales=[32, 40]", "data.crop=32", "data.train=a b/c"]
    )
    assert (changed.optimizer.lr, changed.data.scales, str(changed.data.train)) == (0.1, (32, 40), "a b/c")
    assert changed.optimizer.momentum == Config().optimizer.momentum


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.learning_rate=1", "unknown key 'optimizer.learning_rate'; did you mean .*'optimizer.lr'"),
        ("lr=1", r"unknown key 'lr'; did you mean 'optimizer.lr'\?$"),
        ("optimizer.lr", "expected key=value"),
        ("optimizer.lr=fast", "optimizer.lr: Input should be a valid number"),
        ("optimizer.lr=-1", "optimizer.lr: Input should be greater than 0"),
        ("data.crop=400", "^after the overrides: data.scales: the smallest, 256, is below the crop of 400"),
        ("data.scales=[320, 256]", r"expected a range \(low, high\)"),
        ("test.crop=300", "test.crop: 300 pixels do not fit a shorter side of 256"),
        ("training.precision=fp8", "training.precision: Input should be 'float32', 'bf16' or 'fp16'"),
        ("test.crops=2", "test.crops"),
        ("data.train=[", r"cannot read the value '\[' as YAML"),
        ("data.precision=bf16", "did you mean 'training.precision' or 'test.precision'"),
        ("quux=1", "unknown key 'quux'; keys are model.name, "),
    ],
)
def test_bad_overrides(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(Config(), [assignment])


def test_yaml_round_trip(tmp_path):
    path = tmp_path / "run.yaml"
    config = override(Config(), ["model.name=c2d_mini", "data.cache_gib=0.5"])
    path.write_text(config.model_dump_json())
    assert read_yaml(path) == config
    assert from_mapping(json.loads(config.model_dump_json()), source="x") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle:\n  name: x", "unknown key 'modle'"),
        ("model:\n  nmae: x", "unknown key 'model.nmae'; did you mean 'model.name'"),
        ("model: [1]", "model: Input should be"),
        ("- a", "expected sections such as"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_old_names_of_keys_still_load(tmp_path):
    """In overrides, files and stored configurations."""
    assert RENAMED == {"training.vitals_every": "training.block_stats_every"}
    expected = override(Config(), ["training.block_stats_every=7", "training.seed=3"])
    assert override(Config(), ["training.vitals_every=7", "training.seed=3"]) == expected
    path = tmp_path / "old.yaml"
    path.write_text("training:\n  vitals_every: 7\n  seed: 3\n")
    assert read_yaml(path) == expected
    values = {"training": {"vitals_every": 7, "seed": 3}}
    assert from_mapping(values, source="x") == expected
    assert from_json(json.dumps(values), source="x") == expected
    assert values == {"training": {"vitals_every": 7, "seed": 3}}
    both = {"training": {"vitals_every": 7, "block_stats_every": 7}}
    with pytest.raises(
        ConfigError, match="x: training.vitals_every is the old name of training.block_stats_every"
    ):
        from_mapping(both, source="x")
    assert "training.vitals_every" not in known_keys()


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot read it"):
        read_yaml(tmp_path / "nothing.yaml")


def test_known_keys_are_dotted_and_complete():
    assert {"model.name", "data.train", "schedule.warmup", "test.protocol"} <= set(known_keys())


def test_a_protocol_sets_its_views():
    assert EvalConfig(protocol="single").clips == 1
    assert (EvalConfig(protocol="paper").crops, EvalConfig(protocol="paper", short_side=320).crop) == (1, 320)
    assert EvalConfig(protocol="slowfast", clips=5).clips == 5
    small = override(
        Config(), ["test.clips=4", "test.short_side=36", "test.crop=32"]
    )  # chosen for a network of 32 pixels
    for protocol, expected in {
        "single": (1, 1, 36, 32),
        "slowfast": (10, 3, 36, 32),
        "mmaction2": (10, 3, 36, 32),
        "paper": (10, 1, 36, 36),
    }.items():
        test = override(small, [f"test.protocol={protocol}"]).test
        assert (test.clips, test.crops, test.short_side, test.crop) == expected
        assert from_mapping({"test": test.model_dump(mode="json")}, source="x").test == test
    assert override(small, ["test.protocol=slowfast", "test.clips=3", "test.crops=1"]).test.clips == 3
    whole = override(small, ["test.protocol=paper"])
    assert override(whole, ["test.short_side=40"]).test.crop == 40
    assert override(whole, ["test.clips=2"]).test.crop == 36
    assert override(small, ["test.aggregate=max"]).test.clips == 4


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["test.protocol=single", "test.clips=3"], "test.clips: protocol single has one clip, got 3"),
        (["test.protocol=paper", "test.crop=224"], "takes the whole frame, got 1 crops of 224 pixels"),
        (["test.protocol=paper", "test.crops=3"], "takes the whole frame, got 3 crops"),
        (["test.protocol=papr"], "test.protocol: Input should be 'released', .*'paper'"),
        (["test.protocol=[paper]"], "test.protocol: Input should be"),
        (["test.aggregate=sum"], "test.aggregate: Input should be 'mean' or 'max'"),
    ],
)
def test_contradictions_with_the_protocol(assignments, message):
    with pytest.raises(ConfigError, match=message):
        override(Config(), assignments)


def test_a_test_section_that_is_a_list():
    with pytest.raises(ConfigError, match="test: Input should be a valid dictionary"):
        from_mapping({"test": [1]}, source="x")

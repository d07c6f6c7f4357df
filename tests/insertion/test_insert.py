"""Insertion by path: the targets it finds, the errors for unsuitable ones, and that nothing else changes."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from nlnet.block import NonLocalBlock
from nlnet.errors import InsertionError
from nlnet.insertion.insert import ApplyChild, attach, insert_nonlocal, nonlocal_blocks
from nlnet.insertion.targets import find_targets
from nlnet.models.resnet import TIMINGS, VideoResNet


class Residual(nn.Module):
    """A 2-D residual block in torchvision's manner."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(y + self.downsample(x))


class Net(nn.Module):
    """A small image network with stages layer1 (2 blocks) and layer2 (5 blocks)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Residual(4, 8), Residual(8, 8))
        self.layer2 = nn.Sequential(*[Residual(8, 8) for _ in range(5)])
        self.heads = nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.conv1(x))))
        return torch.cat([head(x.mean(dim=(2, 3))) for head in self.heads], dim=1)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def image() -> Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def video_net() -> VideoResNet:
    torch.manual_seed(0)
    return VideoResNet(
        blocks=(1, 2, 2), inflation="3x1x1", timing=TIMINGS["8x8"], num_classes=5, width=4, dropout=0.0
    )


def clip() -> Tensor:
    return torch.randn(2, 3, 4, 32, 28, generator=torch.Generator().manual_seed(1))


def activate(model: nn.Module) -> nn.Module:
    """Give the blocks a non-zero γ, so that they change the output."""
    for block in nonlocal_blocks(model).values():
        nn.init.normal_(block.norm.weight)
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_logits_stay_bit_for_bit(pairwise: str, training: bool) -> None:
    for model, x, where in [
        (net(), image(), {"layer1": "all", "layer2": "every 2nd"}),
        (video_net(), clip(), {"layer2": "every 2nd", "layer3": "before last"}),
        (net(), image(), ["layer1", "layer2"]),
    ]:
        before = copy.deepcopy(model).train(training)
        insert_nonlocal(model, where, pairwise=pairwise)
        model.train(training)
        assert torch.equal(model(x), before(x))
        after = model.state_dict()
        assert all(torch.equal(after[k], v) for k, v in before.state_dict().items())
        assert not torch.equal(activate(model)(x), before(x))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("layer2.1", ["layer2.1"]),
        ("layer1.*", ["layer1.0", "layer1.1"]),
        ("layer?.1", ["layer1.1", "layer2.1"]),
        (["layer2.3", "layer1.0"], ["layer1.0", "layer2.3"]),
        ({"layer2": "every 2nd"}, ["layer2.1", "layer2.3"]),
        ({"layer2": "every 3rd"}, ["layer2.2"]),
        ({"layer2": "every 1st"}, [f"layer2.{i}" for i in range(5)]),
        ({"layer1": "all"}, ["layer1.0", "layer1.1"]),
        ({"layer*": "last"}, ["layer1.1", "layer2.4"]),
        ({"layer2": "before last"}, ["layer2.3"]),
        ({"layer2": [0, 3], "layer1": [1]}, ["layer1.1", "layer2.0", "layer2.3"]),
        ("conv1", ["conv1"]),
        ("layer2.1.bn1", ["layer2.1.bn1"]),
    ],
)
def test_where(where: object, expected: list[str]) -> None:
    model = net()
    summary = insert_nonlocal(model, where)
    assert summary.paths == expected
    assert list(nonlocal_blocks(model)) == [f"{path}.nonlocal_block" for path in expected]
    calls = []
    for path, block in nonlocal_blocks(model).items():
        block.register_forward_hook(lambda *_, path=path: calls.append(path))
    model(image())
    assert calls == [f"{path}.nonlocal_block" for path in expected]


def test_rules_do_not_count_blocks_that_are_there() -> None:
    model = net()
    insert_nonlocal(model, "layer2")
    assert insert_nonlocal(model, {"layer2": "last"}).paths == ["layer2.4"]
    assert list(nonlocal_blocks(model)) == ["layer2.4.nonlocal_block", "layer2.nonlocal_block"]


def test_blocks_fit_the_target_without_running_it() -> None:
    model = video_net()
    insert_nonlocal(model, ["layer2.1", "layer3.0"], inner_channels=3, convention="released", groups=2)
    for path, channels in (("layer2.1", 32), ("layer3.0", 64)):
        block = model.get_submodule(path).get_submodule("nonlocal_block")
        assert isinstance(block, NonLocalBlock)
        assert (block.in_channels, block.inner_channels, block.ndim, block.groups) == (channels, 3, 3, 2)
        assert block.pool_position == "before"


def test_targets_whose_sizes_only_an_example_or_ndim_tells() -> None:
    sequence = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.GroupNorm(2, 4)))
    x = torch.randn(2, 3, 9)
    before = sequence(x)
    insert_nonlocal(sequence, "1", example_input=x)
    insert_nonlocal(sequence, "2", ndim=1)
    insert_nonlocal(sequence, "0")
    assert [block.ndim for block in nonlocal_blocks(sequence).values()] == [1, 1, 1]
    assert torch.equal(sequence(x), before)


def test_norms_show_their_axes() -> None:
    model = nn.Sequential(nn.BatchNorm3d(4), nn.InstanceNorm2d(5))
    insert_nonlocal(model, ["0", "1"])
    assert [(b.ndim, b.in_channels) for b in nonlocal_blocks(model).values()] == [(3, 4), (2, 5)]


def test_seed_reproduces_and_the_example_changes_nothing() -> None:
    states = []
    for example, where in [(None, ["layer2.0", "layer1.0"]), (image(), ["layer1.0", "layer2.0"])]:
        model = net()
        model.layer1.eval()
        statistics = {k: v.clone() for k, v in model.state_dict().items()}
        torch.manual_seed(3)
        insert_nonlocal(model, where, example_input=example)
        assert [m.training for m in model.layer1] == [False, False]
        assert model.layer2[0].bn1.training
        assert [b.training for b in nonlocal_blocks(model).values()] == [False, True]
        assert all(torch.equal(model.state_dict()[k], v) for k, v in statistics.items())
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_device_and_dtype_are_those_of_the_target() -> None:
    model = net().double()
    insert_nonlocal(model, "layer1.1")
    assert {p.dtype for p in nonlocal_blocks(model)["layer1.1.nonlocal_block"].parameters()} == {
        torch.float64
    }
    assert model(image().double()).dtype == torch.float64
    meta = net().to("meta")
    insert_nonlocal(meta, {"layer1": "all"}, example_input=image().to("meta"))
    assert {p.device.type for p in meta.parameters()} == {"meta"}


def test_state_dicts() -> None:
    model, old = net(), net().state_dict()
    insert_nonlocal(model, {"layer2": "every 2nd"}, pairwise="concatenation")
    result = model.load_state_dict(old, strict=False)
    assert result.unexpected_keys == []
    new = [key for key in model.state_dict() if ".nonlocal_block." in key]
    # torch fills in the batch counter of a norm that the old dictionary does not know, without a word
    assert sorted(result.missing_keys) == sorted(key for key in new if "num_batches_tracked" not in key)
    assert "layer2.1.nonlocal_block.theta.weight" in new
    assert set(model.state_dict()) == set(old) | set(new)
    again = net()
    insert_nonlocal(again, {"layer2": "every 2nd"}, pairwise="concatenation")
    activate(model)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(image()), model.eval()(image()))


def test_copies_pickles_and_checkpoints() -> None:
    model = net()
    insert_nonlocal(model, ["layer1.0", "layer2"])
    activate(model).eval()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(other(image()), model(image()))
        nn.init.zeros_(nonlocal_blocks(other)["layer1.0.nonlocal_block"].norm.weight)
        assert not torch.equal(other(image()), model(image()))


def test_summary_with_and_without_an_example() -> None:
    """res-like 3-D map: layer2.1 of a (4, 32, 28) clip is (32, 4, 4, 3), keys (4, 2, 1)."""
    plain = str(insert_nonlocal(video_net(), "layer2.1"))
    assert "layer2.1" in plain
    assert "–" in plain
    summary = insert_nonlocal(video_net(), "layer2.1", example_input=clip())
    (row,) = summary.rows
    grid = (row.queries, row.keys, row.problems)
    t, h, w = 2, 4, 3
    assert grid == (t * h * w, t * (h // 2) * (w // 2), 1)
    assert (row.channels, row.inner, row.ndim) == (32, 16, 3)
    assert row.parameters == 3 * 16 * 33 + 32 * 17 + 64
    assert row.macs == 4 * 24 * 32 * 16 + 2 * 24 * 4 * 16
    assert row.algorithm in ("definition", "tiled", "sdpa")
    lines = str(summary).splitlines()
    assert "1 × 24 × 4" in lines[1]
    assert lines[-1] == f"1 non-local blocks, {row.parameters:,} parameters"
    forced = insert_nonlocal(video_net(), "layer2.1", example_input=clip(), algorithm="definition")
    assert forced.rows[0].algorithm == "definition"


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), x


class Twice(nn.Module):
    """Targets that run twice or never, return a tuple, loop over their children, and one of each container."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.never = nn.Conv2d(3, 3, 1)
        self.pair = Pair()
        self.integers = Integers()
        self.flat = nn.Flatten()
        self.walker = Walker()
        self.stack = Stack(nn.Conv2d(3, 3, 1))
        self.list = nn.ModuleList([nn.Conv2d(3, 3, 1)])
        self.dict = nn.ModuleDict({"a": nn.Conv2d(3, 3, 1)})
        self.shared = self.conv
        self.head = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 2))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.integers(x)
        x = self.pair(self.stack(self.walker(self.conv(self.conv(x)))))[1]
        self.flat(x)
        return x


class Integers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.long()


class Walker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class Stack(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for child in self:
            x = x + child(x)
        return x


EXAMPLE = "example"
ERRORS = [
    (
        net,
        "layer9.1",
        {},
        r"'layer9.1' matches no module; the model has the children conv1, relu, .*; did you mean 'layer\d.1' or",
    ),
    (
        net,
        "layer2.7",
        {},
        r"'layer2.7' matches no module; 'layer2' has the children layer2.0, layer2.1, .*; did",
    ),
    (
        net,
        "layer2.1.bn7",
        {},
        r"'layer2.1' has the children layer2.1.conv1, layer2.1.bn1, .*; did you mean 'layer2.1.bn1'",
    ),
    (net, "conv1.0", {}, "'conv1.0' matches no module; 'conv1' has no children"),
    (net, "layer1.conv1", {}, r"'layer1.conv1' matches no module"),
    (net, ["layer1.0", "nothing"], {}, "'nothing' matches no module"),
    (net, [], {}, r"where: got \[\], which names no module; expected at least one path, glob or rule"),
    (net, {"layer2": []}, {}, r"where: got \{'layer2': \[\]\}, which names no module"),
    (net, ["layer1.0", "layer1.*"], {}, "'layer1.0' is named twice; expected every module once: leave one"),
    (Twice, ["conv", "shared"], {}, "'shared' is the same module as 'conv'"),
    (net, {"layer2": [1, 5]}, {}, r"got the indices \[5\] for 'layer2', expected 0 to 4"),
    (net, {"layer2": [-1]}, {}, r"got the indices \[-1\] for 'layer2'"),
    (net, {"conv1": [0]}, {}, r"got the indices \[0\] for 'conv1', expected none, for it has no children"),
    (net, {"layer2": "every second"}, {}, "got the rule 'every second' for 'layer2', expected 'all', 'last'"),
    (net, {"layer2": "every 0th"}, {}, "got the rule 'every 0th'"),
    (net, {"layer2": "every 6th"}, {}, "'layer2' has 5 children, too few for the rule 'every 6th'"),
    (net, {"conv1": "before last"}, {}, "'conv1' has 0 children, too few for the rule 'before last'"),
    (
        net,
        "heads",
        {},
        r"'heads' is a ModuleList, which has no forward of its own; name its children instead, as 'heads\.\*'",
    ),
    (Twice, "dict", {}, "'dict' is a ModuleDict, which has no forward"),
    (
        Twice,
        "walker",
        {},
        "'walker' is a Walker whose own forward loops over its children .*: name its last child",
    ),
    (Twice, "stack", {}, "'stack' is a Stack whose own forward loops over its children"),
    (
        net,
        "relu",
        {},
        "'relu' is a ReLU whose layers do not show the channels of its output: give example_input",
    ),
    (Twice, "head", {}, "'head' is a Sequential whose layers do not show the channels"),
    (
        lambda: nn.Sequential(nn.GroupNorm(1, 4)),
        "0",
        {},
        "show the number of axes of its output: .*, or ndim",
    ),
    (
        net,
        "layer1.0",
        {"ndim": 3, "example_input": EXAMPLE},
        "'layer1.0' returns maps with 2 axes, expected ndim = 3; leave ndim out",
    ),
    (net, "layer1.0", {"groups": 2}, "groups: got 2 with axis 'spacetime' on a 2-D map"),
    (net, "layer1.0", {"pairwise": "dot"}, "pairwise: got 'dot'"),
    (
        Twice,
        "conv",
        {"example_input": EXAMPLE},
        "'conv' ran 2 times on the example input, expected once: name a module that runs once",
    ),
    (Twice, "never", {"example_input": EXAMPLE}, "'never' ran 0 times on the example input"),
    (Twice, "pair", {"example_input": EXAMPLE}, "'pair' returned tuple, expected one tensor: name a module"),
    (
        Twice,
        "integers",
        {"example_input": EXAMPLE},
        r"'integers' returned torch.int64 of shape \(2, 3, 6, 5\)",
    ),
    (
        Twice,
        "flat",
        {"example_input": EXAMPLE},
        r"'flat' returned torch.float32 of shape \(2, 90\), expected .*: name a module that returns such a map",
    ),
    (
        video_net,
        ["layer2.0", "layer2.1"],
        {"example_input": EXAMPLE, "groups": 4},
        r"'layer2.0' returns a map of shape \(2, 32, 2, 4, 3\): got 2 frames, expected a multiple of groups = 4",
    ),
]


@pytest.mark.parametrize(("make", "where", "options", "message"), ERRORS)
def test_errors_leave_the_model_unchanged(
    make: object, where: object, options: dict[str, object], message: str
) -> None:
    model = make()
    if options.get("example_input") is EXAMPLE:
        options = {**options, "example_input": clip() if isinstance(model, VideoResNet) else image()}
    before = repr(model), list(model.state_dict()), [m.training for m in model.modules()]
    with pytest.raises(ValueError, match=message):
        insert_nonlocal(model, where, **options)
    assert (repr(model), list(model.state_dict()), [m.training for m in model.modules()]) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_second_block_in_a_target_is_an_error() -> None:
    model = net()
    insert_nonlocal(model, ["layer1.0", "layer2"])
    for where in ("layer1.0", "layer1.*", "layer2"):
        with pytest.raises(
            InsertionError, match="has a child 'nonlocal_block' already, expected none: leave this module out"
        ):
            insert_nonlocal(model, where)
    with pytest.raises(InsertionError, match="matches no module"):
        insert_nonlocal(model, "layer1.0.nonlocal_block")
    assert len(nonlocal_blocks(model)) == 2


def test_a_target_that_returns_a_tuple_is_an_error_of_the_hook() -> None:
    model = Twice()
    insert_nonlocal(model, "pair")
    with pytest.raises(
        InsertionError,
        match=r"'pair' \(Pair\), which has the child 'nonlocal_block', returned tuple, expected one",
    ):
        model(image())


def test_wrongly_inferred_channels_are_an_error_when_the_block_runs() -> None:
    """A concatenation of branches has more channels than its last convolution."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.a(x), self.b(x)], dim=1)

    guessed, measured = nn.Sequential(Branches()), nn.Sequential(Branches())
    insert_nonlocal(guessed, "0")
    with pytest.raises(ValueError, match=r"got a map of shape \(2, 9, 6, 5\), expected \(B, 5, H, W\)"):
        guessed(image())
    insert_nonlocal(measured, "0", example_input=image())
    assert measured(image()).shape == (2, 9, 6, 5)


def test_attach_takes_any_module_and_one_path() -> None:
    model = net()
    attach(model, "layer1.0", "control", nn.Flatten(0, 0))
    assert isinstance(model.layer1[0].control, nn.Flatten)
    assert isinstance(next(iter(model.layer1[0]._forward_hooks.values())), ApplyChild)
    with pytest.raises(InsertionError, match=r"got the pattern 'layer1.\*', expected the path of one module"):
        attach(model, "layer1.*", "control", nn.Identity())
    with pytest.raises(InsertionError, match="has a child 'control' already"):
        attach(model, "layer1.0", "control", nn.Identity())
    assert list(find_targets(model, "conv?")) == ["conv1"]


def test_bytes_scale_with_the_batch() -> None:
    one, two = (
        insert_nonlocal(video_net(), "layer2.1", example_input=clip()[:b]).rows[0].definition_bytes
        for b in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert math.isclose(two / one, 2, rel_tol=0.01)


def active_model() -> nn.Module:
    """One target with a hook and one plain Sequential, whose blocks change the output."""
    torch.manual_seed(0)
    model = nn.Sequential(Residual(3, 8), nn.Sequential(nn.Conv2d(8, 8, 1)))
    insert_nonlocal(model, "0")
    insert_nonlocal(model, "1", pairwise="dot_product")
    return activate(model).eval()


@pytest.mark.unhooked
def test_compiles_as_one_graph() -> None:
    torch.compiler.reset()
    model = active_model()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), model(image()), atol=1e-5, rtol=1e-5)


@pytest.mark.unhooked
def test_exports_with_a_dynamic_batch() -> None:
    model = active_model()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (image(),), dynamic_shapes=({0: batch},))
    five = torch.randn(5, 3, 6, 5)
    torch.testing.assert_close(program.module()(five), model(five), atol=1e-5, rtol=1e-5)

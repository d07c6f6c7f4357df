"""Blocks of other projects: what is read computes the project's formula, and what is written has its keys.

Formulas and keys are written out here from the four projects' sources. Nothing here runs their code; random weights and
statistics stand for a trained block, γ ≠ 0 among them.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nlnet.block import NonLocalBlock
from nlnet.errors import WeightsError
from nlnet.weights.blocks import read_block, write_block

CHANNELS, INNER = 6, 3
GRIDS = {1: (6,), 2: (5, 4), 3: (2, 5, 4)}
PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
CASES = [
    (project, pairwise, ndim, norm, pool)
    for project in ("alexhex7", "mmcv", "slowfast", "pytorchvideo")
    for pairwise in PAIRWISE
    for ndim in GRIDS
    for norm, pool in itertools.product((True, False), repeat=2)
    if project in ("alexhex7", "mmcv") or (ndim == 3 and pairwise in ("embedded_gaussian", "dot_product"))
]


def keys(project: str, norm: bool, pool: bool) -> dict[str, str]:
    """Role → the project's key, without .weight and .bias."""
    inside = ".0" if pool else ""
    if project == "alexhex7":
        out = "W.0" if norm else "W"
        return {"theta": "theta", "phi": f"phi{inside}", "g": f"g{inside}", "out": out, "bn": "W.1"} | {
            "f": "concat_project.0"
        }
    if project == "mmcv":
        named = {role: f"{role}{inside if role != 'theta' else ''}.conv" for role in ("theta", "phi", "g")}
        return named | {"out": "conv_out.conv", "bn": "conv_out.bn", "f": "concat_project.conv"}
    named = {role: f"conv_{role}" for role in ("theta", "phi", "g", "out")}
    return named | {"bn": "bn" if project == "slowfast" else "norm"}


def made(project: str, pairwise: str, ndim: int, norm: bool, pool: bool) -> dict[str, Tensor]:
    """A random state dict with the project's keys and shapes."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    names, state = keys(project, norm, pool), {}
    for role in ("g",) if pairwise == "gaussian" else ("theta", "phi", "g"):
        state[f"{names[role]}.weight"] = random(INNER, CHANNELS, *[1] * ndim)
        state[f"{names[role]}.bias"] = random(INNER)
    state[f"{names['out']}.weight"] = random(CHANNELS, INNER, *[1] * ndim)
    if project != "mmcv" or not norm:
        state[f"{names['out']}.bias"] = random(CHANNELS)
    if pairwise == "concatenation":
        state[f"{names['f']}.weight"] = random(1, 2 * INNER, 1, 1)
    if norm:
        for leaf in ("weight", "bias", "running_mean"):
            state[f"{names['bn']}.{leaf}"] = random(CHANNELS)
        state[f"{names['bn']}.running_var"] = random(CHANNELS).exp()
        state[f"{names['bn']}.num_batches_tracked"] = torch.tensor(7)
    return state


def pooled(t: Tensor) -> Tensor:
    """Max over pairs of neighbours in space (in time for 1-D); the last of an odd number is dropped."""
    for axis in range(max(2, t.ndim - 2), t.ndim):
        even = t.narrow(axis, 0, t.shape[axis] // 2 * 2)
        t = even.unflatten(axis, (-1, 2)).amax(axis + 1)
    return t


def answer(
    project: str, state: dict[str, Tensor], x: Tensor, pairwise: str, norm: bool, pool: bool, scale: float
) -> Tensor:
    """The output of the project's block in evaluation, by its formula over all pairs."""
    names = keys(project, norm, pool)

    def linear(role: str, t: Tensor) -> Tensor:
        y = torch.einsum("oc,bc...->bo...", state[f"{names[role]}.weight"].flatten(1), t)
        bias = state.get(f"{names[role]}.bias")
        return y if bias is None else y + bias.view(-1, *[1] * (t.ndim - 2))

    first = project in ("slowfast", "pytorchvideo")
    shrink = pooled if pool else (lambda t: t)
    source = shrink(x) if first else x
    theta, phi, g = x, source, linear("g", source)
    if pairwise != "gaussian":
        theta, phi = linear("theta", x), linear("phi", source)
    if not first:
        phi, g = shrink(phi), shrink(g)
    theta, phi, g = theta.flatten(2), phi.flatten(2), g.flatten(2)
    if pairwise == "concatenation":
        weight = state[f"{names['f']}.weight"].flatten()
        a = torch.einsum("c,bcn->bn", weight[:INNER], theta)
        b = torch.einsum("c,bcm->bm", weight[INNER:], phi)
        f = torch.relu(a[:, :, None] + b[:, None, :]) / phi.shape[2]
    else:
        f = torch.einsum("bcn,bcm->bnm", theta, phi)
        f = f / phi.shape[2] if pairwise == "dot_product" else torch.softmax(scale * f, dim=-1)
    y = torch.einsum("bnm,bcm->bcn", f, g).reshape(x.shape[0], INNER, *x.shape[2:])
    z = linear("out", y)
    if norm:
        p = {
            leaf: state[f"{names['bn']}.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")
        }
        p = {leaf: value.view(-1, *[1] * (x.ndim - 2)) for leaf, value in p.items()}
        z = (z - p["running_mean"]) / (p["running_var"] + 1e-5).sqrt() * p["weight"] + p["bias"]
    return z + x


def sample(ndim: int) -> Tensor:
    return torch.randn(
        2, CHANNELS, *GRIDS[ndim], dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def known(project: str, pairwise: str, norm: bool, pool: bool) -> dict[str, object]:
    """Arguments of `read_block` for what the keys do not show."""
    options: dict[str, object] = {"pairwise": pairwise}
    if project in ("slowfast", "pytorchvideo"):
        options["subsample"] = pool
    return {"options": options, "source": project if project == "pytorchvideo" and not norm else None}


@pytest.mark.parametrize(("project", "pairwise", "ndim", "norm", "pool"), CASES)
def test_it_computes_what_the_projects_block_does(project, pairwise, ndim, norm, pool):
    state, x = made(project, pairwise, ndim, norm, pool), sample(ndim)
    scale = 1.0 if project == "alexhex7" or pairwise == "gaussian" else 1 / math.sqrt(INNER)
    read = read_block(state, **known(project, pairwise, norm, pool))
    assert read.source == project
    expected = answer(project, state, x, pairwise, norm, pool, scale)
    torch.testing.assert_close(read.build().eval()(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("project", "pairwise", "ndim", "norm", "pool"), CASES)
def test_written_back_it_is_the_file(project, pairwise, ndim, norm, pool):
    state = made(project, pairwise, ndim, norm, pool)
    written = write_block(read_block(state, **known(project, pairwise, norm, pool)).build(), project)
    assert written.keys() == state.keys()
    for key, value in state.items():
        assert written[key].dtype == value.dtype
        assert torch.equal(written[key], value), key


def test_mmcv_without_temperature():
    """use_scale=False, as mmaction2's networks have it."""
    state, x = made("mmcv", "embedded_gaussian", 3, True, True), sample(3)
    block = read_block(state, options={"scale": 1.0}).build()
    expected = answer("mmcv", state, x, "embedded_gaussian", True, True, 1.0)
    torch.testing.assert_close(block.eval()(x), expected, rtol=1e-11, atol=1e-11)


def test_training_normalises_by_the_batch():
    """z − x has mean β and deviation |γ| in every channel, whatever the running statistics."""
    state, x = made("slowfast", "dot_product", 3, True, True), sample(3)
    z = read_block(state, options={"pairwise": "dot_product"}).build().train()(x) - x
    torch.testing.assert_close(z.mean((0, 2, 3, 4)), state["bn.bias"])
    torch.testing.assert_close(
        z.var((0, 2, 3, 4), correction=0).sqrt(), state["bn.weight"].abs(), rtol=1e-3, atol=0
    )


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, object]:
    """Any arguments of a block."""
    ndim = draw(st.sampled_from((1, 2, 3)))
    axis = draw(
        st.sampled_from({1: ("time",), 2: ("space",), 3: ("space", "time")}[ndim] + ("spacetime",) * 3)
    )
    pairwise = draw(st.sampled_from(PAIRWISE))
    scales = (1.0,) if pairwise == "concatenation" else (1.0, 0.5, INNER**-0.5, None)
    return {
        "inner_channels": draw(st.sampled_from((INNER, 4))),
        "ndim": ndim,
        "axis": axis,
        "pairwise": pairwise,
        "subsample": draw(st.booleans()),
        "groups": draw(st.sampled_from((1, 1, 2))) if axis != "space" and ndim != 2 else 1,
        "norm": draw(st.sampled_from(("batch", "batch", "none", "group", "affine"))),
        "convention": draw(st.sampled_from(("paper", "released", "mmcv"))),
        "scale": draw(st.sampled_from(scales)),
    }


@settings(max_examples=150, deadline=None)
@given(options=arguments(), project=st.sampled_from(("alexhex7", "mmcv", "slowfast", "pytorchvideo")))
def test_what_is_written_means_the_same_there(options, project):
    """Writing fails, or the project's formula with the written weights gives the output of the block."""
    block = NonLocalBlock(CHANNELS, **options).double().eval()
    for value in block.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.1)
    try:
        state = write_block(block, project)
    except WeightsError:
        return
    x = sample(block.ndim)
    norm, pool = block.norm_kind != "none", block.pool is not None
    if block.inner_channels == INNER:
        expected = answer(project, state, x, block.pairwise, norm, pool, block.scale)
        torch.testing.assert_close(block(x), expected, rtol=1e-11, atol=1e-11)
    again = known(project, block.pairwise, norm, pool)
    if project == "mmcv" and block.pairwise == "embedded_gaussian":
        again["options"]["scale"] = block.scale
    torch.testing.assert_close(read_block(state, **again).build().eval()(x), block(x), rtol=1e-11, atol=1e-11)


LIMITS = [
    ("slowfast", {"ndim": 2, "convention": "released"}, "ndim 2"),
    ("slowfast", {"pairwise": "concatenation", "convention": "released"}, "pairwise concatenation"),
    ("mmcv", {"axis": "space", "convention": "mmcv"}, "axis space"),
    ("mmcv", {"groups": 2, "convention": "mmcv"}, "groups 2"),
    ("alexhex7", {"norm": "group"}, "norm group"),
    ("alexhex7", {"convention": "released", "scale": 1.0}, "pooling before φ and g"),
    ("slowfast", {"convention": "mmcv", "out_bias": True}, "pooling after φ and g"),
    ("alexhex7", {"scale": 0.5}, "scale 0.5"),
    ("pytorchvideo", {"convention": "released", "scale": 1.0}, "scale 1"),
    ("mmcv", {"convention": "mmcv", "out_bias": True}, "W_z with a bias"),
    ("alexhex7", {"out_bias": False}, "W_z without a bias"),
    ("mmcv", {"convention": "mmcv", "inner_channels": 4}, "4 inner channels"),
]


@pytest.mark.parametrize(("project", "options", "reason"), LIMITS)
def test_a_block_that_the_project_cannot_express(project, options, reason):
    block = NonLocalBlock(**{"in_channels": CHANNELS, "inner_channels": INNER} | options)
    with pytest.raises(WeightsError, match=f"cannot build this block: {reason}[^;]*$"):
        write_block(block, project)


def test_assumed_options_are_marked():
    read = read_block(made("slowfast", "embedded_gaussian", 3, True, True))
    assert read.options == {
        "in_channels": CHANNELS,
        "inner_channels": INNER,
        "ndim": 3,
        "pairwise": "embedded_gaussian",
        "subsample": True,
        "norm": "batch",
        "convention": "released",
        "out_bias": True,
    }
    assumed = {name for name, (_, why) in read.settings.items() if why.startswith("assumed")}
    assert assumed == {"pairwise", "subsample"}
    read = read_block(made("mmcv", "embedded_gaussian", 2, True, False))
    assumed = {name for name, (_, why) in read.settings.items() if why.startswith("assumed")}
    assert assumed == {"pairwise", "scale"}
    assert read.options["scale"] == pytest.approx(3**-0.5)
    read = read_block(made("alexhex7", "concatenation", 1, False, True))
    assert not any(why.startswith("assumed") for _, why in read.settings.values())


def test_the_block_knows_its_convention():
    block = read_block(made("slowfast", "embedded_gaussian", 3, True, True)).build()
    assert block.convention == "released"
    assert block.pool_position == "before"
    assert block.scale == pytest.approx(3**-0.5)


def test_groups_of_a_network_with_long_clips():
    read = read_block(made("slowfast", "embedded_gaussian", 3, True, True), options={"groups": 2})
    assert read.build().groups == 2


def test_pytorchvideo_does_not_pool_by_default():
    assert read_block(made("pytorchvideo", "dot_product", 3, True, False)).options["subsample"] is False


def test_a_block_inside_a_network():
    state = made("alexhex7", "embedded_gaussian", 2, True, True)
    network = {f"module.nl_1.{key}": value for key, value in state.items()} | {"fc.weight": torch.zeros(2, 2)}
    read = read_block(network, prefix="module.nl_1.")
    assert torch.equal(read.tensors["g.weight"], state["g.0.weight"])


def test_half_precision_stays_and_a_wider_norm_is_not_narrowed():
    state = {key: value.half() for key, value in made("mmcv", "gaussian", 2, False, False).items()}
    assert read_block(state).build().g.weight.dtype == torch.float16
    state = {key: value.half() for key, value in made("mmcv", "gaussian", 2, True, False).items()}
    state["conv_out.bn.running_var"] = state["conv_out.bn.running_var"].float() / 3
    assert torch.equal(read_block(state).build().norm.running_var, state["conv_out.bn.running_var"])


def test_a_file_without_the_counter_of_batches():
    state = made("alexhex7", "embedded_gaussian", 3, True, True)
    del state["W.1.num_batches_tracked"]
    block = read_block(state).build()
    assert block.norm.num_batches_tracked == 0
    assert torch.equal(block.norm.running_mean, state["W.1.running_mean"])


def test_keys_of_no_block():
    with pytest.raises(
        WeightsError, match=r"not a non-local block: got conv\.weight, expected the keys of AlexHex7"
    ):
        read_block({"conv.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"got no keys under 'nl\.', expected"):
        read_block(made("mmcv", "gaussian", 2, True, True), prefix="nl.")


def test_unexpected_keys_are_listed():
    state = made("mmcv", "embedded_gaussian", 2, True, True) | {"gate.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"block of mmcv.*\n  unexpected: gate\.weight$"):
        read_block(state)


def test_missing_keys_are_listed():
    state = made("slowfast", "embedded_gaussian", 3, True, True)
    del state["bn.running_var"], state["conv_phi.bias"], state["conv_out.bias"]
    with pytest.raises(WeightsError, match=r"missing: conv_phi\.bias, conv_out\.bias, bn\.running_var$"):
        read_block(state)


def test_a_bias_that_the_project_does_not_have():
    state = made("mmcv", "dot_product", 2, True, True) | {"conv_out.conv.bias": torch.zeros(CHANNELS)}
    with pytest.raises(WeightsError, match=r"unexpected: conv_out\.conv\.bias$"):
        read_block(state)


def test_a_norm_without_statistics_is_not_taken_for_one_with():
    """mmcv's group norm has the keys conv_out.gn: it is not read as a batch norm, and not dropped."""
    state = made("mmcv", "embedded_gaussian", 2, False, True)
    state |= {"conv_out.gn.weight": torch.ones(CHANNELS), "conv_out.gn.bias": torch.zeros(CHANNELS)}
    with pytest.raises(WeightsError, match=r"unexpected: conv_out\.gn\.weight, conv_out\.gn\.bias"):
        read_block(state)


def test_values_that_no_block_has():
    state = NonLocalBlock(8, 4, norm="none", out_bias=True, convention="released").state_dict()
    theirs = {f"conv_{name}": value for name, value in state.items()}
    theirs = {name.replace("conv_W_z", "conv_out"): value for name, value in theirs.items()}
    assert read_block(theirs).source == "slowfast"
    with pytest.raises(WeightsError, match=r"'conv_g.bias' of shape \(4,\) has NaN or infinite values"):
        read_block(theirs | {"conv_g.bias": torch.full((4,), math.inf)})
    with pytest.raises(WeightsError, match=r"'conv_phi.bias' .* got torch.int64, expected a floating-point"):
        read_block(theirs | {"conv_phi.bias": torch.zeros(4, dtype=torch.int64)})


def test_shapes_that_do_not_fit():
    state = made("alexhex7", "embedded_gaussian", 3, True, True)
    state["theta.weight"] = torch.zeros(INNER + 1, CHANNELS, 1, 1, 1)
    with pytest.raises(
        WeightsError, match=r"theta\.weight: got \(4, 6, 1, 1, 1\), expected \(3, 6, 1, 1, 1\)"
    ):
        read_block(state)


@pytest.mark.parametrize("shape", [(INNER, CHANNELS, 1, 1), (INNER, CHANNELS)])
def test_a_projects_axes(shape):
    state = made("slowfast", "embedded_gaussian", 3, True, True) | {"conv_g.weight": torch.zeros(shape)}
    with pytest.raises(
        WeightsError, match=r"PySlowFast: weight of g: got shape \(3, 6.*expected one with 5 axes"
    ):
        read_block(state)


def test_a_block_without_g():
    with pytest.raises(WeightsError, match=r"weight of g: got none, expected one with 3, 4, 5 axes"):
        read_block({"theta.weight": torch.zeros(INNER, CHANNELS, 1)})


@pytest.mark.parametrize(
    ("pairwise", "claimed"),
    [("concatenation", "dot_product"), ("gaussian", "dot_product"), ("dot_product", "gaussian")],
)
def test_a_pairwise_that_the_keys_contradict(pairwise, claimed):
    with pytest.raises(
        WeightsError, match=f"pairwise: got '{claimed}', but the state dict is of .*{pairwise}"
    ):
        read_block(made("alexhex7", pairwise, 2, True, True), options={"pairwise": claimed})


@pytest.mark.parametrize(("pool", "message"), [(True, "pools its keys"), (False, "does not pool its keys")])
def test_a_pooling_that_the_keys_contradict(pool, message):
    with pytest.raises(
        WeightsError, match=f"subsample: got {not pool}, but the state dict is of a block that {message}"
    ):
        read_block(made("mmcv", "dot_product", 2, True, pool), options={"subsample": not pool})


def test_unknown_names():
    state = made("mmcv", "dot_product", 2, True, True)
    with pytest.raises(WeightsError, match="source: got 'mmdet', expected one of alexhex7, mmcv"):
        read_block(state, source="mmdet")
    with pytest.raises(WeightsError, match="source: got 'mmdet', expected one of alexhex7, mmcv"):
        write_block(NonLocalBlock(2), "mmdet")
    with pytest.raises(WeightsError, match="option 'use_scale': expected one of pairwise, subsample"):
        read_block(state, options={"use_scale": True})

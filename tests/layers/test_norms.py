"""Norms by name: closed forms, initial values and errors."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.errors import NlnetError
from nlnet.layers.norms import NORMS, FrozenAffine, create_norm, has_trainable_scale

SHAPES = {1: (2, 6, 5), 2: (2, 6, 4, 3), 3: (2, 6, 3, 2, 4)}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", NORMS)
def test_kinds_keep_shape_and_dtype(kind: str, ndim: int) -> None:
    norm = create_norm(kind, 6, ndim=ndim)
    x = torch.randn(SHAPES[ndim])
    assert norm(x).shape == x.shape
    assert norm(x).dtype == x.dtype


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("batch", True), ("sync", True), ("group", True), ("layer", True), ("affine", False), ("none", False)],
)
def test_zero_init_zeroes_what_is_trainable(kind: str, expected: bool) -> None:
    norm = create_norm(kind, 6, ndim=3, zero_init=True)
    assert has_trainable_scale(norm) is expected
    y = norm(torch.randn(SHAPES[3]))
    assert bool((y == 0).all()) is expected


def test_batch_kinds_are_found_by_their_base_class() -> None:
    assert [kind for kind in NORMS if isinstance(create_norm(kind, 4, ndim=2), _BatchNorm)] == [
        "batch",
        "sync",
    ]


def test_batch_norm_has_the_release_constants() -> None:
    for kind in ("batch", "sync"):
        norm = create_norm(kind, 4, ndim=3)
        assert isinstance(norm, _BatchNorm)
        assert (norm.eps, norm.momentum) == (1e-5, 0.1)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 24), (7, 7), (37, 1), (1, 1), (96, 32)])
def test_group_norm_takes_the_largest_divisor_up_to_32(channels: int, groups: int) -> None:
    norm = create_norm("group", channels, ndim=2)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_layer_norm_normalises_each_sample_over_everything() -> None:
    y = create_norm("layer", 6, ndim=2)(3 + 2 * torch.randn(SHAPES[2], dtype=torch.float64).float())
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.square().mean(dim=(1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)


def test_frozen_affine_is_the_formula_and_has_no_parameters() -> None:
    norm = create_norm("affine", 2, ndim=1)
    assert isinstance(norm, FrozenAffine)
    norm.weight.copy_(torch.tensor([2.0, -1.0]))
    norm.bias.copy_(torch.tensor([0.5, 3.0]))
    x = torch.tensor([[[1.0, 2.0], [4.0, 5.0]]], requires_grad=True)
    assert norm(x).tolist() == [[[2.5, 4.5], [-1.0, -2.0]]]
    assert list(norm.parameters()) == []
    assert sorted(norm.state_dict()) == ["bias", "weight"]
    assert norm(x.half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("kind", "channels", "ndim", "message"),
    [
        ("bacth", 4, 3, r"norm: got 'bacth', expected one of batch, .*; did you mean 'batch'\?"),
        ("batch", 4, 4, "ndim: got 4, expected 1, 2 or 3"),
        ("batch", 0, 3, "channels: got 0, expected at least 1"),
    ],
)
def test_bad_arguments(kind: str, channels: int, ndim: int, message: str) -> None:
    with pytest.raises(NlnetError, match=message):
        create_norm(kind, channels, ndim=ndim)

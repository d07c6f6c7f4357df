"""The definition against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from nlnet.ops.reference import PAIRWISE, affinity, definition, operator_of


def column(*values: float) -> Tensor:
    """(1, len, 1): one batch item, one channel."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_softmax_of_two_keys():
    # θ = 1, φ = 0 and 1: exp(0) = 1, exp(1) = e
    expected = torch.tensor([[[1.0, math.e]]], dtype=torch.float64) / (1 + math.e)
    got = affinity(column(1), column(0, 1), pairwise="softmax")
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)


def test_softmax_scale_multiplies_the_logits():
    # s = ½, θ = 2, φ = 0 and log 3: exp(0) = 1, exp(log 3) = 3
    got = affinity(column(2), column(0, math.log(3)), pairwise="softmax", scale=0.5)
    torch.testing.assert_close(got, torch.tensor([[[0.25, 0.75]]], dtype=torch.float64), rtol=0, atol=1e-15)


def test_dot_product_divides_by_the_number_of_keys():
    # s·θφ/M with s = 3, M = 2: θ = 1, 2 and φ = 4, −6
    got = affinity(column(1, 2), column(4, -6), pairwise="dot_product", scale=3.0)
    expected = torch.tensor([[[6.0, -9.0], [12.0, -18.0]]], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-15, atol=0)


def test_concatenation_rectifies_the_sum_and_divides_by_the_number_of_keys():
    # w = [2, 1], a = 2θ = 2, −4; b = φ = −1, 3, −2 (a tie with a₁); ReLU(a + b)/3
    weight = torch.tensor([2.0, 1.0], dtype=torch.float64)
    got = affinity(column(1, -2), column(-1, 3, -2), pairwise="concatenation", weight=weight)
    expected = torch.tensor([[[1.0, 5.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64) / 3
    torch.testing.assert_close(got, expected, rtol=1e-15, atol=0)


def test_concatenation_is_the_written_out_concatenation():
    theta, phi = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    weight = torch.randn(8, dtype=torch.float64)
    got = affinity(theta, phi, pairwise="concatenation", weight=weight)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        joined = torch.cat([theta[b, i], phi[b, j]])
        assert got[b, i, j].item() == pytest.approx(max(0.0, torch.dot(weight, joined).item()) / 5, abs=1e-14)


def test_definition_weighs_the_values():
    # affinities 1/(1 + e) and e/(1 + e) of values 0 and 1
    got = definition(column(1), column(0, 1), column(0, 1), pairwise="softmax")
    assert got.item() == pytest.approx(math.e / (1 + math.e), abs=1e-15)


@pytest.mark.parametrize("pairwise", ["softmax", "dot_product"])
def test_half_precision_stays_finite_where_the_product_before_the_scale_overflows(pairwise: str):
    x = torch.full((1, 4, 512), 32.0, dtype=torch.float16)  # 32·32·512 = 524,288 > 65,504
    got = affinity(x, x, pairwise=pairwise, scale=512**-0.5)
    # softmax: four equal keys; dot product: 524288/√512/4 = 5792.6, to fp16's eleven bits
    torch.testing.assert_close(
        got, torch.full_like(got, 0.25 if pairwise == "softmax" else 5792.6), rtol=4e-3, atol=0
    )


def test_names_of_the_paper():
    assert {name: operator_of(name) for name in ("softmax", *PAIRWISE)} == {
        "softmax": "softmax",
        "gaussian": "softmax",
        "embedded_gaussian": "softmax",
        "dot_product": "dot_product",
        "concatenation": "concatenation",
    }


def test_unknown_name_gets_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown pairwise 'embeded_gausian'.*did you mean 'embedded_gaussian'"
    ):
        affinity(column(1), column(1), pairwise="embeded_gausian")
    with pytest.raises(
        ValueError, match=r"unknown pairwise 'zzz'; expected one of 'softmax', .*'embedded_gaussian'$"
    ):
        operator_of("zzz")


def test_concatenation_needs_a_weight():
    with pytest.raises(ValueError, match=r"needs weight = w_f of shape \(2,\); got None"):
        affinity(column(1), column(1), pairwise="concatenation")

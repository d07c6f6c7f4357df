"""The table is all there is: what stands in it runs, what does not cannot, and a fifth pairwise function is two entries."""

from dataclasses import replace

import pytest
import torch

from nlnet.block import NonLocalBlock
from nlnet.errors import NlnetError
from nlnet.ops import algorithms, choose_algorithm, nonlocal_operation, reference
from nlnet.ops.algorithms import ALGORITHMS, Algorithm, cheapest
from nlnet.ops.reference import OPERATORS, PAIRWISE, Operator, Pairwise

THETA, PHI, G = (torch.randn(2, length, 4, dtype=torch.float64) for length in (7, 5, 5))


@pytest.fixture
def table(monkeypatch):
    """The softmax algorithms, to be changed by a test."""
    entries = dict(ALGORITHMS["softmax"])
    monkeypatch.setitem(ALGORITHMS, "softmax", entries)
    cheapest.cache_clear()
    yield entries
    cheapest.cache_clear()


def test_an_entry_of_the_table_is_what_runs(table):
    """An algorithm once missing from a chain of ifs computed the dot product instead, in silence."""
    table["sevens"] = replace(
        table["definition"], run=lambda theta, phi, g, weight, scale: torch.full_like(theta[..., :4], 7)
    )
    y = nonlocal_operation(THETA, PHI, G, pairwise="softmax", algorithm="sevens")
    assert (y == 7).all()


def test_what_is_not_in_the_table_cannot_run(table):
    del table["tiled"]
    with pytest.raises(
        NlnetError, match="algorithm 'tiled' cannot compute pairwise 'softmax'; expected 'auto' or one of"
    ):
        nonlocal_operation(THETA, PHI, G, pairwise="softmax", algorithm="tiled")
    with pytest.raises(NlnetError, match="algorithm: got 'tiled'"):
        NonLocalBlock(8, algorithm="tiled")


def test_an_entry_serves_only_where_it_says(table):
    """A kernel of a GPU is never taken on the CPU, however cheap it is, and says why when it is asked for there."""
    table["kernel"] = replace(
        table["sdpa"], serves=lambda p: p.device == "cuda", where="CUDA devices", price=lambda p: 0.0
    )
    sizes = {"batch": 1, "queries": 64, "keys": 64, "compared": 8, "carried": 8, "dtype": torch.float32}
    assert choose_algorithm("softmax", **sizes, device="cuda").algorithm == "kernel"
    here = choose_algorithm("softmax", **sizes, device="cpu")
    assert here.algorithm != "kernel"
    assert "kernel" not in here.macs
    with pytest.raises(
        NlnetError,
        match="algorithm 'kernel' runs on CUDA devices only; got torch.float64 on cpu: take 'auto'",
    ):
        nonlocal_operation(THETA, PHI, G, pairwise="softmax", algorithm="kernel")


def test_auto_takes_the_cheapest(table):
    table["free"] = replace(table["sdpa"], price=lambda p: 0.0)
    sizes = {"batch": 1, "queries": 9, "keys": 9, "compared": 8, "carried": 8, "dtype": torch.float32}
    choice = choose_algorithm("softmax", **sizes, device="cpu")
    assert choice.algorithm == "free"
    assert "0.0 M for free against" in choice.reason


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_a_definition_and_one_entry_that_compiles_anywhere(operator):
    assert "definition" in ALGORITHMS[operator]
    assert any(entry.compiles is algorithms._anywhere for entry in ALGORITHMS[operator].values())


def test_a_fifth_pairwise_function_is_two_entries(monkeypatch):
    """f = (θᵢᵀφⱼ)², C = M, through the block, its counts and its attention rows, with no other line changed."""

    def squared(theta, phi, weight, scale):
        return (theta @ phi.mT).square() / phi.shape[1]

    monkeypatch.setitem(OPERATORS, "squared", Operator(affinity=squared))
    monkeypatch.setitem(PAIRWISE, "squared", Pairwise(operator="squared", formula="(θ_iᵀφ_j)²"))
    monkeypatch.setitem(ALGORITHMS, "squared", {"definition": algorithms.by_definition("squared")})
    block = NonLocalBlock(6, ndim=2, pairwise="squared", subsample=False, norm="none").double()
    torch.nn.init.normal_(block.W_z.weight)
    x = torch.randn(1, 6, 3, 4, dtype=torch.float64)
    theta, phi, g = (layer(x).flatten(2).mT for layer in (block.theta, block.phi, block.g))
    y = ((theta @ phi.mT).square() / 12) @ g
    expected = x + block.W_z(y.mT.unflatten(2, (3, 4)))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    row = block.affinity_rows(x, (1, 2))
    torch.testing.assert_close(row.flatten(), (theta[0, 6] @ phi[0].T).square() / 12, rtol=1e-12, atol=1e-12)
    assert block.macs((6, 3, 4)) == 2 * 6 * 3 * 24 + 12 * 12 * (3 + 3)


def test_the_definition_is_the_oracle_of_the_table():
    assert ALGORITHMS.keys() == OPERATORS.keys()
    assert {entry.operator for entry in PAIRWISE.values()} == OPERATORS.keys()
    assert isinstance(ALGORITHMS["softmax"]["sdpa"], Algorithm)
    assert reference.operator_of("gaussian") == "softmax"

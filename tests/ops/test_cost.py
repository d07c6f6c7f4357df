"""The cost rule: counts by hand, what it picks at the paper's shapes, and that `auto` does what it says."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from nlnet.ops import choose_algorithm, cost, nonlocal_operation
from nlnet.ops.algorithms import ALGORITHMS, Choice, cheapest

LINEAR = {"softmax": "sdpa", "dot_product": "reassociated", "concatenation": "sorted"}


def choose(
    pairwise: str,
    queries: int,
    keys: int,
    width: int,
    batch: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    backward: bool = True,
) -> Choice:
    return choose_algorithm(
        pairwise,
        batch=batch,
        queries=queries,
        keys=keys,
        compared=width,
        carried=width,
        dtype=dtype,
        device=device,
        backward=backward,
    )


def test_multiply_adds_by_hand():
    sizes = {"batch": 2, "queries": 10, "keys": 5, "compared": 3, "carried": 4}
    settings = {"dtype": torch.float32, "device": "cpu"}
    # 2·10·5·(3 + 4) = 700; 2·15·3·4 = 360; 2·15·3 + 2·10·5·4 = 490; 2·15·3 + 2·2·15·4 = 330
    assert choose_algorithm("softmax", **sizes, **settings).macs == {
        "definition": 700,
        "tiled": 700,
        "sdpa": 700,
    }
    assert choose_algorithm("dot_product", **sizes, **settings).macs == {
        "definition": 700,
        "reassociated": 360,
    }
    assert choose_algorithm("concatenation", **sizes, **settings).macs == {"definition": 490, "sorted": 330}


@pytest.mark.parametrize(
    ("pairwise", "queries", "keys", "width", "expected"),
    [
        ("softmax", 784, 196, 512, "definition"),
        ("softmax", 12544, 3136, 256, "tiled"),
        ("softmax", 4096, 1024, 256, "tiled"),
        ("softmax", 24200, 5832, 128, "tiled"),
        ("softmax", 24200, 5832, 64, "sdpa"),
        ("dot_product", 784, 196, 512, "definition"),
        ("dot_product", 3136, 784, 512, "reassociated"),
        ("dot_product", 3136, 784, 256, "reassociated"),
        ("dot_product", 12544, 12544, 256, "reassociated"),
        ("concatenation", 49, 49, 64, "definition"),
        ("concatenation", 3136, 784, 256, "sorted"),
        ("concatenation", 12544, 3136, 256, "sorted"),
    ],
)
def test_choice_at_the_papers_shapes(pairwise: str, queries: int, keys: int, width: int, expected: str):
    assert choose(pairwise, queries, keys, width).algorithm == expected


@pytest.mark.parametrize("pairwise", ALGORITHMS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_linear_memory_in_the_limit(pairwise: str, device: str):
    for dtype in (torch.float32, torch.bfloat16):
        choice = choose(pairwise, 400_000, 100_000, 256, device=device, dtype=dtype)
        tiled = pairwise == "softmax" and device == "cpu"
        assert choice.algorithm == ("tiled" if tiled else LINEAR[pairwise])
        assert choice.bytes[choice.algorithm] < choice.bytes["definition"] / 100


def test_softmax_on_an_accelerator_is_always_fused():
    assert choose("softmax", 2, 2, 8, device="cuda").algorithm == "sdpa"


def test_half_precision_keeps_no_large_map_of_float32():
    """The definition computes in float32; the others have the half's products, at half their price or less."""
    assert choose("softmax", 49, 49, 64, batch=16, dtype=torch.bfloat16).algorithm == "definition"
    sizes = {"batch": 1, "queries": 784, "keys": 196, "compared": 512, "carried": 512, "device": "cpu"}
    for dtype, softmax, dot in (
        (torch.float32, "definition", "definition"),
        (torch.bfloat16, "sdpa", "reassociated"),
    ):
        assert choose_algorithm("softmax", **sizes, dtype=dtype).algorithm == softmax
        assert choose_algorithm("dot_product", **sizes, dtype=dtype).algorithm == dot


@pytest.mark.parametrize("batch", [1, 8])
def test_large_maps_are_tiled_on_the_cpu(batch: int):
    """In bf16 always, in float32 where the products are long and there is a backward pass."""
    for dtype, keys, device, algorithm in (
        (torch.bfloat16, 1024, "cpu", "tiled"),
        (torch.bfloat16, 1023, "cpu", "sdpa"),
        (torch.float16, 1024, "cpu", "sdpa"),
        (torch.bfloat16, 1024, "cuda", "sdpa"),
    ):
        for backward in (True, False):
            choice = choose("softmax", 1024, keys, 64, batch, device, dtype, backward)
            assert choice.algorithm == algorithm
    for width, backward, algorithm in ((128, True, "tiled"), (127, True, "sdpa"), (128, False, "sdpa")):
        assert choose("softmax", 6272, 1568, width, batch, backward=backward).algorithm == algorithm


def test_bytes_grow_as_the_table_says():
    for pairwise, fast in (("softmax", "sdpa"), ("dot_product", "reassociated"), ("concatenation", "sorted")):
        small, large = choose(pairwise, 8000, 2000, 64), choose(pairwise, 16000, 4000, 64)
        assert large.bytes["definition"] == 4 * small.bytes["definition"]
        assert large.bytes[fast] <= 2 * small.bytes[fast]


def test_reason_has_the_numbers():
    # 12544·3136 = 39,337,984; (3136 + 784)·256² = 256.9 M; 3136·784·512 + 10·3136·784 = 1,283.4 M
    assert "39,337,984" in choose("softmax", 12544, 3136, 256).reason
    reason = choose("dot_product", 3136, 784, 256).reason
    assert "256.9 M for reassociated against 1,283.4 M for definition" in reason


def test_names_of_the_paper_are_known_and_others_are_not():
    assert choose("embedded_gaussian", 10, 10, 8) == choose("softmax", 10, 10, 8)
    with pytest.raises(ValueError, match=r"unknown pairwise 'concat'; .*did you mean 'concatenation'"):
        choose("concat", 10, 10, 8)


def test_the_rule_only_prices_algorithms_that_exist():
    for pairwise, names in ALGORITHMS.items():
        choice = choose(pairwise, 100, 50, 8)
        assert tuple(choice.macs) == tuple(choice.bytes) == tuple(names)
        assert choice.algorithm in names


def operators_used(pairwise: str, queries: int) -> set[str]:
    theta, phi, g = (torch.randn(1, length, 8) for length in (queries, 64, 64))
    weight = torch.randn(16) if pairwise == "concatenation" else None
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        nonlocal_operation(theta, phi, g, pairwise=pairwise, weight=weight)
    return {event.name for event in recorded.events()}


@pytest.mark.parametrize(
    ("pairwise", "sign"),
    [("softmax", "aten::scaled_dot_product_attention"), ("concatenation", "aten::searchsorted")],
)
def test_auto_runs_what_the_rule_picks(pairwise: str, sign: str, monkeypatch: pytest.MonkeyPatch):
    assert sign not in operators_used(pairwise, 16)
    rates = replace(cost.CPU, map=1e9, sorted=0.0, launches=0.0, kept_map=0, half=1.0)
    monkeypatch.setattr(cost, "CPU", rates)
    cheapest.cache_clear()
    assert sign in operators_used(pairwise, 16)
    cheapest.cache_clear()

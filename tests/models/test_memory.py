"""Memory of a training clip: the bytes that a real forward pass saves, and the closed form of a small local network."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from nlnet.models.flops import ShapesOnly
from nlnet.models.memory import activation_memory
from nlnet.zoo import create_model

CLIP = (8, 32, 32)


def really_saved(model, clip):
    """Bytes of the storages that a forward pass on real numbers saves, parameters and buffers left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved, tensors = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            tensors.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(1, 3, *clip))
    return sum(saved.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("c2d_mini", {}),
        ("i3d_mini_rb1", {"dropout": 0.0}),
        ("i3d_mini_nl1", {"algorithm": "definition"}),
        ("i3d_mini_nl1", {"algorithm": "tiled"}),
        ("i3d_mini_nl1", {"pairwise": "dot_product", "algorithm": "reassociated", "convention": "paper"}),
        ("i3d_mini_nl1", {"pairwise": "concatenation", "algorithm": "sorted"}),
        ("i3d_mini_nl1", {"norm": "affine", "nonlocal_norm": "none", "algorithm": "tiled"}),
        ("i3d_mini_nl1", {"norm": "group", "nonlocal_norm": "layer", "algorithm": "tiled"}),
    ],
)
def test_counted_bytes_are_those_that_a_real_forward_pass_saves(name, options):
    with ShapesOnly():
        on_meta = create_model(name, variant="8x8", num_classes=5, **options)
    real = create_model(name, variant="8x8", num_classes=5, **options)
    expected = really_saved(real.train(), CLIP)
    assert activation_memory(on_meta, CLIP).kept == expected
    assert activation_memory(real, CLIP).kept == expected


def test_fused_attention_keeps_no_map():
    """θ, φ, g, y instead of y and the N×M weights (twice: the softmax's output is the product's input)."""
    kept = {}
    for algorithm in ("auto", "tiled", "definition"):
        with ShapesOnly():
            model = create_model("i3d_mini_nl1", variant="8x8", algorithm=algorithm)
        kept[algorithm] = activation_memory(model, (8, 64, 64)).kept
        assert [m.algorithm for m in model.modules() if hasattr(m, "algorithm")] == [algorithm]
    assert kept["auto"] == kept["tiled"] < kept["definition"]


def test_the_closed_form_of_a_local_network():
    """c2d_mini at 8×32×32, float32: conv1 to 16×16, pool1 (unpadded) to 7×7, res2; pool2 halves time; res3, res4.

    A layer is kept once for its batch norm (the convolution's output) and once as the input of the next layer;
    the ReLU works in place. A residual block keeps its input, two per 1×1 and 3×3, one per last convolution and
    shortcut, and its output.
    """

    def block(inner, outer, before, after, shortcut):
        """Bytes that a block saves besides its input, `before` and `after` the stride."""
        return 4 * (2 * inner * before + 2 * inner * after + outer * after * (3 if shortcut else 2))

    statistics = 4 * 2  # mean and inverse deviation per channel
    stem = 4 * 2 * 16 * 8 * 256 + 8 * 16 * 8 * 49 + statistics * 16  # conv1, ReLU, indices of pool1 in int64
    first = block(16, 64, 8 * 49, 8 * 49, True) + statistics * (16 + 16 + 64 + 64)
    pool2 = 8 * 64 * 4 * 49
    second = block(32, 128, 4 * 49, 4 * 16, True) + statistics * (32 + 32 + 128 + 128)
    third = block(32, 128, 4 * 16, 4 * 16, False) + statistics * (32 + 32 + 128)
    fourth = block(64, 256, 4 * 16, 4 * 4, True) + statistics * (64 + 64 + 256 + 256)
    fifth = block(64, 256, 4 * 4, 4 * 4, False) + statistics * (64 + 64 + 256)
    head = 4 * 256  # the input of fc
    clip = 4 * 3 * 8 * 32 * 32
    inputs = 4 * (16 * 8 * 49 + 64 * 4 * 49 + 128 * 4 * 16 + 128 * 4 * 16 + 256 * 4 * 4)
    with ShapesOnly():
        model = create_model("c2d_mini", variant="8x8", dropout=0.0)
    memory = activation_memory(model, CLIP)
    # pool2 and res3 share the map between them, as do all neighbours: inputs that are no block's output add up
    alone = 4 * (16 * 8 * 49 + 64 * 4 * 49)
    assert memory.kept == clip + stem + first + pool2 + second + third + fourth + fifth + head + alone
    # with checkpointing: the inputs, what lies between the blocks (pool2 and its input), the head, the largest
    between = pool2 + 4 * 64 * 8 * 49
    assert memory.checkpointed == clip + inputs + between + head + max(stem, first - 4 * 64 * 8 * 49)


def test_checkpointing_keeps_less_than_all_and_more_than_nothing():
    for name in ("i3d_mini_nl1", "c2d_mini_rb1"):
        with ShapesOnly():
            memory = activation_memory(create_model(name, variant="8x8"), CLIP)
        assert 0.25 * memory.kept < memory.checkpointed < 0.75 * memory.kept


def test_the_model_is_left_as_it_was():
    model = create_model("i3d_mini_nl1", variant="8x8").eval()
    model.checkpointing = True
    before = [(name, type(module), module.training) for name, module in model.named_modules()]
    with ShapesOnly():
        on_meta = create_model("i3d_mini_nl1", variant="8x8").eval()
    for network in (model, on_meta):
        network.checkpointing = True
        activation_memory(network, CLIP)
        assert [(n, type(m), m.training) for n, m in network.named_modules()] == before
        assert network.checkpointing
        assert not any(m._forward_pre_hooks for m in network.modules())

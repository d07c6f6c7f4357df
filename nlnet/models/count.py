"""Parameters and multiply-adds of a network, attention counted.

Multiply-adds (MACs) of convolutions, linear layers and the two matrix products of each non-local block
(N·M·D for the affinity, N·M·C for the sum), by the quadratic definition whatever algorithm will run: the
convention of the paper and of everyone who quotes it. Norms, activations, pooling and biases count nothing.
"""

from copy import deepcopy
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from nlnet.block import NonLocalBlock


@dataclass(frozen=True, kw_only=True)
class Cost:
    parameters: int
    """Trainable parameters, norms included."""
    macs: int
    """Multiply-adds of one forward pass."""


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count(model: nn.Module, clip: tuple[int, int, int]) -> Cost:
    """Parameters and multiply-adds of `model` for one clip of (T, H, W).

    Runs a copy on the meta device: no arithmetic, no memory.
    """
    network = deepcopy(model).to("meta").eval()
    total = 0

    def layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.numel() // weight.shape[0] * prod(weight.shape)

    def block(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, NonLocalBlock)
        total += module.macs(tuple(inputs[0].shape[1:])) * inputs[0].shape[0]

    inside = {id(m) for nl in network.modules() if isinstance(nl, NonLocalBlock) for m in nl.modules()}
    for module in network.modules():
        if isinstance(module, NonLocalBlock):
            module.register_forward_hook(block)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and id(module) not in inside:
            module.register_forward_hook(layer)
    with torch.no_grad():
        network(torch.empty(1, 3, *clip, device="meta"))
    return Cost(parameters=parameters(model), macs=total)

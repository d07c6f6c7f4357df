"""Parameters and multiply-adds of a network, including its attention.

Multiply-adds (MACs) are those of convolutions, linear layers and the two matrix products of each non-local block
(N·M·D for the affinity, N·M·C for the sum), by the quadratic definition whatever algorithm runs: the convention of
the paper and of those who cite it. Norms, activations, pooling and biases are not counted.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from nlnet.block import NonLocalBlock


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size and the cost of a network."""

    parameters: int
    """Trainable parameters, norms included."""
    macs: int
    """Multiply-adds of one forward pass."""


class ShapesOnly(TorchFunctionMode):
    """Build networks on the meta device inside the context: tensors have shapes but no memory and no values.

    `with ShapesOnly(): create_model(…)` takes milliseconds for a network of any size.
    """

    FILLS = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_, nn.init.normal_})

    def __enter__(self) -> "ShapesOnly":
        self.device = torch.device("meta")
        self.device.__enter__()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.device.__exit__(kind, error, trace)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # The values are not stored, but to compute them torch would import its reference operators: seconds.
        if func in self.FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def parameters(model: nn.Module) -> int:
    """The number of parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def count(model: nn.Module, clip: tuple[int, int, int]) -> Cost:
    """Count the parameters and the multiply-adds of a model for one clip of (T, H, W).

    Runs on the meta device, without arithmetic and memory.
    """
    total = 0

    def layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        # each output position of each sample takes one multiply-add per weight
        total += output.numel() // weight.shape[0] * weight.numel()

    def block(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, NonLocalBlock)
        total += module.macs(tuple(inputs[0].shape[1:])) * inputs[0].shape[0]

    with on_meta(model, nn.Identity, training=False) as (network, hooks), torch.no_grad():
        # layers of a non-local block are left out here: `block.macs` includes them
        inside = {id(m) for nl in network.modules() if isinstance(nl, NonLocalBlock) for m in nl.modules()}
        for module in network.modules():
            if isinstance(module, NonLocalBlock):
                hooks.append(module.register_forward_hook(block))
            elif (
                isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and id(module) not in inside
            ):
                hooks.append(module.register_forward_hook(layer))
        network(torch.empty(1, 3, *clip, device="meta"))
    return Cost(parameters=parameters(model), macs=total)


@contextmanager
def on_meta(
    model: nn.Module, norm: Callable[[], nn.Module], *, training: bool
) -> Iterator[tuple[nn.Module, list[RemovableHandle]]]:
    """Yield a model on the meta device with `norm()` in place of every batch norm, and a list for hook handles.

    The model is copied, unless it is on the meta device already. `training` sets its mode. When the context ends, the
    hooks in the list are removed, and norms and modes are as before.
    """
    # Batch norms are replaced because torch runs them on the meta device by slow Python code.
    there = all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    network = model if there else deepcopy(model).to("meta")
    modes = [(module, module.training) for module in network.modules()]
    norms = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
    ]
    hooks: list[RemovableHandle] = []
    try:
        for parent, name, _ in norms:
            setattr(parent, name, norm())
        yield network.train(training), hooks
    finally:
        for hook in hooks:
            hook.remove()
        for parent, name, child in norms:
            setattr(parent, name, child)
        for module, mode in modes:
            module.training = mode

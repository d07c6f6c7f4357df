"""Non-local blocks into any network, by path.

A block sits after its host module: it becomes the host's child `nonlocal_block`, and a forward hook applies it to what
the host returns; a plain `nn.Sequential` gets it as its last child instead and needs no hook. Old state-dict keys
stay as they are, new ones are `{host path}.nonlocal_block.{parameter}`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from nlnet.block import CONVOLUTIONS, NonLocalBlock
from nlnet.block_options import BlockOptions, spelled_out, with_defaults
from nlnet.errors import InsertionError
from nlnet.insertion.summary import Row, Summary
from nlnet.insertion.targets import NAME, Where, check_host, find_hosts, is_chain
from nlnet.layers.modes import evaluating
from nlnet.ops import choose_algorithm

AXES_OF_NORM: dict[type[nn.Module], int] = {
    norm: ndim
    for ndim, norms in {
        1: (nn.BatchNorm1d, nn.InstanceNorm1d),
        2: (nn.BatchNorm2d, nn.InstanceNorm2d),
        3: (nn.BatchNorm3d, nn.InstanceNorm3d),
    }.items()
    for norm in norms
}


def insert_nonlocal(
    model: nn.Module,
    where: Where,
    *,
    example_input: Tensor | None = None,
    ndim: int | None = None,
    inner_channels: int | None = None,
    **options: Unpack[BlockOptions],
) -> Summary:
    """Put a fresh `NonLocalBlock` after each module that `where` names; what the model computes stays, bit for bit.

    Args:
        model: changed in place, or not at all if anything raises.
        where: "layer3.1", a glob over path parts "layer3.*", a list of either, or rules by stage:
            {"layer3": "every 2nd"} (children 1, 3, … counted from 0, as the release does; "every 3rd": 2, 5, …),
            "all", "last", "before last" (in front of the last child, the paper's single block), or indices [1, 3].
        example_input: one batch for `model`. Sizes are then measured in one forward pass (evaluation mode, no
            gradient; modes and statistics are as before), shapes are checked, and the summary has costs.
            Without it, a host's channels and axes are those of its last convolution or norm.
        ndim: axes of the maps, where they cannot be inferred.
        options: see `nlnet.block_options.BlockOptions`: pairwise, axis, subsample, groups, norm, convention,
            pool_position, scale, init, out_bias, algorithm.

    Blocks are created in the model's order from torch's global generator, on their host's device, in its dtype and
    training mode.

    Raises:
        InsertionError: a ValueError with the path, what was found and what to do. Nothing matches; one host twice;
            a host that has a block; a container without a forward of its own, or whose forward runs its children;
            channels or axes unknown; an output that is no tensor or that the block cannot take; an unknown rule.
        ValueError: a block option that `NonLocalBlock` refuses.
    """
    with_defaults(options, "insert_nonlocal")  # a misspelt option is refused before anything is looked at
    hosts = find_hosts(model, where)
    for path, host in hosts.items():
        check_host(path, host, NAME)
    outputs = None if example_input is None else _outputs(model, hosts, example_input)
    blocks = {}
    for path, host in hosts.items():
        sizes = (
            _sizes(path, host, ndim) if outputs is None else (outputs[path].ndim - 2, outputs[path].shape[1])
        )
        if ndim is not None and sizes[0] != ndim:
            raise InsertionError(f"{path!r} returns maps with {sizes[0]} axes, expected ndim = {ndim}")
        block = NonLocalBlock(
            sizes[1],
            inner_channels,
            ndim=sizes[0],
            **options,
        )
        if outputs is not None:
            try:
                block.positions(tuple(outputs[path].shape[2:]))
            except ValueError as error:
                raise InsertionError(
                    f"{path!r} returns a map of shape {tuple(outputs[path].shape)}: {error}"
                ) from None
        blocks[path] = _like(block, host, model)
    rows = tuple(
        _row(path, block, None if outputs is None else outputs[path]) for path, block in blocks.items()
    )
    for path, block in blocks.items():
        attach(model, path, NAME, block)
    return Summary(rows)


spelled_out(insert_nonlocal)


def nonlocal_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """Every non-local block of `model` by its path, in the model's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, NonLocalBlock)}


def attach(model: nn.Module, path: str, name: str, block: nn.Module) -> None:
    """Make `block` the child `name` of the module at `path`, applied to whatever that module returns.

    Raises:
        InsertionError: not the path of one module, a child of that name, or a container that cannot carry one.
    """
    host = find_hosts(model, [path]).get(path)
    if host is None:
        raise InsertionError(f"path: got the pattern {path!r}, expected the path of one module")
    check_host(path, host, name)
    host.add_module(name, block)
    if not is_chain(host):
        host.register_forward_hook(ApplyChild(name))


class ApplyChild:
    """A forward hook that passes the module's output through its child `name`. Pickles and copies with the model."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InsertionError(
                f"{type(module).__name__} with the child {self.name!r} returned {type(output).__name__}, "
                "expected one tensor: insert after a module that returns one"
            )
        result: Tensor = getattr(module, self.name)(output)
        return result


def _outputs(model: nn.Module, hosts: Mapping[str, nn.Module], example: Tensor) -> dict[str, Tensor]:
    """What each host returns for `example`, checked to be one map from one call."""
    found: dict[str, list[Any]] = {path: [] for path in hosts}

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: found[path].append(output)

    handles = [host.register_forward_hook(keep(path)) for path, host in hosts.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    for path, outputs in found.items():
        if len(outputs) != 1:
            raise InsertionError(f"{path!r} ran {len(outputs)} times on the example input, expected once")
        if not isinstance(outputs[0], Tensor):
            raise InsertionError(f"{path!r} returned {type(outputs[0]).__name__}, expected one tensor")
        if outputs[0].ndim - 2 not in CONVOLUTIONS or not outputs[0].is_floating_point():
            raise InsertionError(
                f"{path!r} returned {outputs[0].dtype} of shape {tuple(outputs[0].shape)}, expected floating point "
                "(B, C, T), (B, C, H, W) or (B, C, T, H, W)"
            )
    return {path: outputs[0] for path, outputs in found.items()}


def _sizes(path: str, host: nn.Module, ndim: int | None) -> tuple[int, int]:
    """(ndim, channels) by the last convolution or norm in the host; a linear layer after it makes both unknown."""
    axes: int | None = None
    channels: int | None = None
    for module in host.modules():
        if isinstance(module, _ConvNd):
            axes, channels = len(module.kernel_size), module.out_channels
        elif isinstance(module, _NormBase):
            axes, channels = AXES_OF_NORM.get(type(module)) or axes, module.num_features
        elif isinstance(module, nn.GroupNorm):
            channels = module.num_channels
        elif isinstance(module, nn.Linear | nn.LayerNorm):
            axes = channels = None
    axes = axes if ndim is None else ndim
    if axes is None or channels is None:
        missing = "channels" if channels is None else "number of axes"
        raise InsertionError(
            f"{path!r} ({type(host).__name__}) does not show the {missing} of what it returns: give example_input"
            + (" or ndim" if channels is not None else "")
        )
    return axes, channels


def _like(block: NonLocalBlock, host: nn.Module, model: nn.Module) -> NonLocalBlock:
    """The block on the host's device, in its dtype and its mode."""
    for module in (host, model):
        for tensor in module.parameters():
            if tensor.is_floating_point():
                return block.to(device=tensor.device, dtype=tensor.dtype).train(host.training)
    return block.train(host.training)


def _row(path: str, block: NonLocalBlock, output: Tensor | None) -> Row:
    row = Row(
        path=path,
        ndim=block.ndim,
        channels=block.in_channels,
        inner=block.inner_channels,
        parameters=sum(p.numel() for p in block.parameters()),
    )
    if output is None:
        return row
    queries, keys, problems = block.positions(tuple(output.shape[2:]))
    choice = choose_algorithm(
        block.pairwise,
        batch=output.shape[0] * problems,
        queries=queries,
        keys=keys,
        compared=block.compared_channels,
        carried=block.inner_channels,
        dtype=output.dtype,
        device=output.device.type,
    )
    algorithm = choice.algorithm if block.algorithm == "auto" else block.algorithm
    return replace(
        row,
        queries=queries,
        keys=keys,
        problems=problems,
        macs=block.macs(tuple(output.shape[1:])),
        algorithm=algorithm,
        definition_bytes=choice.bytes.get("definition"),
        algorithm_bytes=choice.bytes.get(algorithm),
    )

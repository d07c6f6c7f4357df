"""Insertion of non-local blocks into any network, by module path.

A block follows a module of the network, its target: it becomes the target's child `nonlocal_block`, and a forward hook
applies it to the target's output. A plain `nn.Sequential` runs its last child anyway and needs no hook. The existing
keys of the state dict do not change; the new ones are `{target path}.nonlocal_block.{parameter}`.
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
from nlnet.errors import InsertionError, NlnetError
from nlnet.insertion.summary import Row, Summary
from nlnet.insertion.targets import CHILD_NAME, Where, check_target, find_targets, is_plain_sequential
from nlnet.layers.contexts import evaluating
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
"""The number of axes of a norm's maps, where its type determines it."""


def insert_nonlocal(
    model: nn.Module,
    where: Where,
    *,
    example_input: Tensor | None = None,
    ndim: int | None = None,
    inner_channels: int | None = None,
    **options: Unpack[BlockOptions],
) -> Summary:
    """Insert a fresh `NonLocalBlock` after each module that `where` names; the model's outputs stay bit for bit the same.

        model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU())
        print(nlnet.insert_nonlocal(model, "1", example_input=torch.zeros(1, 3, 32, 32)))

    Args:
        model: changed in place, or not at all if anything raises.
        where: "layer3.1", a glob over path parts "layer3.*", a list of either, or rules by stage:
            {"layer3": "every 2nd"} (children 1, 3, … counted from 0, as in the release; "every 3rd": 2, 5, …),
            "all", "last", "before last" (in front of the last child, the paper's single block), or indices [1, 3].
        example_input: one batch for `model`. Sizes are then measured in one forward pass (evaluation mode, no
            gradient; modes and statistics are as before), shapes are checked, and the summary has costs.
            Without it, the channels and axes of a target's output are taken from its last convolution or norm.
        ndim: axes of the maps, where they cannot be inferred.
        inner_channels: d of every block; default half of the channels of its target's output.
        options: see `nlnet.block_options.BlockOptions`: pairwise, axis, subsample, groups, norm, convention,
            pool_position, scale, init, out_bias, algorithm.

    Blocks are created in the model's order from torch's global generator, on their target's device, in its dtype and
    training mode.

    Raises:
        InsertionError: a ValueError with the path, what was found and what to do. Nothing matches; a target is named
            twice or has a block; a container without a forward of its own, or whose forward loops over its children;
            channels or axes unknown; an output that is no tensor or that the block cannot take; an unknown rule.
        NlnetError: a ValueError for a wrong value of a block option.
        TypeError: an option that does not exist.
    """
    with_defaults(options, "insert_nonlocal")  # so that a misspelt option is found before the model is run
    targets = find_targets(model, where)
    for path, target in targets.items():
        check_target(path, target, CHILD_NAME)
    outputs = None if example_input is None else _outputs(model, targets, example_input)
    blocks = {}
    # All blocks are created and checked before the first is attached: an error leaves the model unchanged.
    for path, target in targets.items():
        sizes = (
            _sizes(path, target, ndim)
            if outputs is None
            else (outputs[path].ndim - 2, outputs[path].shape[1])
        )
        if ndim is not None and sizes[0] != ndim:
            raise InsertionError(
                f"{path!r} returns maps with {sizes[0]} axes, expected ndim = {ndim}; leave ndim out to take "
                "the number of axes from example_input"
            )
        block = NonLocalBlock(
            sizes[1],
            inner_channels,
            ndim=sizes[0],
            **options,
        )
        if outputs is not None:
            try:
                block.positions(tuple(outputs[path].shape[2:]))
            except NlnetError as error:
                raise InsertionError(
                    f"{path!r} returns a map of shape {tuple(outputs[path].shape)}: {error}"
                ) from None
        blocks[path] = _like(block, target, model)
    rows = tuple(
        _row(path, block, None if outputs is None else outputs[path]) for path, block in blocks.items()
    )
    for path, block in blocks.items():
        attach(model, path, CHILD_NAME, block)
    return Summary(rows)


spelled_out(insert_nonlocal)


def nonlocal_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """Return every non-local block of a model by its path, in the model's order.

        model = nlnet.create_model("c2d_mini_nl1")
        list(nlnet.nonlocal_blocks(model))              # ["layer2.1.nonlocal_block"]

    The dictionary is empty if there is none.
    """
    return {path: module for path, module in model.named_modules() if isinstance(module, NonLocalBlock)}


def attach(model: nn.Module, path: str, name: str, block: nn.Module) -> None:
    """Add `block` as the child `name` of the module at `path`, and apply it to the output of that module.

    Raises:
        InsertionError: not the path of one module, a child of that name, or a container that cannot have one.
    """
    target = find_targets(model, [path]).get(path)
    if target is None:
        raise InsertionError(
            f"path: got the pattern {path!r}, expected the path of one module, such as 'layer3.1'"
        )
    check_target(path, target, name)
    target.add_module(name, block)
    if not is_plain_sequential(target):
        target.register_forward_hook(ApplyChild(name, path))


class ApplyChild:
    """A forward hook that passes the output of its module through the child `name`.

    A class and not a closure, so that it is pickled and copied with the model.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        """The path of its module, for the message of an error."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InsertionError(
                f"{self.path!r} ({type(module).__name__}), which has the child {self.name!r}, returned "
                f"{type(output).__name__}, expected one tensor: insert after a module that returns one"
            )
        result: Tensor = getattr(module, self.name)(output)
        return result


def _outputs(model: nn.Module, targets: Mapping[str, nn.Module], example: Tensor) -> dict[str, Tensor]:
    """The output of each target for the example input, checked to be one map from one call."""
    found: dict[str, list[Any]] = {
        path: [] for path in targets
    }  # lists, to see a module that runs twice or never

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: found[path].append(output)

    handles = [target.register_forward_hook(keep(path)) for path, target in targets.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    for path, outputs in found.items():
        if len(outputs) != 1:
            raise InsertionError(
                f"{path!r} ran {len(outputs)} times on the example input, expected once: name a module that runs once in a forward pass"
            )
        output = outputs[0]
        if not isinstance(output, Tensor):
            raise InsertionError(
                f"{path!r} returned {type(output).__name__}, expected one tensor: name a module inside or around it "
                "that returns one"
            )
        if output.ndim - 2 not in CONVOLUTIONS or not output.is_floating_point():
            raise InsertionError(
                f"{path!r} returned {output.dtype} of shape {tuple(output.shape)}, expected floating point "
                "(B, C, T), (B, C, H, W) or (B, C, T, H, W): name a module that returns such a map"
            )
    return {path: outputs[0] for path, outputs in found.items()}


def _sizes(path: str, target: nn.Module, ndim: int | None) -> tuple[int, int]:
    """(ndim, channels) of a target's output, by the last convolution or norm in it."""
    axes: int | None = None
    channels: int | None = None
    for module in target.modules():
        if isinstance(module, _ConvNd):
            axes, channels = len(module.kernel_size), module.out_channels
        elif isinstance(module, _NormBase):
            axes, channels = AXES_OF_NORM.get(type(module)) or axes, module.num_features
        elif isinstance(module, nn.GroupNorm):
            channels = module.num_channels
        elif isinstance(module, nn.Linear | nn.LayerNorm):
            axes = channels = None  # its output may have any layout: nothing before it counts
    axes = axes if ndim is None else ndim
    if axes is None or channels is None:
        missing = "channels" if channels is None else "number of axes"
        raise InsertionError(
            f"{path!r} is a {type(target).__name__} whose layers do not show the {missing} of its output: give "
            "example_input, one batch for the model" + (", or ndim" if channels is not None else "")
        )
    return axes, channels


def _like(block: NonLocalBlock, target: nn.Module, model: nn.Module) -> NonLocalBlock:
    """Move the block to the target's device, dtype and mode; those of the model if the target has no parameters."""
    for module in (target, model):
        for tensor in module.parameters():
            if tensor.is_floating_point():
                return block.to(device=tensor.device, dtype=tensor.dtype).train(target.training)
    return block.train(target.training)


def _row(path: str, block: NonLocalBlock, output: Tensor | None) -> Row:
    """The block's row of the summary, with costs if its input is known."""
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
        batch=output.shape[0] * problems,  # every problem of every sample is one item of the operation
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

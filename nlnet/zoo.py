"""Networks by name, freshly initialised or from weights: `create_model("i3d_r50_nl5")`.

`create_model(weights=…)` and `nlnet convert` both load weights through `network_of`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from nlnet.block_options import spelled_out
from nlnet.errors import NlnetError, did_you_mean
from nlnet.insertion.insert import attach, insert_nonlocal
from nlnet.layers.folding import fold_batch_norms
from nlnet.models.control import ResidualControl
from nlnet.models.names import (
    INFLATIONS,
    SCALES,
    block_positions,
    channels_of,
    checked_positions,
    list_models,
    parse_name,
    split_by_groups,
)
from nlnet.models.options import DEFAULTS, OPTIONS, NetworkOptions, block_options_of
from nlnet.models.resnet import TIMINGS, VideoResNet
from nlnet.weights.architecture import added_blocks, architecture_of, stage_or_where
from nlnet.weights.load import LoadReport, load_weights
from nlnet.weights.read import Weights, read_weights

__all__ = ["FRESH", "chosen_options", "create_model", "list_models", "network_of"]

FRESH = ("fc.*", "*.nonlocal_block.*", "*.control.*")
"""Patterns of modules that may keep their initial values when a network starts from the weights of another network.

Each matching module does so as a whole or not at all.
"""

POSITION_OPTIONS = ("stage", "where")
"""The options that set the positions of the added blocks."""


def create_model(
    name: str,
    *,
    num_classes: int = 400,
    weights: Mapping[str, Tensor] | Path | str | None = None,
    source: str | None = None,
    **options: Unpack[NetworkOptions],
) -> VideoResNet:
    """Build a network of the paper by name (`list_models()`), initialised as in the release.

        model = nlnet.create_model("i3d_mini_nl1", num_classes=10, variant="8x8", pairwise="dot_product")
        logits = model(torch.randn(2, 3, 8, 32, 32))    # (2, 10)

    Args:
        num_classes: outputs of the classifier.
        weights: a file or state dict to start from, in any form that `nlnet.weights.read.read_weights` reads: of this
            network, of the same network without its blocks (they stay freshly initialised, as the identity), or of a
            2-D ResNet (its kernels are inflated). A classifier of another size stays freshly initialised. An option
            below that is not given is taken from the weights if they are a video network's, the positions of its
            blocks included, so that the logits are those of its own network; else it has its value in `DEFAULTS`.
        source: the project of the weights, where keys do not tell it (`slowfast_pkl`).
        options: see `nlnet.models.options.NetworkOptions`. Of the backbone: variant, padding, pool2, dropout, norm,
            stage and where. Of the blocks: pairwise, axis, subsample, groups, nonlocal_norm, convention, pool_position,
            scale, init, out_bias and algorithm. `groups` applies to the blocks in res3; the others see every frame.
            None means "not given". `convention` is "released" by default, because the release's weights and
            published costs follow it; "paper" is the text's.

    Raises:
        NlnetError: an unknown name or value of an option; its subclass `WeightsError`: weights that do not fit.
        TypeError: an option that does not exist.
    """
    for option in options:
        if option not in DEFAULTS:
            near = did_you_mean(option, DEFAULTS)
            raise TypeError(f"create_model() got an unexpected keyword argument {option!r}{near}")
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    parsed = parse_name(name)
    if weights is not None:
        # the reader accepts the options that change the function (`OPTIONS`) and no others
        known = {key: value for key, value in given.items() if key in OPTIONS}
        file = read_weights(weights, source=source, options=known)
        return network_of(file, name=name, num_classes=num_classes, options=given)[0]
    chosen = DEFAULTS | given
    if chosen["variant"] not in TIMINGS:
        near = did_you_mean(chosen["variant"], TIMINGS)
        raise NlnetError(f"variant: got {chosen['variant']!r}, expected one of {', '.join(TIMINGS)}{near}")
    size = SCALES[parsed.scale]
    model = VideoResNet(
        blocks=size.blocks,
        inflation=INFLATIONS[parsed.net],
        timing=TIMINGS[chosen["variant"]],
        padding=chosen["padding"],
        pool2=chosen["pool2"],
        num_classes=num_classes,
        dropout=chosen["dropout"],
        norm=chosen["norm"],
        width=size.width,
        stem_kernel=size.stem_kernel,
        stem_pool=size.stem_pool,
    )
    if parsed.kind is None:
        return model
    where = checked_positions(chosen["where"], parsed.count) or block_positions(
        parsed.scale, parsed.count, chosen["stage"]
    )
    if parsed.kind == "rb":
        for path in where:
            number = int(path.split(".")[0].removeprefix("layer"))
            attach(model, path, "control", ResidualControl(channels_of(size, number), norm=chosen["norm"]))
        return model
    for paths, groups in split_by_groups(where, chosen["groups"]):
        insert_nonlocal(model, paths, ndim=3, **block_options_of(chosen | {"groups": groups}))
    return model


spelled_out(create_model, NetworkOptions, dict.fromkeys(DEFAULTS))


def network_of(
    weights: Weights,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[VideoResNet, LoadReport]:
    """Build a network and load weights into it: the network that the weights are from, or the one called `name`.

    Without a name the logits are those of the network that the weights are from.

    Args:
        name: a network that starts from these weights: its added blocks, and a classifier of another size, stay
            freshly initialised.
        num_classes: outputs of the classifier, for weights without one, and for `name`.
        options: options of `create_model`; they win over those of the weights (`chosen_options`).

    Raises:
        WeightsError: see `architecture_of` and `load_weights`; a key on either side without a counterpart.
    """
    own, chosen = chosen_options(weights, name, options or {})
    classifier = weights.tensors.get("fc.weight")
    classes = num_classes or (400 if classifier is None else classifier.shape[0])
    model = create_model(own, num_classes=classes, **chosen)
    fresh, dropped = (FRESH, ("fc.*",)) if name is not None else ((), ())
    if classifier is None:
        fresh = ("fc.*", *fresh)
    state = fold_batch_norms(model, weights.state)
    return model, load_weights(model, state, may_miss=fresh, may_drop=dropped)


def chosen_options(
    weights: Weights, name: str | None, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the network's name and every option: the given value, else the one of the weights, else the default.

    Weights of an image network set no options of a video network, but do have a network of their own.

    Raises:
        WeightsError: no `name`, and weights of no known network.
    """
    if name is None:
        found = architecture_of(weights.tensors)
        positions = dict(zip(POSITION_OPTIONS, (found.stage, found.where), strict=True))
        return found.name, DEFAULTS | positions | weights.options | dict(given)
    parsed, (kind, where) = parse_name(name), added_blocks(weights.tensors)
    theirs = {} if weights.is_image_network else weights.options
    # The weights say where blocks are only to a network with blocks of the same kind and number.
    same_blocks = kind is not None and (kind, len(where)) == (parsed.kind, parsed.count)
    if same_blocks and not given.keys() & POSITION_OPTIONS:
        theirs |= dict(zip(POSITION_OPTIONS, stage_or_where(parsed.scale, where), strict=True))
    return name, DEFAULTS | theirs | dict(given)

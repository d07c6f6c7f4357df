"""The paper's networks by name, fresh or from weights: `create_model("i3d_r50_nl5")`.

Weights have one road into a network, `network_of`: `create_model(weights=…)` and `nlnet convert` both take it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from nlnet.block_options import spelled_out
from nlnet.errors import did_you_mean
from nlnet.insertion.insert import attach, insert_nonlocal
from nlnet.layers.norms import fold_batch_norms
from nlnet.models.control import ResidualControl
from nlnet.models.names import (
    INFLATIONS,
    SCALES,
    channels_of,
    grouped,
    list_models,
    parts,
    places,
    places_given,
)
from nlnet.models.options import DEFAULTS, OPTIONS, NetworkOptions, block_options_of
from nlnet.models.resnet import TIMINGS, VideoResNet
from nlnet.weights.architecture import added_blocks, architecture_of, usual
from nlnet.weights.load import LoadReport, load_weights
from nlnet.weights.read import Weights, read_weights

__all__ = ["FRESH", "chosen_options", "create_model", "list_models", "network_of"]

FRESH = ("fc.*", "*.nonlocal_block.*", "*.control.*")
"""Modules that may keep their initial values, each as a whole, when a network starts from another one's weights."""

PLACED = ("stage", "where")
"""Options that say where blocks are."""


def create_model(
    name: str,
    *,
    num_classes: int = 400,
    weights: Mapping[str, Tensor] | Path | None = None,
    source: str | None = None,
    **options: Unpack[NetworkOptions],
) -> VideoResNet:
    """Build a network of the paper by name (`list_models()`), initialised as the release does.

    Args:
        num_classes: outputs of the classifier.
        weights: what to start from: a file or state dict in any form that `nlnet.weights.read.read_weights` knows.
            This network's own, a local network's (fresh blocks keep the identity), or a 2-D ResNet's (kernels
            inflate). A classifier of another size keeps its fresh initialisation. Where an option below is
            not given, a video network's file sets it, blocks' places included, so that the logits are its own
            network's; else `DEFAULTS` does.
        source: the project of the weights, where keys do not say it (`slowfast_pkl`).
        options: see `nlnet.models.options.NetworkOptions`; the backbone's are variant, padding, pool2, dropout, norm,
            stage and where, the blocks' pairwise, axis, subsample, groups, nonlocal_norm, convention, pool_position,
            scale, init, out_bias and algorithm. `groups` are those of the blocks in res3; the others see every frame.
            None means "not given". The networks default to the release's convention, because that is what its
            weights and counts mean; "paper" is the text's.

    Raises:
        ValueError: an unknown name or option; `WeightsError` for weights that do not fit.
    """
    for option in options:
        if option not in DEFAULTS:
            near = did_you_mean(option, DEFAULTS)
            raise TypeError(f"create_model() got an unexpected keyword argument {option!r}{near}")
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    called = parts(name)
    if weights is not None:
        known = {key: value for key, value in given.items() if key in OPTIONS}
        file = read_weights(weights, source=source, options=known)
        return network_of(file, name=name, num_classes=num_classes, options=given)[0]
    chosen = DEFAULTS | given
    if chosen["variant"] not in TIMINGS:
        raise ValueError(f"variant: got {chosen['variant']!r}, expected one of {', '.join(TIMINGS)}")
    size = SCALES[called.scale]
    model = VideoResNet(
        blocks=size.blocks,
        inflation=INFLATIONS[called.net],
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
    if called.kind is None:
        return model
    where = places_given(chosen["where"], called.count) or places(called.scale, called.count, chosen["stage"])
    if called.kind == "rb":
        for path in where:
            number = int(path.split(".")[0].removeprefix("layer"))
            attach(model, path, "control", ResidualControl(channels_of(size, number), norm=chosen["norm"]))
        return model
    for paths, runs in grouped(where, chosen["groups"]):
        insert_nonlocal(model, paths, ndim=3, **block_options_of(chosen | {"groups": runs}))
    return model


spelled_out(create_model, NetworkOptions, dict.fromkeys(DEFAULTS))


def network_of(
    weights: Weights,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[VideoResNet, LoadReport]:
    """A network with `weights` in it: their own one, whose logits are the source's, or the one called `name`.

    Args:
        name: of another network that starts from them: its added blocks, and a classifier of another size, stay fresh.
        num_classes: of the classifier, for weights that have none, and for `name`.
        options: of `create_model`, against what the source fixes (`chosen_options`).

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
    """The network's name and every option of it: what is given, else what the weights say, else `DEFAULTS`.

    Weights of stills have nothing to say of a network of videos, but they have their own network, too.

    Raises:
        WeightsError: no `name`, and weights of no network.
    """
    if name is None:
        found = architecture_of(weights.tensors)
        there = dict(zip(PLACED, (found.stage, found.where), strict=True))
        return found.name, DEFAULTS | there | weights.options | dict(given)
    called, (kind, where) = parts(name), added_blocks(weights.tensors)
    theirs = {} if weights.stills else weights.options
    if kind is not None and (kind, len(where)) == (called.kind, called.count) and not given.keys() & PLACED:
        theirs |= dict(zip(PLACED, usual(called.scale, where), strict=True))
    return name, DEFAULTS | theirs | dict(given)

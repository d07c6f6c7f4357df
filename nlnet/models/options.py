"""The options of a network: those of its blocks (`nlnet.block_options`) and of its backbone, with their defaults.

`nlnet.create_model`, the `model` section of a run's configuration and the readers of weight files all use this list.
"""

from collections.abc import Sequence
from typing import Any

from nlnet import block_options
from nlnet.block_options import BlockOptions
from nlnet.models.resnet import Padding


class NetworkOptions(BlockOptions, total=False):
    """The keywords of `create_model`: a block's options and the backbone's; `norm` is the norm of the backbone."""

    variant: str
    """Frames×stride of a clip, and with it the temporal strides: "32x2" and "128x1" (the paper's), "8x8" and "32x4" (the
    release's faster ones)."""
    padding: Padding
    """The padding of pool1 and pool2, see `VideoResNet`."""
    pool2: bool
    """Whether pool2 halves the number of frames after res2."""
    dropout: float
    """Dropout probability before the classifier, in training."""
    stage: str | None
    """The stage that a single block is inserted in, "res2" … "res5"."""
    where: Sequence[str] | None
    """Module paths after which the blocks are inserted ("layer2.1"), as many as the name says; None for the usual ones."""
    nonlocal_norm: str
    """The norm of the blocks."""


def _block_defaults() -> dict[str, Any]:
    """Defaults of a block in the release's convention, with each option under its name in `create_model`."""
    renamed = {
        "nonlocal_norm" if name == "norm" else name: value for name, value in block_options.DEFAULTS.items()
    }
    return renamed | {"convention": "released"}


DEFAULTS: dict[str, Any] = {
    "variant": "32x2",
    "padding": "released",
    "pool2": True,
    "dropout": 0.5,
    "norm": "batch",
    "stage": None,
    "where": None,
} | _block_defaults()
"""The value of each option that neither the caller nor the weight file sets: the paper's clip, the release's block.

They are the same in Python and in a configuration, so that a name stands for one network."""

OPTIONS = tuple(name for name in DEFAULTS if name not in ("dropout", "stage", "where", "init", "algorithm"))
"""The options that change what a network computes with given weights in evaluation."""


def block_options_of(options: dict[str, Any]) -> BlockOptions:
    """Pick the options of blocks out of a network's options, and name them as `NonLocalBlock` does."""
    names = {name: "nonlocal_norm" if name == "norm" else name for name in block_options.DEFAULTS}
    return {own: options[name] for own, name in names.items()}  # type: ignore[return-value]

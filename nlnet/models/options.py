"""The options of a network by name, written once: the block's (`nlnet.block_options`) and the backbone's.

`nlnet.create_model`, a run's configuration (its `model` section) and the readers of weight files take them from here.
"""

from collections.abc import Sequence
from typing import Any

from nlnet import block_options
from nlnet.block_options import BlockOptions
from nlnet.models.resnet import Padding


class NetworkOptions(BlockOptions, total=False):
    """The block's options, and these. `norm` is the backbone's; the blocks' is `nonlocal_norm`."""

    variant: str
    """Frames×stride of a clip, and with it the temporal strides: "32x2" and "128x1" (the paper's), "8x8" and "32x4" (the
    release's faster ones)."""
    padding: Padding
    """Of pool1 and pool2, see `VideoResNet`."""
    pool2: bool
    dropout: float
    """Probability before the classifier, in training."""
    stage: str | None
    """Where one block goes: res2 … res5."""
    where: Sequence[str] | None
    """Module paths after which the blocks go ("layer2.1"), as many as the name says, if not the name's usual ones."""
    nonlocal_norm: str
    """The blocks' `norm`."""


def _block_defaults() -> dict[str, Any]:
    """The block's defaults under the network's names, in the release's convention: its weights and counts mean that."""
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
"""What a network has where neither the caller nor the file of its weights says otherwise: the paper's clip, the
release's block. The same in Python and in a configuration: one name is one network."""

OPTIONS = tuple(name for name in DEFAULTS if name not in ("dropout", "stage", "where", "init", "algorithm"))
"""The options that decide which function a set of weights is the weights of."""


def block_options_of(options: dict[str, Any]) -> BlockOptions:
    """The block's part of a network's options, under the block's names."""
    names = {name: "nonlocal_norm" if name == "norm" else name for name in block_options.DEFAULTS}
    return {own: options[name] for own, name in names.items()}  # type: ignore[return-value]

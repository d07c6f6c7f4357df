"""The projects whose weight files are read and written, by name; ours and torchvision's share their names."""

from collections.abc import Mapping

from torch import Tensor

from nlnet.weights.keymap import naming
from nlnet.weights.projects.caffe2 import CAFFE2
from nlnet.weights.projects.mmaction2 import MMACTION2
from nlnet.weights.projects.project import (
    IMAGENET_STATISTICS,
    Settings,
    Source,
    block_modules,
    residual_modules,
)
from nlnet.weights.projects.pytorchvideo import PYTORCHVIDEO
from nlnet.weights.projects.slowfast import SLOWFAST, SLOWFAST_PKL

OUR_NAMES = naming(
    {module: module for module in ("conv1", "bn1", "fc", "layer{L}.{B}.nonlocal_block.w_f")}
    | residual_modules(
        "layer{L}.{B}.conv{n}",
        "layer{L}.{B}.bn{n}",
        "layer{L}.{B}.downsample.0",
        "layer{L}.{B}.downsample.1",
        ("1", "2", "3"),
    )
    | block_modules(
        *(f"layer{{L}}.{{B}}.nonlocal_block.{part}" for part in ("theta", "phi", "g", "W_z", "norm"))
    )
    | {
        f"layer{{L}}.{{B}}.control.{part}{n}": f"layer{{L}}.{{B}}.control.{part}{n}"
        for part in ("conv", "bn")
        for n in (1, 2, 3)
    }
)


def still_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    return {"padding": ("padded", "torchvision pads pool1 by one pixel")}


def no_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    return {}


SOURCES = {
    "nlnet": Source(title="nlnet", keymaps=(OUR_NAMES,), options=no_options),
    "caffe2": CAFFE2,
    "slowfast_pkl": SLOWFAST_PKL,
    "slowfast": SLOWFAST,
    "pytorchvideo": PYTORCHVIDEO,
    "mmaction2": MMACTION2,
    "torchvision": Source(
        title="torchvision", keymaps=(OUR_NAMES,), options=still_options, statistics=IMAGENET_STATISTICS
    ),
}
"""By the name that `source=` takes; a file is recognised by its keys, but `slowfast_pkl` must be named."""

"""Table of the projects whose weight files are read and written."""

from collections.abc import Mapping

from torch import Tensor

from nlnet.weights.keymap import naming
from nlnet.weights.projects.caffe2 import CAFFE2
from nlnet.weights.projects.mmaction2 import MMACTION2
from nlnet.weights.projects.project import (
    IMAGENET_STATISTICS,
    Project,
    Settings,
    nonlocal_modules,
    residual_modules,
)
from nlnet.weights.projects.pytorchvideo import PYTORCHVIDEO
from nlnet.weights.projects.slowfast import SLOWFAST, SLOWFAST_PKL

# Our keys are torchvision's, plus those of the added blocks; a file of torchvision has 2-D kernels.
OUR_NAMES = naming(
    {module: module for module in ("conv1", "bn1", "fc", "layer{L}.{B}.nonlocal_block.w_f")}
    | residual_modules(
        "layer{L}.{B}.conv{n}",
        "layer{L}.{B}.bn{n}",
        "layer{L}.{B}.downsample.0",
        "layer{L}.{B}.downsample.1",
        ("1", "2", "3"),
    )
    | nonlocal_modules(
        *(f"layer{{L}}.{{B}}.nonlocal_block.{part}" for part in ("theta", "phi", "g", "W_z", "norm"))
    )
    | {
        f"layer{{L}}.{{B}}.control.{part}{n}": f"layer{{L}}.{{B}}.control.{part}{n}"
        for part in ("conv", "bn")
        for n in (1, 2, 3)
    }
)


def _nlnet_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """No options: a file of nlnet carries its configuration."""
    return {}


def _torchvision_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The option that torchvision's code determines."""
    return {"padding": ("padded", "torchvision pads pool1 by one pixel")}


PROJECTS = {
    "nlnet": Project(title="nlnet", keymaps=(OUR_NAMES,), options=_nlnet_options),
    "caffe2": CAFFE2,
    "slowfast_pkl": SLOWFAST_PKL,
    "slowfast": SLOWFAST,
    "pytorchvideo": PYTORCHVIDEO,
    "mmaction2": MMACTION2,
    "torchvision": Project(
        title="torchvision",
        keymaps=(OUR_NAMES,),
        options=_torchvision_options,
        statistics=IMAGENET_STATISTICS,
    ),
}
"""By the name that `source=` takes. A file is recognised by its keys, except that `slowfast_pkl` must be named."""

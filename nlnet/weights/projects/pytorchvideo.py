"""The files of PyTorchVideo."""

from collections.abc import Mapping

from torch import Tensor

from nlnet.weights.keymap import naming
from nlnet.weights.projects.project import Settings, Source, residual_modules

PYTORCHVIDEO_NAMES, PYTORCHVIDEO_NAMES_NO_POOL = (
    naming(
        {"conv1": "blocks.0.conv", "bn1": "blocks.0.norm", "fc": f"blocks.{head}.proj"}
        | residual_modules(
            f"blocks.{stage}.res_blocks.{{B}}.branch2.conv_{{n}}",
            f"blocks.{stage}.res_blocks.{{B}}.branch2.norm_{{n}}",
            f"blocks.{stage}.res_blocks.{{B}}.branch1_conv",
            f"blocks.{stage}.res_blocks.{{B}}.branch1_norm",
            ("a", "b", "c"),
        )
    )
    for stage, head in (("{P}", 6), ("{L}", 5))
)


def pytorchvideo_options(tensors: Mapping[str, Tensor], which: int, text: str) -> Settings:
    options: Settings = {
        "variant": ("8x8", "PyTorchVideo's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PyTorchVideo pads pool1 by one pixel"),
    }
    if which == 1:
        options["pool2"] = (False, "the head is block 5: no pool between the first two stages")
    return options


PYTORCHVIDEO = Source(
    title="PyTorchVideo",
    keymaps=(PYTORCHVIDEO_NAMES, PYTORCHVIDEO_NAMES_NO_POOL),
    options=pytorchvideo_options,
)

"""PyTorchVideo: the names of its keys, with and without pool2, and the options that its code determines."""

from collections.abc import Mapping

from torch import Tensor

from nlnet.weights.keymap import naming
from nlnet.weights.projects.project import Project, Settings, residual_modules

# Its networks are numbered lists of blocks: with a pool2 (block 2) the stages are blocks 1, 3, 4, 5 and the head 6.
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


def pytorchvideo_options(tensors: Mapping[str, Tensor], index: int, text: str) -> Settings:
    """The options of PyTorchVideo's C2D and I3D; `index` 1 is the key map of a network without pool2."""
    options: Settings = {
        "variant": ("8x8", "PyTorchVideo's C2D and I3D, whose stem never strides in time"),
        "padding": ("padded", "PyTorchVideo pads pool1 by one pixel"),
    }
    if index == 1:
        options["pool2"] = (False, "the head is block 5: no pool between the first two stages")
    return options


PYTORCHVIDEO = Project(
    title="PyTorchVideo",
    keymaps=(PYTORCHVIDEO_NAMES, PYTORCHVIDEO_NAMES_NO_POOL),
    options=pytorchvideo_options,
)

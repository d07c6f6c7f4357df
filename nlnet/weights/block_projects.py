"""The projects whose standalone non-local blocks are read and written, by where our modules are in theirs.

Facts: lib/non_local_*.py of AlexHex7/Non-local_pytorch, mmcv's bricks/non_local.py, PySlowFast's
nonlocal_helper.py, PyTorchVideo's layers/nonlocal_net.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nlnet.block import CONVOLUTIONS
from nlnet.block_options import CONVENTIONS
from nlnet.weights.keymap import KeyMap, naming


@dataclass(frozen=True, kw_only=True)
class Project:
    """One project's block."""

    title: str
    modules: Mapping[str, str]
    """Our module → theirs; {norm} is ".0" where a norm follows W_z, {pool} where a pool follows φ and g."""
    convention: str
    """One of `nlnet.block.CONVENTIONS`, whose pool position and bias are the project's."""
    why: str
    scaled: tuple[bool, ...]
    """Whether its embedded Gaussian has the temperature 1/√d; both where that is an option, the default first."""
    pools: bool | None = None
    """Whether it pools keys unless told otherwise; None where the keys show it."""
    pairwise: tuple[str, ...] = ("embedded_gaussian", "dot_product")
    axes: tuple[int, ...] = (3,)
    whole_ratio: bool = False
    """Whether d is C divided by a whole number, rounded down, instead of any number."""

    def names(self, *, norm: bool, pool: bool) -> KeyMap:
        """The key map of a block with or without a norm, pooled or not."""
        fields = {"norm": ".0" if norm else "", "pool": ".0" if pool else ""}
        modules = {ours: theirs.format(**fields) for ours, theirs in self.modules.items()}
        return naming({ours: theirs for ours, theirs in modules.items() if norm or ours != "norm"})

    def out_bias(self, *, norm: bool) -> bool:
        """Whether W_z has a bias."""
        return CONVENTIONS[self.convention].bias_before_norm or not norm

    def scales(self, pairwise: str, inner_channels: int) -> tuple[float, ...]:
        """The s that its blocks have, the default first."""
        if pairwise != "embedded_gaussian":
            return (1.0,)
        return tuple(inner_channels**-0.5 if scaled else 1.0 for scaled in self.scaled)


FACEBOOK = {"theta": "conv_theta", "phi": "conv_phi", "g": "conv_g", "W_z": "conv_out"}
PROJECTS = {
    "alexhex7": Project(
        title="AlexHex7's Non-local_pytorch",
        modules={
            "theta": "theta",
            "phi": "phi{pool}",
            "g": "g{pool}",
            "W_z": "W{norm}",
            "norm": "W.1",
            "w_f": "concat_project.0.weight",
        },
        convention="paper",
        why="keys pooled after φ and g, no temperature, a bias before the norm",
        scaled=(False,),
        pairwise=("gaussian", "embedded_gaussian", "dot_product", "concatenation"),
        axes=tuple(CONVOLUTIONS),
    ),
    "mmcv": Project(
        title="mmcv",
        modules={
            "theta": "theta.conv",
            "phi": "phi{pool}.conv",
            "g": "g{pool}.conv",
            "W_z": "conv_out.conv",
            "norm": "conv_out.bn",
            "w_f": "concat_project.conv.weight",
        },
        convention="mmcv",
        why="keys pooled after φ and g, no bias before a norm",
        scaled=(True, False),
        pairwise=("gaussian", "embedded_gaussian", "dot_product", "concatenation"),
        axes=tuple(CONVOLUTIONS),
        whole_ratio=True,
    ),
    "slowfast": Project(
        title="PySlowFast",
        modules=FACEBOOK | {"norm": "bn"},
        convention="released",
        why="keys pooled before φ and g, 1/√d",
        scaled=(True,),
        pools=True,
    ),
    "pytorchvideo": Project(
        title="PyTorchVideo",
        modules=FACEBOOK | {"norm": "norm"},
        convention="released",
        why="keys pooled before φ and g, 1/√d",
        scaled=(True,),
        pools=False,
    ),
}
"""By the name that `source=` takes."""

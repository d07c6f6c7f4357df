"""Table of the projects whose standalone non-local blocks are read and written.

Facts from their code: lib/non_local_*.py of AlexHex7/Non-local_pytorch, mmcv's bricks/non_local.py, PySlowFast's
nonlocal_helper.py, PyTorchVideo's layers/nonlocal_net.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nlnet.block import CONVOLUTIONS
from nlnet.block_options import CONVENTIONS
from nlnet.weights.keymap import KeyMap, naming


@dataclass(frozen=True, kw_only=True)
class BlockProject:
    """The non-local block of one project."""

    title: str
    """Its name in messages."""
    modules: Mapping[str, str]
    """Our module → theirs; {norm} becomes ".0" if a norm follows W_z, {pool} if a pool follows φ and g."""
    convention: str
    """The name in `nlnet.block_options.CONVENTIONS` that has the project's pool position and bias."""
    why: str
    """The reason of the convention, for messages."""
    scaled: tuple[bool, ...]
    """Whether its embedded Gaussian has the scale 1/√d; both values where its users choose, the default first."""
    pools: bool | None = None
    """Whether it pools keys by default; None where the state dict shows it."""
    pairwise: tuple[str, ...] = ("embedded_gaussian", "dot_product")
    ndims: tuple[int, ...] = (3,)
    """Dimensions of the maps that it takes: 1 for (B, C, T), 2 for (B, C, H, W), 3 for (B, C, T, H, W)."""
    whole_ratio: bool = False
    """Whether d is C divided by an integer and rounded down; else d is any number."""

    def names(self, *, norm: bool, pool: bool) -> KeyMap:
        """The key map of the project's block, with or without a norm and a pool."""
        fields = {"norm": ".0" if norm else "", "pool": ".0" if pool else ""}
        modules = {ours: theirs.format(**fields) for ours, theirs in self.modules.items()}
        return naming({ours: theirs for ours, theirs in modules.items() if norm or ours != "norm"})

    def out_bias(self, *, norm: bool) -> bool:
        """Whether W_z of the project's block has a bias."""
        return CONVENTIONS[self.convention].bias_before_norm or not norm

    def scales(self, pairwise: str, inner_channels: int) -> tuple[float, ...]:
        """The values of `scale` that the project's blocks can have for a pairwise function, the default first."""
        if pairwise != "embedded_gaussian":
            return (1.0,)
        return tuple(inner_channels**-0.5 if scaled else 1.0 for scaled in self.scaled)


# PySlowFast and PyTorchVideo have the same names, the norm's excepted.
FACEBOOK = {"theta": "conv_theta", "phi": "conv_phi", "g": "conv_g", "W_z": "conv_out"}
BLOCK_PROJECTS = {
    "alexhex7": BlockProject(
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
        why="keys pooled after φ and g, no 1/√d, a bias before the norm",
        scaled=(False,),
        pairwise=("gaussian", "embedded_gaussian", "dot_product", "concatenation"),
        ndims=tuple(CONVOLUTIONS),
    ),
    "mmcv": BlockProject(
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
        ndims=tuple(CONVOLUTIONS),
        whole_ratio=True,
    ),
    "slowfast": BlockProject(
        title="PySlowFast",
        modules=FACEBOOK | {"norm": "bn"},
        convention="released",
        why="keys pooled before φ and g, 1/√d",
        scaled=(True,),
        pools=True,
    ),
    "pytorchvideo": BlockProject(
        title="PyTorchVideo",
        modules=FACEBOOK | {"norm": "norm"},
        convention="released",
        why="keys pooled before φ and g, 1/√d",
        scaled=(True,),
        pools=False,
    ),
}
"""By the name that `source=` takes."""

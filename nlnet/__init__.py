"""Non-local neural networks (Wang, Girshick, Gupta, He, CVPR 2018): self-attention blocks for images and video in PyTorch.

Put non-local blocks into your own network, build the video networks of the paper, and see which positions attend to
which. The operation is y_i = 1/C(x) · Σ_j f(x_i, x_j) g(x_j), computed exactly, without the N×M map where that pays.

    import torch, nlnet

    block = nlnet.NonLocalBlock(64)                  # maps (B, 64, T, H, W); the identity until it is trained
    y = block(torch.randn(2, 64, 4, 14, 14))         # (2, 64, 4, 14, 14)

Blocks:

    NonLocalBlock       the non-local block, z = norm(W_z y) + x, for 1-D, 2-D and 3-D maps
    nonlocal_operation  the operation alone: y from theta, phi and g, forward and backward
    choose_algorithm    which algorithm "auto" takes for a problem size, with cost and memory of each
    insert_nonlocal     insert blocks into any network by module path; its output stays the same until training
    nonlocal_blocks     the non-local blocks of a network, by module path

Attention:

    attention_row       the attention weights of one position to all others, from every block of a network
    observe             the attention of every block on one clip: rows of any position, and where the keys lie

Networks and weight files:

    create_model        build a network of the paper by name, such as "i3d_r50_nl5", fresh or from a weight file
    list_models         the names of all networks that `create_model` builds
    read_weights        read a network's weights from Caffe2, PySlowFast, PyTorchVideo, mmaction2, torchvision or nlnet
    write_weights       write a network's weights as a file of one of these projects
    read_block          read the state dict of a single block of mmcv, AlexHex7, PySlowFast or PyTorchVideo
    write_block         write the state dict of a single block for one of these projects

Trained runs:

    load                load a run of `nlnet train`: predict, features, attention, training curves (needs nlnet[video])

And:

    NlnetError          the error for what a user can mend; its message says what was expected and how to mend it
    __version__         the version of this package

`nlnet --help` lists the commands for training, testing and pictures. Importing this package imports nothing else:
torch is imported with the first public name that is used. All names but `load` need torch and jaxtyping alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from nlnet.apps.notebook import load as load
    from nlnet.attention.observe import attention_row as attention_row
    from nlnet.attention.observe import observe as observe
    from nlnet.block import NonLocalBlock as NonLocalBlock
    from nlnet.errors import NlnetError as NlnetError
    from nlnet.insertion.insert import insert_nonlocal as insert_nonlocal
    from nlnet.insertion.insert import nonlocal_blocks as nonlocal_blocks
    from nlnet.models.names import list_models as list_models
    from nlnet.ops import choose_algorithm as choose_algorithm
    from nlnet.ops import nonlocal_operation as nonlocal_operation
    from nlnet.weights.blocks import read_block as read_block
    from nlnet.weights.blocks import write_block as write_block
    from nlnet.weights.read import read_weights as read_weights
    from nlnet.weights.write import write_weights as write_weights
    from nlnet.zoo import create_model as create_model

__version__ = "0.1.0"
"""Written here only: pyproject.toml reads it."""

_HOME = {
    "NonLocalBlock": "nlnet.block",
    "nonlocal_operation": "nlnet.ops",
    "choose_algorithm": "nlnet.ops",
    "insert_nonlocal": "nlnet.insertion.insert",
    "nonlocal_blocks": "nlnet.insertion.insert",
    "attention_row": "nlnet.attention.observe",
    "observe": "nlnet.attention.observe",
    "create_model": "nlnet.zoo",
    "list_models": "nlnet.models.names",
    "read_weights": "nlnet.weights.read",
    "write_weights": "nlnet.weights.write",
    "read_block": "nlnet.weights.blocks",
    "write_block": "nlnet.weights.blocks",
    "load": "nlnet.apps.notebook",
    "NlnetError": "nlnet.errors",
}
"""The module of each public name."""
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOME:
        from nlnet.errors import did_you_mean

        near = did_you_mean(name, _HOME, most=1) or "."
        raise AttributeError(
            f"module 'nlnet' has no attribute {name!r}{near} Its public names are {', '.join(__all__)}"
        )
    if name == "load":
        return _load()
    return getattr(import_module(_HOME[name]), name)


def _load() -> object:
    """Return `nlnet.apps.notebook.load`; without its optional packages, a function that raises when it is called.

    Raising here would break `help(nlnet)` and completion, which look at every name.
    """
    from nlnet.apps.cli.failures import optional_packages
    from nlnet.errors import MissingPackageError

    try:
        with optional_packages():
            return import_module(_HOME["load"]).load
    except MissingPackageError as missing:
        message = f"nlnet.load: {missing}"

    def load(*arguments: object, **options: object) -> NoReturn:
        """Load a trained run; not available without `pip install 'nlnet[video]'`."""
        raise MissingPackageError(message)

    return load


def __dir__() -> list[str]:
    return [*globals(), *_HOME]

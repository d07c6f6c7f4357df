"""Read, load and write weights of other projects: whole networks and single non-local blocks.

`read_weights` reads a file of any of `PROJECTS`, `load_weights` copies it into a model with every key accounted for,
and `write_weights` writes a network in one of `FORMATS`. `read_block` and `write_block` do the same for the state dict
of a single non-local block of one of `BLOCK_PROJECTS`.
"""

from nlnet.weights.block_projects import BLOCK_PROJECTS
from nlnet.weights.blocks import BlockWeights, read_block, write_block
from nlnet.weights.load import LoadReport, load_weights
from nlnet.weights.projects import PROJECTS
from nlnet.weights.read import Weights, read_weights
from nlnet.weights.write import FORMATS, write_weights

__all__ = [
    "BLOCK_PROJECTS",
    "FORMATS",
    "PROJECTS",
    "BlockWeights",
    "LoadReport",
    "Weights",
    "load_weights",
    "read_block",
    "read_weights",
    "write_block",
    "write_weights",
]

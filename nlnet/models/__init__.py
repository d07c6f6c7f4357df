"""The paper's video networks."""

from nlnet.models.architecture import Architecture, architecture_of
from nlnet.models.checkpoints import Weights, read_weights
from nlnet.models.count import Cost, Skeleton, count
from nlnet.models.differences import differences
from nlnet.models.foreign_blocks import BlockWeights, read_block, write_block
from nlnet.models.inflate import LoadReport, WeightsError, load_weights
from nlnet.models.resnet import TIMINGS, VideoResNet, window_of
from nlnet.models.sources import SOURCES
from nlnet.models.writing import FORMATS, write_weights
from nlnet.models.zoo import create_model, list_models, network_of

__all__ = [
    "FORMATS",
    "SOURCES",
    "TIMINGS",
    "Architecture",
    "BlockWeights",
    "Cost",
    "LoadReport",
    "Skeleton",
    "VideoResNet",
    "Weights",
    "WeightsError",
    "architecture_of",
    "count",
    "create_model",
    "differences",
    "list_models",
    "load_weights",
    "network_of",
    "read_block",
    "read_weights",
    "window_of",
    "write_block",
    "write_weights",
]

"""The paper's video networks."""

from nlnet.models.count import Cost, Skeleton, count
from nlnet.models.inflate import LoadReport, WeightsError, load_weights
from nlnet.models.resnet import TIMINGS, VideoResNet, window_of
from nlnet.models.zoo import create_model, list_models

__all__ = [
    "TIMINGS",
    "Cost",
    "LoadReport",
    "Skeleton",
    "VideoResNet",
    "WeightsError",
    "count",
    "create_model",
    "list_models",
    "load_weights",
    "window_of",
]

"""A network made ready to be tested: folded, compiled."""

import torch

from nlnet.engine.config import Config, TestConfig
from nlnet.models import VideoResNet
from nlnet.models.folding import fold


def for_testing(model: VideoResNet, test: TestConfig) -> VideoResNet:
    """What the test runs in the model's place, in evaluation mode; the model is what it was.

    Folded and compiled networks answer as the model does, but for rounding (`nlnet.models.folding.fold`).
    """
    if not test.fold:
        return model.eval()
    network = fold(model)
    if test.compile:
        network.features = torch.compile(network.features)  # type: ignore[method-assign]
    return network


def test_precision(config: Config, test: TestConfig) -> str:
    """A name of `nlnet.engine.evaluate.PRECISIONS`."""
    return config.training.precision if test.precision == "trained" else test.precision


test_precision.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name says to pytest

"""The configured network: built, loaded from a checkpoint, and made ready to be tested."""

from pathlib import Path

import torch

from nlnet.data.protocols import PROTOCOLS
from nlnet.engine.config import Config, EvalConfig
from nlnet.engine.config.inputs import sampling
from nlnet.engine.runs.checkpoint import Checkpoint, load_checkpoint
from nlnet.errors import EvaluationError
from nlnet.models.folding import fold
from nlnet.models.resnet import Triple, VideoResNet, window_of
from nlnet.zoo import create_model

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_model(config: Config, num_classes: int) -> VideoResNet:
    """The configured network with fresh weights."""
    return create_model(num_classes=num_classes, **config.model.model_dump())


def training_window(model: VideoResNet, config: Config) -> Triple:
    """The last map's size at the training clip: the window of the fully convolutional head."""
    frames, _ = sampling(config)
    return window_of(model, (frames, config.data.crop, config.data.crop))


def eval_window(model: VideoResNet, config: Config, test: EvalConfig) -> Triple | None:
    """The head's window under the protocol: the training clip's last map; None where the whole map is averaged."""
    if PROTOCOLS[test.protocol].head == "pool":
        return None
    window = training_window(model, config)
    smallest = window_of(model, (sampling(config)[0], test.crop, test.crop))
    if any(have < need for have, need in zip(smallest, window, strict=True)):
        raise EvaluationError(
            f"test.crop={test.crop} gives a last map of {smallest}, less than the {window} (frames, rows, columns) of "
            f"the training crop ({config.data.crop} pixels), which slides over it; test on larger crops"
        )
    return window


def load_network(path: Path, name: str, device: torch.device) -> tuple[VideoResNet, Checkpoint]:
    """The network of a run or checkpoint, ready for testing."""
    checkpoint = load_checkpoint(path, name)
    model = build_model(checkpoint.config, len(checkpoint.classes))
    model.load_state_dict(checkpoint.weights)
    return model.to(device, memory_format=torch.channels_last_3d).eval(), checkpoint  # type: ignore[call-overload]


def for_testing(model: VideoResNet, test: EvalConfig) -> VideoResNet:
    """What the test runs in the model's place, in evaluation mode; the model is what it was.

    Folded and compiled networks answer as the model does, but for rounding (`nlnet.models.folding.fold`).
    """
    if not test.fold:
        return model.eval()
    network = fold(model)
    if test.compile:
        network.features = torch.compile(network.features)  # type: ignore[method-assign]
    return network


def eval_precision(config: Config, test: EvalConfig) -> str:
    """A name of `nlnet.engine.network.PRECISIONS`."""
    return config.training.precision if test.precision == "trained" else test.precision

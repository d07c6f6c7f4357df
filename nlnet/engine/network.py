"""The configured network: built, loaded from a checkpoint, prepared for a test."""

from pathlib import Path

import torch

from nlnet.data.protocols import PROTOCOLS
from nlnet.engine.config import Config, EvalConfig
from nlnet.engine.config.inputs import sampling
from nlnet.engine.runs.atomic_write import one_line
from nlnet.engine.runs.checkpoint import Checkpoint, load_checkpoint
from nlnet.errors import EvaluationError, RunError
from nlnet.layers.folding import fold
from nlnet.models.resnet import Triple, VideoResNet, window_of
from nlnet.zoo import create_model

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Names of `training.precision` and `test.precision` → dtype of autocast."""


def build_model(config: Config, num_classes: int) -> VideoResNet:
    """Build the configured network with fresh weights."""
    return create_model(num_classes=num_classes, **config.model.model_dump())


def load_network(path: Path, name: str, device: torch.device) -> tuple[VideoResNet, Checkpoint]:
    """Load the network of a checkpoint file, or of a run's checkpoint `name`, in evaluation mode on a device.

    Raises:
        RunError: the checkpoint cannot be read, or its weights do not fit its own configuration.
    """
    checkpoint = load_checkpoint(path, name)
    model = build_model(checkpoint.config, len(checkpoint.classes))
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:  # names every key that is missing, unexpected or of another shape
        raise RunError(
            f"{path}: its weights do not fit the network {checkpoint.config.model.name} of its own configuration "
            f"({one_line(error)})"
        ) from None
    return model.to(device, memory_format=torch.channels_last_3d).eval(), checkpoint  # type: ignore[call-overload]


def training_window(model: VideoResNet, config: Config) -> Triple:
    """The size of the last map for a training clip: the window that a fully convolutional head averages over."""
    frames, _ = sampling(config)
    return window_of(model, (frames, config.data.crop, config.data.crop))


def eval_window(model: VideoResNet, config: Config, test: EvalConfig) -> Triple | None:
    """The window that slides over the last map under a protocol; None if the head averages the whole map.

    The window is `training_window`: the classifier sees means over as many cells as in training.

    Raises:
        EvaluationError: the last map of a test crop is smaller than the window.
    """
    if PROTOCOLS[test.protocol].head == "pool":
        return None
    window = training_window(model, config)
    smallest = window_of(model, (sampling(config)[0], test.crop, test.crop))
    if any(have < need for have, need in zip(smallest, window, strict=True)):
        raise EvaluationError(
            f"test.crop={test.crop} gives a last map of {smallest} cells (frames, rows, columns), smaller than the "
            f"{window} of the training crop ({config.data.crop} pixels); test on crops of at least that size"
        )
    return window


def for_testing(model: VideoResNet, test: EvalConfig) -> VideoResNet:
    """Return the network that a test runs, in evaluation mode: the model, or a folded and compiled copy.

    The copy gives the same logits up to rounding (`nlnet.layers.folding.fold`); with it the model is unchanged.
    """
    if not test.fold:
        return model.eval()
    network = fold(model)
    if test.compile:
        network.features = torch.compile(network.features)  # type: ignore[method-assign]
    return network


def eval_precision(config: Config, test: EvalConfig) -> str:
    """The precision that a test runs in, a name of `PRECISIONS`: its own, or that of training."""
    return config.training.precision if test.precision == "trained" else test.precision

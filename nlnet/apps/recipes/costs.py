"""The cost of training: multiply-adds and memory, counted from the network, and GPU-hours, estimated from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from nlnet.engine.config import Config, EvalConfig, ModelConfig
from nlnet.engine.config.inputs import sampling
from nlnet.models.flops import ShapesOnly, count
from nlnet.models.memory import Memory, activation_memory
from nlnet.models.resnet import Triple
from nlnet.zoo import create_model

GIB = 2**30
GPU = "A100"
PEAK: Mapping[str, float] = {"float32": 156e12, "bf16": 312e12, "fp16": 312e12}
"""Dense peak of that GPU, FLOP/s, by `training.precision`; convolutions of float32 run in TF32."""
UTILISATION = 0.25
"""The share of the peak that training is assumed to reach; not measured."""
ASSUMPTION = "GPU-hours = 2·MACs / ({share:.0%} of {gpu} peak, {peak:.0f} TFLOP/s in {precision})"


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """The cost of one clip in a network."""

    parameters: int
    blocks: int
    macs: int
    """Multiply-adds of the forward pass of a training clip."""
    eval_macs: int
    """Multiply-adds of the forward pass of a test view."""
    memory: Memory
    """Activations that training keeps for the gradient, in float32."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The cost of a whole training run."""

    clips: int
    macs: float
    """Multiply-adds of all clips, forward and backward, and of precise batch norm."""
    precise_share: float
    """The share of `macs` that precise batch norm takes."""
    gpu_hours: float


def network_cost(config: Config, num_classes: int) -> NetworkCost:
    """Count the cost of the configured network on the configured clips."""
    frames, _ = sampling(config)
    view = view_of(config.test)
    return _network_cost(
        config.model, num_classes, (frames, config.data.crop, config.data.crop), (frames, *view)
    )


def view_of(test: EvalConfig) -> tuple[int, int]:
    """Return the rows and columns of a test view; a whole frame is taken to have the aspect ratio 4:3."""
    wide = test.crop * 4 // 3 if test.protocol == "paper" else test.crop
    return test.crop, wide


@lru_cache(maxsize=256)
def _network_cost(model: ModelConfig, num_classes: int, clip: Triple, view: Triple) -> NetworkCost:
    with ShapesOnly():
        network = create_model(num_classes=num_classes, **model.model_dump())
    cost = count(network, clip)
    return NetworkCost(
        parameters=cost.parameters,
        blocks=sum(name.endswith(".nonlocal_block") for name, _ in network.named_modules()),
        macs=cost.macs,
        eval_macs=count(network, view).macs,
        memory=activation_memory(network, clip),
    )


def run_cost(config: Config, network: NetworkCost) -> RunCost:
    """Return the cost of the configured run.

    A clip costs three forward passes, since a backward pass costs two, and four with checkpointing.
    """
    training, iterations = config.training, config.schedule.iterations
    clips = iterations * training.batch
    passes = 4 if training.checkpointing else 3
    precise = measurements(config) * training.precise_norm * training.batch
    macs = network.macs * (passes * clips + precise)
    return RunCost(
        clips=clips,
        macs=macs,
        precise_share=precise / (passes * clips + precise),
        gpu_hours=gpu_hours(macs, training.precision),
    )


def measurements(config: Config) -> int:
    """Return how often precise batch norm measures: before each checkpoint and each validation, and at the end."""
    training, iterations = config.training, config.schedule.iterations
    # a set, since a checkpoint and a validation after the same iteration share one measurement
    moments = set(range(training.checkpoint_every, iterations + 1, training.checkpoint_every)) | {iterations}
    if config.data.val is not None:
        moments |= set(range(training.validate_every, iterations + 1, training.validate_every))
    return len(moments)


def gpu_hours(macs: float, precision: str) -> float:
    """Estimate the GPU-hours of that many multiply-adds (2 FLOP each) at the assumed share of the GPU's peak."""
    return 2 * macs / (UTILISATION * PEAK[precision]) / 3600


def assumption(precision: str) -> str:
    """Return the formula behind `gpu_hours` as text."""
    return ASSUMPTION.format(share=UTILISATION, gpu=GPU, peak=PEAK[precision] / 1e12, precision=precision)


def step_bytes(config: Config, network: NetworkCost, clips: int) -> tuple[int, int]:
    """Return the bytes of a training step in one process: (activations, weights with gradients and optimiser state).

    Args:
        clips: number of clips in one forward and backward pass.
    """
    # autocast halves the activations; weights, gradients and optimiser state stay float32
    kept = network.memory.checkpointed if config.training.checkpointing else network.memory.kept
    share = 1.0 if config.training.precision == "float32" else 0.5
    # weight and gradient, and one momentum (SGD) or two (AdamW)
    states = 4 if config.optimizer.kind == "adamw" else 3
    return int(clips * kept * share), states * 4 * network.parameters

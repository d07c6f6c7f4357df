"""What a configuration costs: multiply-adds and memory counted from the network, GPU-hours estimated from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from nlnet.engine.config import Config, EvalConfig, ModelConfig
from nlnet.engine.config.inputs import sampling
from nlnet.models.flops import Skeleton, count
from nlnet.models.memory import Memory, activation_memory
from nlnet.models.resnet import Triple
from nlnet.zoo import create_model

GIB = 2**30
GPU = "A100"
PEAK: Mapping[str, float] = {"float32": 156e12, "bf16": 312e12, "fp16": 312e12}
"""Dense peak of that GPU, FLOP/s, by `training.precision`; convolutions of float32 run in TF32."""
UTILISATION = 0.25
"""The share of the peak that training reaches: an assumption, not a measurement."""
ASSUMPTION = "GPU-hours = 2·MACs / ({share:.0%} of {gpu} peak, {peak:.0f} TFLOP/s in {precision})"


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Of one clip."""

    parameters: int
    blocks: int
    macs: int
    """Forward pass, training clip."""
    eval_macs: int
    """Forward pass, test view."""
    memory: Memory
    """Activations of training, bytes in float32."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Of a whole training run."""

    clips: int
    macs: float
    """Of all clips, forward and backward, and of precise BN."""
    precise_share: float
    """The part of `macs` that goes to precise BN."""
    gpu_hours: float


def network_cost(config: Config, num_classes: int) -> NetworkCost:
    """What the configured network costs on the configured clips."""
    frames, _ = sampling(config)
    view = view_of(config.test)
    return _network_cost(
        config.model, num_classes, (frames, config.data.crop, config.data.crop), (frames, *view)
    )


def view_of(test: EvalConfig) -> tuple[int, int]:
    """Rows and columns of a test view; a whole frame is taken to be 4:3."""
    wide = test.crop * 4 // 3 if test.protocol == "paper" else test.crop
    return test.crop, wide


@lru_cache(maxsize=256)
def _network_cost(model: ModelConfig, num_classes: int, clip: Triple, view: Triple) -> NetworkCost:
    with Skeleton():
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
    """A clip costs its forward pass three times (backward is two), four times with checkpointing."""
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
    """How often precise BN measures: before every checkpoint, every validation, and at the end."""
    training, iterations = config.training, config.schedule.iterations
    moments = set(range(training.checkpoint_every, iterations + 1, training.checkpoint_every)) | {iterations}
    if config.data.val is not None:
        moments |= set(range(training.validate_every, iterations + 1, training.validate_every))
    return len(moments)


def gpu_hours(macs: float, precision: str) -> float:
    """Two floating-point operations a multiply-add, at the assumed share of the GPU's peak."""
    return 2 * macs / (UTILISATION * PEAK[precision]) / 3600


def assumption(precision: str) -> str:
    """The formula in words."""
    return ASSUMPTION.format(share=UTILISATION, gpu=GPU, peak=PEAK[precision] / 1e12, precision=precision)


def step_bytes(config: Config, network: NetworkCost, clips: int) -> tuple[int, int]:
    """(activations, weights with gradients and optimiser state) of a process with `clips` clips a pass, bytes.

    Half precision halves the activations (weights stay float32).
    """
    kept = network.memory.checkpointed if config.training.checkpointing else network.memory.kept
    share = 1.0 if config.training.precision == "float32" else 0.5
    states = 4 if config.optimizer.kind == "adamw" else 3
    return int(clips * kept * share), states * 4 * network.parameters

"""Every key of a run's configuration: typed, frozen, with its default; unknown keys are errors.

A recipe (`nlnet.apps.recipes.catalogue`) or a YAML file gives a `Config`; `key=value` overrides change single keys by
their dotted names. The run directory stores the result as `config.json`. A key that is renamed goes into
`nlnet.engine.config.read.RENAMED`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    create_model,
    model_validator,
)

from nlnet.data import Format, Missing
from nlnet.data.protocols import PROTOCOLS, EvalProtocol, Protocol
from nlnet.errors import ConfigError
from nlnet.models.options import DEFAULTS, NetworkOptions

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _network_section() -> Any:
    """Make the section whose fields are the options of `create_model` (`nlnet.models.options`)."""
    checked = {"groups": PositiveInt, "dropout": Fraction, "where": tuple[str, ...] | None}
    types = get_type_hints(NetworkOptions) | checked
    fields: dict[str, Any] = {name: (types[name], default) for name, default in DEFAULTS.items()}
    return create_model("NetworkSection", __base__=_Section, name=(str, "i3d_r50_nl5"), **fields)


_NetworkSection: Any = _network_section()


class ModelConfig(_NetworkSection):
    """The network: `name` and the options of `nlnet.create_model`, explained in `nlnet.models.options`."""


class DataConfig(_Section):
    """The videos, and how training clips are cut from them (defaults: §4.1 of the paper and the release)."""

    train: Path | None = None
    """Training videos: a folder of class folders, a list of `path label` lines, or an annotation file (`format`)."""
    val: Path | None = None
    """Videos to validate on during training, given like `train`; no validation if not set."""
    test: Path | None = None
    """Videos that `nlnet test` scores, given like `train`."""
    root: Path | None = None
    """Folder that relative paths in a list start from; the list's own folder if not set."""
    format: Format = "auto"
    """Format of train, val and test (`nlnet.data.read_videos`); `auto` decides by file name and header."""
    classes: Path | None = None
    """A file of class names in order (`nlnet.data.read_classes`); the classes of `train` if not set."""
    missing: Missing = "error"
    """What to do about listed videos that do not exist: `error` stops, `leave_out` goes on without them and lists them
    in the run's missing.json."""
    frames: PositiveInt | None = None
    """Frames of a clip; the model variant's if not set."""
    stride: PositiveInt | None = None
    """Distance from one frame of a clip to the next, in video frames; the model variant's if not set."""
    crop: PositiveInt = 224
    """Side of the square training crop, pixels."""
    scales: tuple[PositiveInt, PositiveInt] = (256, 320)
    """The shorter side of a frame is resized to a random integer of this closed range, pixels."""
    flip: bool = True
    """Flip half of the training clips horizontally; wrong where left and right carry meaning."""
    mean: float | tuple[float, float, float] = 0.45
    """Subtracted from RGB in [0, 1]: one number, or one a channel."""
    std: float | tuple[float, float, float] = 0.225
    """RGB is divided by it after `mean` is subtracted: one number, or one a channel."""
    workers: NonNegativeInt = 2
    """Decoding processes of each training process; 0 decodes in the training process."""
    cache_gib: NonNegativeFloat = 0.0
    """Memory of each process for decoded videos, GiB; useful for small data sets that are read many times."""

    @model_validator(mode="after")
    def _check_scales(self) -> "DataConfig":
        if self.scales[0] > self.scales[1]:
            raise ConfigError(f"data.scales: got {self.scales}, expected a range (low, high)")
        if self.scales[0] < self.crop:
            raise ConfigError(
                f"data.scales: the smallest, {self.scales[0]}, is below the crop of {self.crop} pixels; "
                "raise it or lower data.crop"
            )
        return self


class OptimizerConfig(_Section):
    """SGD with Nesterov momentum as in the release, or AdamW."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """The optimiser."""
    lr: PositiveFloat = 0.01
    """Learning rate at `reference_batch` clips an iteration; it scales linearly with `training.batch`."""
    reference_batch: PositiveInt = 64
    """Batch size that `lr` is given for, clips an iteration."""
    momentum: Fraction = 0.9
    """Momentum of SGD; β₁ of AdamW."""
    nesterov: bool = True
    """Nesterov momentum, for SGD."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay of all parameters but γ and β of norms."""
    norm_weight_decay: NonNegativeFloat = 0.0
    """Weight decay of γ and β of norms; the release has none."""
    transferred_lr: NonNegativeFloat = 1.0
    """Factor on the learning rate of weights that came from `init.weights`; 0 freezes them."""
    clip_norm: PositiveFloat | None = None
    """Clip the norm of the whole gradient to this; no clipping if not set."""


class ScheduleConfig(_Section):
    """Learning rate by iteration: step or half-cosine decay after an optional linear warm-up."""

    iterations: PositiveInt = 400_000
    """Optimiser steps of the whole run."""
    policy: Literal["step", "cosine"] = "step"
    """How the rate falls: by `gamma` at each of `steps`, or along half a cosine down to 0."""
    steps: tuple[PositiveInt, ...] = (150_000, 300_000)
    """Iterations at which the rate is multiplied by `gamma`; for the step policy."""
    gamma: PositiveFloat = 0.1
    """Factor on the rate at each of `steps`."""
    warmup: NonNegativeInt = 0
    """Iterations of linear warm-up; the release has none."""
    warmup_start: Fraction = 0.1
    """Fraction of the rate at iteration 0 of the warm-up."""


class TrainingConfig(_Section):
    """Batches, loss, precision, and how often a run validates, saves and logs."""

    batch: PositiveInt = 64
    """Clips of an iteration, over all processes and accumulation steps."""
    accumulate: PositiveInt = 1
    """Micro-batches (forward and backward passes) of an iteration."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Arithmetic of the network: float32, or autocast to bfloat16 or float16; weights stay float32."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy of the softmax (one class per video), or the mean over clips and classes of the binary
    cross-entropies of per-class sigmoids (any number of classes per video, as in Charades)."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the softmax loss; the sigmoid loss has none."""
    frozen_norm: bool = False
    """Keep statistics and parameters of transferred batch norms fixed (the paper's long clips)."""
    checkpointing: bool = False
    """Activation checkpointing: keep only the inputs of residual blocks and compute the rest again in the backward
    pass. A third more arithmetic, about half the memory (`nlnet models`), the same result."""
    compile: bool = False
    """Run the network through torch.compile: compiling takes a minute or more, and a C++ compiler on the CPU. Results
    differ by rounding, and dropout draws other random numbers; not together with `checkpointing`."""
    precise_norm: NonNegativeInt = 200
    """Batches that measure the batch norms' statistics anew before each validation and checkpoint; 0 is off."""
    validate_every: PositiveInt = 20_000
    """Iterations between validations; the last iteration is always validated."""
    checkpoint_every: PositiveInt = 10_000
    """Iterations between checkpoints; every validation and the last iteration also save one."""
    log_every: PositiveInt = 20
    """Iterations between training records in metrics.jsonl."""
    block_stats_every: NonNegativeInt = 20
    """Iterations between measurements of the non-local blocks (`nlnet.block_stats`); the first and the last iteration
    are also measured. 0 is off. Measuring changes no weight."""
    seed: NonNegativeInt = 0
    """Seed of fresh weights, sample order, augmentation and dropout."""

    @model_validator(mode="after")
    def _check_compile(self) -> "TrainingConfig":
        if self.compile and self.checkpointing:
            raise ConfigError(
                "training.compile: torch cannot compile a network with activation checkpointing; set "
                "training.compile or training.checkpointing to false"
            )
        return self

    @model_validator(mode="after")
    def _check_smoothing(self) -> "TrainingConfig":
        if self.loss == "sigmoid" and self.label_smoothing > 0:
            raise ConfigError(
                f"training.label_smoothing: got {self.label_smoothing}, but training.loss=sigmoid has no label "
                "smoothing; set it to 0"
            )
        return self


class InitConfig(_Section):
    """The weights that training starts from; fresh ones if `weights` is not set."""

    weights: Path | None = None
    """A run directory, or a weight file of nlnet, the Caffe2 release, PySlowFast, PyTorchVideo, mmaction2 or
    torchvision (`nlnet.weights.read.read_weights`); 2-D kernels are inflated."""
    source: str | None = None
    """The project whose file it is, if the file's keys do not tell: slowfast_pkl."""
    drop: tuple[str, ...] = ()
    """Weights to leave fresh, as glob patterns of names: "fc.*" for the classifier, "*.nonlocal_block.*" for blocks."""


def protocol_rules(name: object) -> EvalProtocol | None:
    """Return the rules of a test protocol by name; None for an unknown name, which the field's type then rejects."""
    return next((rules for known, rules in PROTOCOLS.items() if known == name), None)


class EvalConfig(_Section):
    """The test: `clips` × `crops` views of each video, whose scores are averaged (§4.1).

    A protocol (`nlnet.data.protocols`) sets clips, crops and the crop of whole frames where they are not given.
    """

    protocol: Protocol = "released"
    """Which frames the clips take, where crops lie, and how the head reads a view."""
    clips: PositiveInt = 10
    """Clips of each video."""
    crops: Literal[1, 3] = 3
    """Square crops of each clip, along the longer side."""
    short_side: PositiveInt = 256
    """Size that the shorter side of a frame is resized to, pixels."""
    crop: PositiveInt = 256
    """Side of the square crops, pixels; the shorter side where a protocol takes whole frames."""
    aggregate: Literal["mean", "max"] = "mean"
    """How the scores of a video's views become the video's scores, class by class. The release and mmaction2 average,
    PySlowFast sums (the same order), and takes the maximum for Charades."""
    views_at_once: PositiveInt = 6
    """Views of a forward pass: bounds memory, does not change results."""
    precision: Literal["trained", "float32", "bf16", "fp16"] = "trained"
    """Arithmetic of the network; `trained` is that of `training.precision`."""
    fold: bool = True
    """Fold batch norms into the convolutions before them: faster, and the same logits up to rounding (1e-5 of the
    largest in float32)."""
    compile: bool = False
    """Run the folded network through torch.compile: compiling takes half a minute, and a C++ compiler on the CPU."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_protocol(cls, values: Any) -> Any:
        rules = protocol_rules(values.get("protocol", "released")) if isinstance(values, Mapping) else None
        if rules is None:
            return values
        # before the defaults are filled in: afterwards a given value and a default look the same
        own: dict[str, Any] = {"clips": rules.clips, "crops": rules.crops}
        if rules.crop == "whole":
            own["crop"] = values.get("short_side", 256)
        return own | dict(values)

    @model_validator(mode="after")
    def _check_views(self) -> "EvalConfig":
        rules = PROTOCOLS[self.protocol]
        if rules.starts == "centre" and self.clips != 1:
            raise ConfigError(
                f"test.clips: protocol {self.protocol} has one clip, got {self.clips}; leave test.clips out"
            )
        if rules.crop == "whole" and (self.crops, self.crop) != (1, self.short_side):
            raise ConfigError(
                f"test.crop: protocol {self.protocol} takes the whole frame, got {self.crops} crops of {self.crop} "
                "pixels; leave test.crops and test.crop out"
            )
        if self.crop > self.short_side:
            raise ConfigError(
                f"test.crop: {self.crop} pixels do not fit a shorter side of {self.short_side} (test.short_side)"
            )
        if self.compile and not self.fold:
            raise ConfigError("test.compile: only the folded network is compiled; set test.fold=true as well")
        return self


class Config(_Section):
    """The whole configuration of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    init: InitConfig = InitConfig()
    test: EvalConfig = EvalConfig()

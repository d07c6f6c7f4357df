"""The configuration of a run: typed, frozen, complete, and strict about unknown keys.

A recipe (`nlnet.apps.recipes.catalogue`) or a YAML file gives a `Config`; `key=value` overrides change single fields by
dotted path. The run directory stores the result as `config.json`. Nothing below this floor sees it.
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
from nlnet.models.options import DEFAULTS, NetworkOptions

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _network_section() -> Any:
    """The options of `create_model` as fields, so that they are written in one place."""
    checked = {"groups": PositiveInt, "dropout": Fraction, "where": tuple[str, ...] | None}
    types = get_type_hints(NetworkOptions) | checked
    fields: dict[str, Any] = {name: (types[name], default) for name, default in DEFAULTS.items()}
    return create_model("NetworkSection", __base__=_Section, name=(str, "i3d_r50_nl5"), **fields)


_NetworkSection: Any = _network_section()


class ModelConfig(_NetworkSection):
    """What `nlnet.create_model` builds; see there and `nlnet.models.options`."""


class DataConfig(_Section):
    """Videos and how training clips are cut from them (original recipe: §4.1 of the paper and the release)."""

    train: Path | None = None
    """A folder of class folders, a list of `path label` lines, or a data set's own file (`format`)."""
    val: Path | None = None
    test: Path | None = None
    root: Path | None = None
    """Where relative paths of a list start and named videos are looked for; the list's own folder if not given."""
    format: Format = "auto"
    """What train, val and test are (`nlnet.data.read_videos`); `auto` tells by name and header."""
    classes: Path | None = None
    """A file of class names in order (`nlnet.data.read_classes`), if they are not to come from `train`."""
    missing: Missing = "error"
    """`leave_out` goes on without the videos that a list names and the disk lacks, and lists them in the run."""
    frames: PositiveInt | None = None
    """Frames of a clip; the model variant's if not given."""
    stride: PositiveInt | None = None
    """Video frames from one clip frame to the next; the model variant's if not given."""
    crop: PositiveInt = 224
    """Side of the square training crop, pixels."""
    scales: tuple[PositiveInt, PositiveInt] = (256, 320)
    """The shorter side is resized to an integer drawn from this closed range, pixels."""
    flip: bool = True
    """Flip half of the training clips horizontally; wrong where left and right carry meaning."""
    mean: float | tuple[float, float, float] = 0.45
    """Subtracted from RGB in [0, 1]."""
    std: float | tuple[float, float, float] = 0.225
    workers: NonNegativeInt = 2
    """Decoding processes per training process."""
    cache_gib: NonNegativeFloat = 0.0
    """Memory per process for keeping decoded videos, GiB: for small data sets that are read many times."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "DataConfig":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales: got {self.scales}, expected a range (low, high)")
        if self.scales[0] < self.crop:
            raise ValueError(
                f"scales: the smallest, {self.scales[0]}, is below the crop of {self.crop} pixels"
            )
        return self


class OptimizerConfig(_Section):
    """SGD with Nesterov momentum as in the release, or AdamW. Norm parameters are not decayed by default."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 0.01
    """Learning rate at `reference_batch` clips a step; scales linearly with the actual batch."""
    reference_batch: PositiveInt = 64
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 1e-4
    norm_weight_decay: NonNegativeFloat = 0.0
    transferred_lr: NonNegativeFloat = 1.0
    """Factor on the learning rate of weights that came from `init.weights`; 0 freezes them."""
    clip_norm: PositiveFloat | None = None
    """Largest allowed norm of the whole gradient."""


class ScheduleConfig(_Section):
    """Learning rate per iteration: a step or half-cosine decay after an optional linear warm-up."""

    iterations: PositiveInt = 400_000
    policy: Literal["step", "cosine"] = "step"
    steps: tuple[PositiveInt, ...] = (150_000, 300_000)
    """Iterations at which the rate is multiplied by `gamma`."""
    gamma: PositiveFloat = 0.1
    warmup: NonNegativeInt = 0
    """Iterations of linear warm-up; the release has none."""
    warmup_start: Fraction = 0.1
    """The rate's fraction at iteration 0 of the warm-up."""


class TrainingConfig(_Section):
    batch: PositiveInt = 64
    """Clips per optimiser step, over all processes and accumulation steps."""
    accumulate: PositiveInt = 1
    """Forward-backward passes per optimiser step."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """Cross-entropy of the softmax (one class a video), or the mean over clips and classes of the binary
    cross-entropies of per-class sigmoids (any number of classes a video, as Charades has)."""
    label_smoothing: Fraction = 0.0
    """Of the softmax; the sigmoid loss has none."""
    frozen_norm: bool = False
    """Keep the statistics and parameters of transferred batch norms fixed (the paper's long clips)."""
    checkpointing: bool = False
    """Keep only the inputs of residual blocks and compute the rest again in the backward pass: a third more
    arithmetic, about half the memory (`nlnet models`), the same result."""
    compile: bool = False
    """Run the network through torch.compile: a minute or more once, and a C++ compiler on the CPU. Results differ by
    rounding, and dropout draws other numbers; not together with `checkpointing`."""
    precise_norm: NonNegativeInt = 200
    """Batches that re-estimate the running statistics before each validation and checkpoint; 0 is off."""
    validate_every: PositiveInt = 20_000
    checkpoint_every: PositiveInt = 10_000
    log_every: PositiveInt = 20
    vitals_every: NonNegativeInt = 20
    """Iterations between measurements of every non-local block (`nlnet.block_stats`), the first and the last iteration
    being measured too; 0 is off. They change no weight."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _compiles(self) -> "TrainingConfig":
        if self.compile and self.checkpointing:
            raise ValueError(
                "compile: torch cannot compile what checkpointing computes again; choose one of the two"
            )
        return self

    @model_validator(mode="after")
    def _smoothing_fits(self) -> "TrainingConfig":
        if self.loss == "sigmoid" and self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing: got {self.label_smoothing} with loss=sigmoid, which has none; set it to 0"
            )
        return self


class InitConfig(_Section):
    """Where training starts."""

    weights: Path | None = None
    """A run directory or a weight file of nlnet, the Caffe2 release, PySlowFast, PyTorchVideo, mmaction2 or
    torchvision (`nlnet.weights.read.read_weights`); 2-D kernels inflate."""
    source: str | None = None
    """The project that the file is of, where its keys do not say it: slowfast_pkl."""
    drop: tuple[str, ...] = ()
    """Globs of names in the weights that are not used: "fc.*" learns a new classifier, "*.nonlocal_block.*" new blocks."""


def _rules(name: object) -> EvalProtocol | None:
    """The protocol of that name; None for what is no name of one, which the field's own check refuses."""
    return next((rules for known, rules in PROTOCOLS.items() if known == name), None)


class EvalConfig(_Section):
    """Multi-view testing: `clips` × `crops` views of each video, scores averaged (§4.1).

    The protocol, a name of `nlnet.data.protocols`, brings its own numbers of clips and crops where they are not given.
    """

    protocol: Protocol = "released"
    """Where clips start, which frames they take, where crops lie, how the head reads them."""
    clips: PositiveInt = 10
    crops: Literal[1, 3] = 3
    short_side: PositiveInt = 256
    """The shorter side of a frame, pixels."""
    crop: PositiveInt = 256
    """Side of the square crops, pixels; the shorter side where a protocol takes whole frames."""
    aggregate: Literal["mean", "max"] = "mean"
    """How the scores of a video's views, clips and crops alike, become the video's, class by class. The release
    and mmaction2 average (PySlowFast sums), PySlowFast takes the largest for Charades."""
    views_at_once: PositiveInt = 6
    """Views per forward pass: bounds memory, not results."""
    precision: Literal["trained", "float32", "bf16", "fp16"] = "trained"
    """Of the network's arithmetic; `trained` is training.precision."""
    fold: bool = True
    """Fold batch norms into the convolutions before them: a pass less over every map, the same logits but for
    rounding (1e-5 of the largest in float32)."""
    compile: bool = False
    """Run the folded network through torch.compile: about half a minute once, and a C++ compiler on the CPU."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_protocol(cls, values: Any) -> Any:
        rules = _rules(values.get("protocol", "released")) if isinstance(values, Mapping) else None
        if rules is None:
            return values
        own: dict[str, Any] = {"clips": rules.clips, "crops": rules.crops}
        if rules.crop == "whole":
            own["crop"] = values.get("short_side", 256)
        return own | dict(values)

    @model_validator(mode="after")
    def _views_fit(self) -> "EvalConfig":
        rules = PROTOCOLS[self.protocol]
        if rules.starts == "centre" and self.clips != 1:
            raise ValueError(
                f"clips: protocol {self.protocol} is one clip, got {self.clips}; leave test.clips out"
            )
        if rules.crop == "whole" and (self.crops, self.crop) != (1, self.short_side):
            raise ValueError(
                f"crop: protocol {self.protocol} takes the whole frame, got {self.crops} crops of {self.crop} pixels; "
                "leave test.crops and test.crop out"
            )
        if self.crop > self.short_side:
            raise ValueError(f"crop: {self.crop} pixels do not fit a shorter side of {self.short_side}")
        if self.compile and not self.fold:
            raise ValueError("compile: what is compiled is the folded network; set fold=true with it")
        return self


class Config(_Section):
    """Everything that a run depends on."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    init: InitConfig = InitConfig()
    test: EvalConfig = EvalConfig()

"""Everything that the training loop needs, built and checked before the loop starts.

The order matters: wrong settings are reported before anything is written, and the random numbers of fresh weights
depend on the seed alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from nlnet.data import Batch, TrainClips, TrainTransform, VideoList
from nlnet.engine.config import Config, from_json
from nlnet.engine.config.inputs import sampling
from nlnet.engine.distributed import World
from nlnet.engine.network import build_model
from nlnet.engine.runs.directory import RunDir
from nlnet.engine.training.callbacks import RunLog
from nlnet.engine.training.initial_weights import load_initial
from nlnet.engine.training.learner import Learner
from nlnet.engine.training.loader import TrainLoader
from nlnet.engine.training.sampler import BatchSampler, SampleOrder, mix_seeds
from nlnet.engine.training.saving import Saver
from nlnet.engine.training.schedule import peak_rate
from nlnet.engine.training.videos import change, identity, read_training_videos
from nlnet.errors import RunError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Videos:
    """The lists of training and validation videos."""

    train: VideoList
    validation: VideoList | None
    missing: dict[str, list[str]]
    """By annotation file: the videos that it names, the disk lacks, and the run leaves out."""
    identities: dict[str, Any]
    """By annotation file: what the list is recognised by when the run is resumed (`identity`)."""


class Batches:
    """The training batches of this process, for any range of iterations."""

    def __init__(self, config: Config, world: World, videos: VideoList) -> None:
        frames, stride = sampling(config)
        self.config, self.world, self.num_classes = config, world, len(videos.classes)
        self.dataset = TrainClips(
            videos,
            length=frames,
            stride=stride,
            transform=TrainTransform(config.data.crop, config.data.scales, config.data.flip),
            cache_bytes=int(config.data.cache_gib * GIB),
        )
        self.order = SampleOrder(len(videos.items), config.training.seed)
        self.sampler(0, 0)  # raises now if the batch does not divide, not after the first minutes of work

    def sampler(self, start: int, stop: int) -> BatchSampler:
        """The samples of this process from iteration `start` to `stop`."""
        return BatchSampler(
            self.order,
            start=start,
            stop=stop,
            batch=self.config.training.batch,
            accumulate=self.config.training.accumulate,
            rank=self.world.rank,
            world=self.world.size,
        )

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """Start the workers, and iterate over the batches of this process from iteration `start` to `stop`."""
        loader = TrainLoader(
            self.dataset,
            self.sampler(start, stop),
            workers=self.config.data.workers,
            num_classes=self.num_classes,
            pin=self.world.device.type == "cuda",
        )
        return iter(loader)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The parts of a training run, ready for the loop."""

    config: Config
    run: RunDir
    world: World
    videos: Videos
    batches: Batches
    learner: Learner
    saver: Saver
    log: RunLog
    origin: str | None
    """Where the weights came from; None if they are fresh."""
    transferred: tuple[str, ...]
    """Names of the weights that came from `init.weights`."""
    start: int
    """Iterations that are done already."""
    resumed: bool

    def state(self, done: int) -> dict[str, Any]:
        """The training state after `done` iterations."""
        return self.learner.state() | {
            "config": self.config.model_dump_json(),
            "videos": self.videos.identities,
            "iteration": done,
            "transferred": list(self.transferred),
        }

    def facts(self) -> dict[str, str]:
        """Describe the run by name and value, for display before it starts."""
        config, world, model = self.config, self.world, self.learner.model
        train, validation, missing = self.videos.train, self.videos.validation, self.videos.missing
        training, schedule, (frames, stride) = config.training, config.schedule, sampling(config)
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        micro_batch = training.batch // world.size // training.accumulate
        epochs = schedule.iterations * training.batch / len(train.items)
        facts = {
            "model": f"{config.model.name} ({parameters:.3f} M parameters, {len(nonlocal_blocks(model))} non-local blocks)",
            "videos": f"{len(train.items)} in {len(train.classes)} classes ({train.layout})"
            + (f", {len(validation.items)} for validation" if validation else ", no validation set"),
            "clip": f"{frames} frames, every {stride}, {config.data.crop}×{config.data.crop}",
            "batch": f"{training.batch} clips = {world.size} × {training.accumulate} × {micro_batch}",
            "rate": f"{peak_rate(config):g}, {schedule.policy}, {schedule.iterations} iterations = {epochs:.1f} epochs",
            "device": f"{world.device}, {training.precision}",
        }
        if self.origin is not None:
            facts["from"] = self.origin
        if missing:
            counts = ", ".join(f"{len(paths)} of {source}" for source, paths in missing.items())
            facts["left out"] = f"videos missing from the disk: {counts}; listed in {self.run.missing_path}"
        return facts


def prepare(
    config: Config, run: RunDir, world: World, log: RunLog, state: Mapping[str, Any] | None = None
) -> TrainingSetup:
    """Build and check everything that the training loop needs; writes nothing.

    Args:
        log: where the validation goes.
        state: the training state to resume from; None starts a new run.

    Raises:
        RunError: a run is already here, or the state is of another configuration or of other videos.
        ConfigError: settings that do not go together. WeightsError: `init.weights` of another network.
    """
    if state is None:
        run.require_unused()
    else:
        check_config(state, config, run)
    videos = prepare_videos(config, run, state)
    batches = Batches(config, world, videos.train)
    torch.manual_seed(mix_seeds(config.training.seed, 0, 2))  # the same fresh weights on every process
    model = build_model(config, len(videos.train.classes))
    origin, transferred = load_weights_into(model, config, state)
    learner = Learner(model, config, world, transferred)

    def precise(done: int) -> AbstractContextManager[None]:
        """Precise batch norms, measured on the batches that follow iteration `done`."""
        count = config.training.precise_norm
        return learner.precise_statistics(batches.between(done, done + count)) if count else nullcontext()

    saver = Saver(
        config,
        run,
        world,
        model=model,
        videos=videos.train,
        validation=videos.validation,
        precise=precise,
        log=log,
    )
    if state is not None:
        learner.load(state)
    return TrainingSetup(
        config=config,
        run=run,
        world=world,
        videos=videos,
        batches=batches,
        learner=learner,
        saver=saver,
        log=log,
        origin=origin,
        transferred=transferred,
        start=0 if state is None else state["iteration"],
        resumed=state is not None,
    )


def check_config(state: Mapping[str, Any], config: Config, run: RunDir) -> None:
    """Raise RunError if the training state was made with another configuration."""
    # compared as parsed configurations: the text of older states has old names of keys
    if from_json(state["config"], source=str(run.resume_path)) != config:
        raise RunError(
            f"{run.path}: its training state was made with another configuration; resume it with its own config.json"
        )


def prepare_videos(config: Config, run: RunDir, state: Mapping[str, Any] | None) -> Videos:
    """Read the lists of videos, and compare them with those that a resumed run began with.

    Raises:
        RunError: the videos of a resumed run have changed, so that its sample order would change.
    """
    train, validation = read_training_videos(config)
    lists = [videos for videos in (train, validation) if videos is not None]
    missing = {str(v.source): [str(path) for path in v.missing] for v in lists if v.missing}
    identities = {str(v.source): identity(v, config.data.root) for v in lists}
    if state is not None:
        run.check_missing(missing)
        for source, known in state.get("videos", {}).items():
            changed = change(known, identities[source])
            if changed is not None:
                raise RunError(
                    f"{run.path}: {source} has changed since the run began: {changed}; a resumed run needs the "
                    "videos that it began with"
                )
    return Videos(train=train, validation=validation, missing=missing, identities=identities)


def load_weights_into(
    model: VideoResNet, config: Config, state: Mapping[str, Any] | None
) -> tuple[str | None, tuple[str, ...]]:
    """Load the training state or `init.weights`; return a line about their origin, and the names from `init.weights`."""
    if state is not None:
        model.load_state_dict(state["model"])
        return f"the checkpoint at iteration {state['iteration']}", tuple(state["transferred"])
    origin, report = load_initial(model, config.init)
    return origin, report.transferred if report else ()

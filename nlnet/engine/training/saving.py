"""Saving an iteration: the training state, then the validation, then the weights to use.

The training state is written first, because it needs no further computation: if the run is killed during precise
batch norms or validation, it can be resumed from this iteration. The checkpoint `last` is written at the very end. If
it is of the same iteration as the training state, the save is complete (`RunDir.finished`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from nlnet.data import VideoList
from nlnet.engine.config import Config, EvalConfig
from nlnet.engine.distributed import World
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import TrainingError
from nlnet.models.resnet import VideoResNet


class Saver:
    """Saves and validates one run.

    Args:
        precise: for a number of iterations done, a context in which the batch norms hold precise statistics.
        log: adds a record to metrics.jsonl.
    """

    def __init__(
        self,
        config: Config,
        run: RunDir,
        world: World,
        *,
        model: VideoResNet,
        videos: VideoList,
        validation: VideoList | None,
        precise: Callable[[int], AbstractContextManager[None]],
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config, self.rundir, self.world, self.model = config, run, world, model
        self.classes, self.validation = videos.classes, validation
        self.precise, self.log = precise, log
        self.best_by = "video_map" if videos.multilabel else "clip_top1"
        """The metric that decides which checkpoint is the best; each video has a single view in validation."""
        self.metrics: dict[str, float] = {}
        """Metrics of the last validation."""

    def validation_due(self, done: int) -> bool:
        """Whether a validation is due after `done` iterations."""
        every, total = self.config.training.validate_every, self.config.schedule.iterations
        return self.validation is not None and (done % every == 0 or done == total)

    def save_due(self, done: int) -> bool:
        """Whether a save is due after `done` iterations."""
        return self.validation_due(done) or done % self.config.training.checkpoint_every == 0

    def save(self, done: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write the training state, validate if due, and write the weights.

        Raises:
            TrainingError: a weight is NaN or infinite; the earlier files are unchanged.
        """
        # first: weights that are NaN must not replace a good training state
        self.check_weights(done)
        with self.world.together():
            if self.world.first:
                self.rundir.save_state(state())
        self.finish(done)

    def finish_interrupted_save(self, done: int) -> None:
        """Complete the save of iteration `done` if a kill interrupted it: validate if due, and write the weights."""
        # other saves lose nothing: training goes on, and the next save writes `last` again
        due = self.validation_due(done) or done == self.config.schedule.iterations
        if due and self.world.any(self.world.first and not self.rundir.finished(done)):
            self.finish(done)

    def finish(self, done: int) -> None:
        """Validate if due, and write the weights, both with precise batch norms."""
        validates = self.validation_due(done)
        with self.precise(done):
            if validates:
                self._validate(done)
            with self.world.together():
                if self.world.first:
                    self._write_weights(done, validates)

    def check_weights(self, done: int) -> None:
        """Raise TrainingError if a weight is NaN or infinite: the loss was computed before the last update."""
        finite = torch.stack([torch.isfinite(p).all() for p in self.model.parameters()])
        if not finite.all():
            broken = [
                n for (n, _), good in zip(self.model.named_parameters(), finite, strict=True) if not good
            ]
            raise TrainingError(
                f"{broken[0]} and {len(broken) - 1} other weights are NaN or infinite after iteration {done}; try a "
                "lower optimizer.lr, a schedule.warmup, optimizer.clip_norm, or training.precision=float32"
            )

    def _validate(self, done: int) -> None:
        """Score one view of each validation video, and log the metrics."""
        assert self.validation is not None
        crop = self.config.data.crop
        single = EvalConfig(
            clips=1, crops=1, protocol="single", crop=crop, short_side=max(crop, self.config.data.scales[0])
        )
        evaluation = evaluate(self.model, self.validation, self.config, world=self.world, test=single)
        scores = evaluation.metrics()
        # with one view a video, video_* repeat clip_*: only the metric of the best checkpoint is kept of them
        self.metrics = {
            name: scores[name] for name in scores if name.startswith("clip_") or name == self.best_by
        }
        self.log(
            {
                "kind": "validation",
                "iteration": done,
                **self.metrics,
                "failures": len(evaluation.failures),
            }
        )

    def _write_weights(self, done: int, validated: bool) -> None:
        """Write the checkpoint `last`, and `best` if the validation is the best so far."""
        checkpoint = Checkpoint(
            weights=self.model.state_dict(),
            config=self.config,
            classes=self.classes,
            iteration=done,
            metrics=self.metrics if validated else {},  # those of the last validation are of other weights
        )
        if validated and self.metrics[self.best_by] > self.rundir.best(self.best_by):
            self.rundir.save("best", checkpoint)
        self.rundir.save("last", checkpoint)  # the last file of a save, see `RunDir.finished`

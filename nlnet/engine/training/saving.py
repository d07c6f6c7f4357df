"""What a run keeps of an iteration: the state to go on from, its validation, the weights to use.

The state is written first, because it needs nothing but what is there: a kill while the batch norms are measured
again, or during the validation, loses neither. The weights `last` are written at the very end; where they are of
the state's iteration, nothing of it is left to do (`RunDir.finished`).
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
    """Saves and validates one run."""

    def __init__(
        self,
        config: Config,
        run: RunDir,
        world: World,
        *,
        model: VideoResNet,
        videos: VideoList,
        validation: VideoList | None,
        statistics: Callable[[int], AbstractContextManager[None]],
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config, self.rundir, self.world, self.model = config, run, world, model
        self.classes, self.validation, self.statistics, self.log = (
            videos.classes,
            validation,
            statistics,
            log,
        )
        self.judge = "video_map" if videos.multilabel else "clip_top1"
        """The validation's figure that says which checkpoint is the best; each video has one view there."""
        self.metrics: dict[str, float] = {}
        """The last validation."""

    def validates(self, done: int) -> bool:
        """Whether a validation is due after `done` iterations."""
        every, total = self.config.training.validate_every, self.config.schedule.iterations
        return self.validation is not None and (done % every == 0 or done == total)

    def saves(self, done: int) -> bool:
        """Whether the schedule wants a checkpoint after `done` iterations."""
        return self.validates(done) or done % self.config.training.checkpoint_every == 0

    def save(self, done: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write the state, then validate where that is due and write the weights.

        Raises:
            TrainingError: a weight is not a finite number; what was saved before is unchanged.
        """
        self.refuse_broken_weights(done)
        with self.world.together():
            if self.world.first:
                self.rundir.save_state(state())
        self.finish(done)

    def catch_up(self, done: int) -> None:
        """Do what the session that saved the state of `done` did not come to."""
        due = self.validates(done) or done == self.config.schedule.iterations
        if due and self.world.any(self.world.first and not self.rundir.finished(done)):
            self.finish(done)

    def finish(self, done: int) -> None:
        """Validate where that is due, and write the weights, with the batch norms measured anew."""
        validates = self.validates(done)
        with self.statistics(done):
            if validates:
                self._validate(done)
            with self.world.together():
                if self.world.first:
                    self._write_weights(done, validates)

    def refuse_broken_weights(self, done: int) -> None:
        """Raise if a parameter is not a finite number: the loss before the last step does not tell."""
        finite = torch.stack([torch.isfinite(p).all() for p in self.model.parameters()])
        if not finite.all():
            broken = [
                n for (n, _), good in zip(self.model.named_parameters(), finite, strict=True) if not good
            ]
            raise TrainingError(
                f"{broken[0]} and {len(broken) - 1} other weights are no numbers after iteration {done}; try a lower "
                "optimizer.lr, a schedule.warmup, optimizer.clip_norm, or training.precision=float32"
            )

    def _validate(self, done: int) -> None:
        assert self.validation is not None
        crop = self.config.data.crop
        single = EvalConfig(
            clips=1, crops=1, protocol="single", crop=crop, short_side=max(crop, self.config.data.scales[0])
        )
        evaluation = evaluate(self.model, self.validation, self.config, world=self.world, test=single)
        scores = evaluation.metrics()
        self.metrics = {
            name: scores[name] for name in scores if name.startswith("clip_") or name == self.judge
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
        checkpoint = Checkpoint(
            weights=self.model.state_dict(),
            config=self.config,
            classes=self.classes,
            iteration=done,
            metrics=self.metrics if validated else {},
        )
        if validated and self.metrics[self.judge] > self.rundir.best(self.judge):
            self.rundir.save("best", checkpoint)
        self.rundir.save("last", checkpoint)

"""Loss, accuracy and speed between two log lines."""

import math
import time

import torch
from torch import Tensor

from nlnet.engine.distributed import World
from nlnet.errors import TrainingError


class Meter:
    """Sums between two log lines; they stay on the device until the line is written."""

    def __init__(self, world: World, *, multilabel: bool = False) -> None:
        self.world, self.waited, self.since = world, 0.0, time.perf_counter()
        self.sums = torch.zeros(2, device=world.device)
        self.clips = self.unread = 0
        self.accuracy = "clip_hit1" if multilabel else "clip_top1"

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Labels (B,), judged by top-1; or multi-hot (B, K), by whether the highest class is one of the clip's.

        The second is called clip_hit1; a clip without any class cannot hit.
        """
        best = logits.argmax(dim=1)
        if labels.is_floating_point():
            right = labels.gather(1, best[:, None]).sum()
        else:
            right = (best == labels).sum()
        self.sums += torch.stack([loss.float() * len(labels), right.float()])
        self.clips += len(labels)

    def take(self, iteration: int) -> dict[str, float] | None:
        """The means over all processes, and the number of clips that could not be read; starts anew.

        None, and no new start, where not one clip was read.

        Raises:
            TrainingError: the loss is not a finite number.
        """
        clips, unread = self.world.count(self.clips, self.unread)
        if clips == 0:
            return None
        loss, right = self.world.sum(self.sums).tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} before iteration {iteration}; try a lower optimizer.lr, a schedule.warmup, "
                "optimizer.clip_norm, or training.precision=float32"
            )
        seconds = time.perf_counter() - self.since
        values = {
            "loss": loss / clips,
            self.accuracy: 100 * right / clips,
            "unread": unread,
            "clips_per_second": clips / seconds,
            "waiting": self.waited / seconds,
        }
        self.sums.zero_()
        self.clips = self.unread = 0
        self.waited, self.since = 0.0, time.perf_counter()
        return values

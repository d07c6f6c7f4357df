"""The training loss, and the means of loss, accuracy and speed between two log lines."""

import math
import time

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nlnet.engine.distributed import World
from nlnet.errors import TrainingError


def training_loss(
    logits: Float[Tensor, "B K"],
    labels: Int[Tensor, "B"] | Float[Tensor, "B K"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean loss of a batch of B clips over K classes: softmax or sigmoid cross-entropy.

    Labels int64 (B,), one class a clip: softmax cross-entropy, −(1/B) Σ_b log softmax(z_b)[y_b].
    Labels multi-hot (B, K): the mean over clips *and classes* of the binary cross-entropies of the K sigmoids,
    −(1/BK) Σ_b Σ_k [y_bk log σ(z_bk) + (1 − y_bk) log(1 − σ(z_bk))], as Caffe2's SigmoidCrossEntropyLoss
    divides by the number of targets. (The paper has "per-category sigmoid" for Charades and no formula.)
    """
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


class Meter:
    """Sums of loss, accuracy and time between two log lines, for the means of all processes."""

    def __init__(self, world: World, *, multilabel: bool = False) -> None:
        self.world, self.waited, self.since = world, 0.0, time.perf_counter()
        # on the device until the log line: reading a value after each step would make the CPU wait for the GPU
        self.sums = torch.zeros(2, device=world.device)
        self.clips = self.unread = 0
        self.accuracy = "clip_hit1" if multilabel else "clip_top1"

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, and how many clips are classified correctly.

        Labels (B,): clip_top1, whether the highest class is the clip's. Labels multi-hot (B, K): clip_hit1, whether
        the highest class is one of the clip's; a clip without any class counts as wrong.
        """
        best = logits.argmax(dim=1)
        if labels.is_floating_point():
            right = labels.gather(1, best[:, None]).sum()
        else:
            right = (best == labels).sum()
        self.sums += torch.stack([loss.float() * len(labels), right.float()])
        self.clips += len(labels)

    def take(self, iteration: int) -> dict[str, float] | None:
        """Return the means over all processes and reset the sums; None, without a reset, if no clip was read.

        The keys are loss, clip_top1 or clip_hit1 (percent), unread (clips that could not be read), clips_per_second,
        and waiting (the share of the time spent waiting for batches).

        Raises:
            TrainingError: the loss is NaN or infinite.
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

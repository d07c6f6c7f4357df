"""What training minimises: softmax cross-entropy for one class a video, sigmoid cross-entropy for any number of them."""

from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nlnet.data import VideoList
from nlnet.engine.config import ConfigError

Loss = Literal["softmax", "sigmoid"]


def training_loss(
    logits: Float[Tensor, "B K"],
    labels: Int[Tensor, "B"] | Float[Tensor, "B K"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean loss of a batch of B clips over K classes.

    Labels int64 (B,), one class a clip: softmax cross-entropy, −(1/B) Σ_b log softmax(z_b)[y_b].
    Labels multi-hot (B, K): the mean over clips *and classes* of the binary cross-entropies of the K sigmoids,
    −(1/BK) Σ_b Σ_k [y_bk log σ(z_bk) + (1 − y_bk) log(1 − σ(z_bk))], as Caffe2's SigmoidCrossEntropyLoss
    divides by the number of targets. (The paper has "per-category sigmoid" for Charades and no formula.)
    """
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def check_labels(videos: VideoList, loss: Loss, source: Path) -> None:
    """Raise ConfigError where the labels of a list are not of the kind that the loss needs."""
    if any(item.label is None for item in videos.items):
        raise ConfigError(f"{source}: a list for training needs a label for every video")
    if videos.multilabel and loss == "softmax":
        raise ConfigError(
            f"training.loss=softmax needs one class a video, but {source} ({videos.layout}) gives any number of "
            "them; set training.loss=sigmoid"
        )
    if not videos.multilabel and loss == "sigmoid":
        raise ConfigError(
            f"training.loss=sigmoid needs lists of classes, but {source} ({videos.layout}) gives one class a video; "
            "set training.loss=softmax, or data.format=multilabel if each line of a list may name several classes"
        )

"""What training minimises: softmax cross-entropy for one class a video, sigmoid cross-entropy for any number of them."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


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

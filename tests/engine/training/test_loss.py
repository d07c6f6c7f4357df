"""The training loss in closed form, and labels that do not fit it."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlnet.data import VideoItem, VideoList
from nlnet.engine.config.inputs import check_labels
from nlnet.engine.training.loss import training_loss
from nlnet.errors import ConfigError

LOGITS = st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=4)


def test_softmax_cross_entropy_in_closed_form() -> None:
    """Two equal logits: −log ½, whatever the label."""
    loss = training_loss(torch.zeros(5, 2), torch.tensor([0, 1, 1, 0, 0]))
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))


@given(LOGITS, st.integers(0, 7))
def test_sigmoid_loss_is_the_mean_over_clips_and_classes(logits: list[list[float]], shown: int) -> None:
    """−(1/BK) Σ [y log σ(z) + (1 − y) log(1 − σ(z))], with log σ(z) = −log(1 + e⁻ᶻ), term by term."""
    hot = [shown >> k & 1 for k in range(3)]
    terms = [math.log1p(math.exp(-z if y else z)) for row in logits for z, y in zip(row, hot, strict=True)]
    loss = training_loss(
        torch.tensor(logits, dtype=torch.float64), torch.tensor([hot] * len(logits), dtype=torch.float64)
    )
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12, abs=1e-12)


def test_gradient_of_the_sigmoid_loss() -> None:
    """∂/∂z = (σ(z) − y)/(B·K): twice the classes, half the gradient on each."""
    for k in (3, 6):
        logits = torch.zeros(2, k, requires_grad=True)
        labels = torch.zeros(2, k)
        labels[:, 0] = 1
        training_loss(logits, labels).backward()
        expected = torch.full((2, k), 0.5 / (2 * k))
        expected[:, 0] *= -1
        torch.testing.assert_close(logits.grad, expected)


def videos(*labels: object) -> VideoList:
    items = tuple(VideoItem(Path(f"{k}.mp4"), label) for k, label in enumerate(labels))  # type: ignore[arg-type]
    return VideoList(items, ("a", "b"), Path("list.txt"), "list of videos")


def test_labels_that_fit_their_loss() -> None:
    check_labels(videos(0, 1), "softmax", Path("list.txt"))
    check_labels(videos((0, 1), ()), "sigmoid", Path("list.txt"))


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        (((0,), ()), "softmax", r"training.loss=softmax needs one class per video, but list.txt"),
        ((0, 1), "sigmoid", r"training.loss=sigmoid needs lists of classes, but list.txt \(list of videos\) gives one"),
        ((None, None), "softmax", "list.txt: a list for training needs a label for every video"),
    ],
)  # fmt: skip
def test_labels_that_do_not(labels: tuple[object, ...], loss: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_labels(videos(*labels), loss, Path("list.txt"))  # type: ignore[arg-type]

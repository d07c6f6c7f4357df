"""Does the cue find its partner: the share of attention that the block of a demo's network puts there, by test video.

The partner of the cue is the digit on a tile of its colour, far away in space and time. For each test video the cue is
the query, in the centre crop of the middle clip, and the keys nearest to the partner's centre in the frames that show
it are the partner's. The partner's share is the sum of f/C over those keys.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from nlnet.apps.attend.command import View, view_of
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.data.clips import clip_indices, crop_offsets
from nlnet.data.diagnostic.task import DiagnosticSpec, Item, make_clip
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.network import build_model
from nlnet.engine.training.initial_weights import load_initial
from nlnet.models.resnet import VideoResNet

Position = tuple[int, int, int]


class Scene(NamedTuple):
    """A test video of the diagnostic: one view, and where its items are in it."""

    view: View
    cue: list[Position]
    partner: list[Position]


def scenes(spec: DiagnosticSpec, folder: Path, count: int, config: Config) -> Iterator[Scene]:
    """The first `count` test videos written to `folder`, in the default view."""
    for index in range(count):
        truth = make_clip(spec, "test", index)
        red, green, cue = truth.items
        view = view_of(folder / str(truth.label) / f"{index:05d}.mp4", config)
        partner = red if cue.color == "red" else green
        yield Scene(view, *(positions(item, view, spec, config) for item in (cue, partner)))


def positions(item: Item, view: View, spec: DiagnosticSpec, config: Config) -> list[Position]:
    """The clip coordinates (t, y, x) of an item's centre, in each of the view's frames that shows it."""
    test, (length, stride) = config.test, sampling(config)
    if (spec.height, spec.width) != (test.short_side, test.short_side):
        raise ValueError(
            f"frames of {spec.height}×{spec.width} are rescaled to a short side of {test.short_side}; items are "
            "found in frames of their own size only"
        )
    offsets = crop_offsets(spec.height, spec.width, test.crop, test.crops)
    top, left = offsets[view.number % test.crops]
    numbers = clip_indices(view.start, length=length, stride=stride, num_frames=spec.frames)
    row, column = item.top + spec.tile // 2 - top, item.left + spec.tile // 2 - left
    return [(t, row, column) for t, number in enumerate(numbers) if number in item.frames]


def partner_share(observation: Observation, scene: Scene) -> tuple[float, float]:
    """Σ f/C over the partner's keys, the mean over the cue's frames; and the share of all keys that these are."""
    path = observation.paths[-1]
    keys = {
        tuple(
            int((axis - place).abs().argmin())
            for axis, place in zip(observation.centres(path), at, strict=True)
        )
        for at in scene.partner
    }
    row = observation.rows(scene.cue)[path].mean(dim=0)
    return sum(float(row[key]) for key in keys), len(keys) / row.numel()


class Shares(NamedTuple):
    """Means over the test videos."""

    partner: float
    """f/C on the partner, of 1."""
    uniform: float
    """What a block that looks everywhere alike would put there."""
    videos: int


def mean_share(model: VideoResNet, config: Config, seen: list[Scene]) -> Shares:
    """The mean of `partner_share` over videos."""
    pairs = []
    for scene in seen:
        clip = normalize(scene.view.clip[None], config.data.mean, config.data.std)
        pairs.append(partner_share(observe(model, clip), scene))
    partner, uniform = torch.tensor(pairs, dtype=torch.float64).mean(dim=0).tolist()
    return Shares(partner, uniform, len(pairs))


def as_it_started(config: Config, classes: int, weights: Path) -> VideoResNet:
    """The network before its first step: the trunk of the run `weights`, and a fresh block."""
    torch.manual_seed(config.training.seed)
    model = build_model(config, classes)
    load_initial(model, config.init.model_copy(update={"weights": weights}))
    return model.eval()


def tidy(scene: Scene) -> bool:
    """Whether cue and partner each appear in two frames that are pooled into one, 2k and 2k + 1: good to look at."""
    moments = [[t for t, _, _ in item] for item in (scene.cue, scene.partner)]
    return all(len(shown) == 2 and shown[0] % 2 == 0 and shown[1] == shown[0] + 1 for shown in moments)

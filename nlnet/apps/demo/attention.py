"""Measure how much of the cue's attention goes to its partner, the digit on a tile of the cue's colour.

In each test video the query is the position of the cue, in the centre crop of the middle clip. The partner lies far away
in space and time; its keys are those nearest to its centre, in the frames that show it. The partner's share is the sum of
f/C over its keys: 1 if all attention goes there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from nlnet.apps.attend.video_attention import View, view_of
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.data.clips import clip_indices, crop_offsets
from nlnet.data.diagnostic.task import DiagnosticSpec, Item, make_clip
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.network import build_model
from nlnet.engine.training.initial_weights import load_initial
from nlnet.errors import ConfigError
from nlnet.models.resnet import VideoResNet

Position = tuple[int, int, int]
"""(t, y, x) in a clip: frame, row, column."""


class Scene(NamedTuple):
    """One view of a test video, with the positions of the cue and of its partner in each frame that shows them."""

    view: View
    cue: list[Position]
    partner: list[Position]


def make_scenes(spec: DiagnosticSpec, folder: Path, count: int, config: Config) -> Iterator[Scene]:
    """Read the first `count` test videos of the data set in `folder`, each in the centre crop of its middle clip."""
    for index in range(count):
        # the data set is a function of (spec, split, index), so the items of a video are known without a label file
        truth = make_clip(spec, "test", index)
        red, green, cue = truth.items
        view = view_of(folder / str(truth.label) / f"{index:05d}.mp4", config)
        partner = red if cue.color == "red" else green
        yield Scene(view, *(item_positions(item, view, spec, config) for item in (cue, partner)))


def item_positions(item: Item, view: View, spec: DiagnosticSpec, config: Config) -> list[Position]:
    """Return the centre of an item, (t, y, x) in the clip, for each frame of the view that shows it.

    Raises:
        ConfigError: the test resizes the frames, so that the item's pixel position does not hold.
    """
    test, (length, stride) = config.test, sampling(config)
    if (spec.height, spec.width) != (test.short_side, test.short_side):
        raise ConfigError(
            f"test.short_side: got {test.short_side} for videos of {spec.height}×{spec.width} pixels; "
            f"expected videos of {test.short_side}×{test.short_side}: item positions are known only in frames "
            "that are not resized"
        )
    # items are placed in the full frame: subtract the corner of this view's crop
    offsets = crop_offsets(spec.height, spec.width, test.crop, test.crops)
    top, left = offsets[view.number % test.crops]
    numbers = clip_indices(view.start, length=length, stride=stride, num_frames=spec.frames)
    row, column = item.top + spec.tile // 2 - top, item.left + spec.tile // 2 - left
    return [(t, row, column) for t, number in enumerate(numbers) if number in item.frames]


def partner_share(observation: Observation, scene: Scene) -> tuple[float, float]:
    """Return the share of the cue's attention that goes to its partner, and the share if attention were uniform.

    The first is Σ f/C over the partner's keys, averaged over the cue's frames; the second is the part that these keys are
    of all keys.
    """
    path = observation.paths[-1]
    # a set: two frames of the partner can fall on the same key, which counts once
    keys = {
        tuple(
            int((centres - coordinate).abs().argmin())
            for centres, coordinate in zip(observation.centres(path), position, strict=True)
        )
        for position in scene.partner
    }
    row = observation.rows(scene.cue)[path].mean(dim=0)
    return sum(float(row[key]) for key in keys), len(keys) / row.numel()


class Shares(NamedTuple):
    """The result of `partner_share`, averaged over videos."""

    partner: float
    """Part of the cue's attention that goes to its partner, 0 to 1."""
    uniform: float
    """The same for equal attention to all keys."""
    videos: int


def mean_share(model: VideoResNet, config: Config, scenes: list[Scene]) -> Shares:
    """Return the mean of `partner_share` over videos."""
    pairs = []
    for scene in scenes:
        clip = normalize(scene.view.clip[None], config.data.mean, config.data.std)
        pairs.append(partner_share(observe(model, clip), scene))
    partner, uniform = torch.tensor(pairs, dtype=torch.float64).mean(dim=0).tolist()
    return Shares(partner, uniform, len(pairs))


def untrained_network(config: Config, classes: int, weights: Path) -> VideoResNet:
    """Return the network at the start of fine-tuning: the weights of the run `weights`, and a fresh block."""
    # the seed of the run, so that the fresh block has the weights that the trained one started from
    torch.manual_seed(config.training.seed)
    model = build_model(config, classes)
    load_initial(model, config.init.model_copy(update={"weights": weights}))
    return model.eval()


def fills_frame_pairs(scene: Scene) -> bool:
    """Return whether cue and partner each fill a pair of frames, 2k and 2k + 1, that the network pools into one."""
    times = [[t for t, _, _ in item] for item in (scene.cue, scene.partner)]
    return all(len(shown) == 2 and shown[0] % 2 == 0 and shown[1] == shown[0] + 1 for shown in times)

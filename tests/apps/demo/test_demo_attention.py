"""Attention from the cue to its partner: items lie where the pixels show them, and shares sum as they must."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nlnet.apps.attend.video_attention import View, view_of
from nlnet.apps.demo.attention import (
    Scene,
    fills_frame_pairs,
    item_positions,
    make_scenes,
    mean_share,
    partner_share,
    untrained_network,
)
from nlnet.apps.demo.report import attention_line
from nlnet.apps.recipes.catalogue import DEMO_SPEC, RECIPES
from nlnet.attention.observe import observe
from nlnet.data import normalize
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import make_clip
from nlnet.engine.network import build_model
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir
from nlnet.errors import ConfigError
from nlnet.insertion.insert import nonlocal_blocks

COUNT = 8
CONFIG = RECIPES["demo_nonlocal"]()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    root = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(DEMO_SPEC, root, {"train": 1, "val": 1, "test": COUNT, "stills": 22})
    return list(make_scenes(DEMO_SPEC, root / "test", COUNT, CONFIG))


def redness(clip: torch.Tensor, t: int, rows: slice, columns: slice) -> float:
    red, green, _ = clip[:, t, rows, columns].float().mean(dim=(1, 2)).tolist()
    return red - green


def test_items_are_where_the_pixels_have_their_colour(scenes: list[Scene]) -> None:
    """The middle of the cue and the rim of its partner's tile, in their frames and in no other."""
    half = DEMO_SPEC.tile // 2
    for index, scene in enumerate(scenes):
        sign = 1 if make_clip(DEMO_SPEC, "test", index).items[2].color == "red" else -1
        assert 1 <= len(scene.cue) <= 2  # 4 frames of 18, every second one taken, where the clip has 16
        _, y, x = scene.cue[0]
        for t in range(8):
            color = sign * redness(scene.view.clip, t, slice(y - 4, y + 4), slice(x - 4, x + 4))
            assert (color > 60) == (t in [frame for frame, _, _ in scene.cue])
        _, y, x = scene.partner[0]
        for t in set(range(8)) - {frame for frame, _, _ in scene.cue}:  # the cue may cover the rim
            color = sign * redness(
                scene.view.clip, t, slice(y - half, y - half + 2), slice(x - half, x + half)
            )
            assert (color > 40) == (t in [frame for frame, _, _ in scene.partner])


@pytest.mark.parametrize("number", [3, 8])
def test_an_item_is_found_to_the_pixel_in_other_crops(scenes: list[Scene], number: int) -> None:
    """Crops at the top and the bottom: each two outermost rows and columns of the cue's tile have its colour."""
    half = DEMO_SPEC.tile // 2
    for index, scene in enumerate(scenes):
        cue = make_clip(DEMO_SPEC, "test", index).items[2]
        sign, view = 1 if cue.color == "red" else -1, view_of(scene.view.video, CONFIG, number)
        found = item_positions(cue, view, DEMO_SPEC, CONFIG)
        for t, y, x in found:
            rows, columns = slice(y - half, y + half), slice(x - half, x + half)
            for edge in (0, 2 * half - 2):
                across = slice(rows.start + edge, rows.start + edge + 2)
                down = slice(columns.start + edge, columns.start + edge + 2)
                assert sign * redness(view.clip, t, across, columns) > 40
                assert sign * redness(view.clip, t, rows, down) > 40


def test_uniform_attention_gives_the_partner_its_share_of_the_keys(
    scenes: list[Scene],
) -> None:
    """θ = 0 makes every f equal; and the partner's keys are 1 or 2 of 4 × 2 × 2."""
    model = build_model(CONFIG, 10).eval()
    (block,) = nonlocal_blocks(model).values()
    nn.init.zeros_(block.theta.weight)
    nn.init.zeros_(block.theta.bias)
    for scene in scenes:
        clip = normalize(scene.view.clip[None], CONFIG.data.mean, CONFIG.data.std)
        share, uniform = partner_share(observe(model, clip), scene)
        assert share == pytest.approx(uniform, abs=1e-6)
        assert uniform * 16 in (1, 2)
    mean = mean_share(model, CONFIG, scenes)
    assert mean.partner == pytest.approx(mean.uniform, abs=1e-6)
    assert mean.videos == COUNT


def test_shares_of_disjoint_partners_add_up(scenes: list[Scene]) -> None:
    """Partners that are each one key, over all 16: together everything."""
    model = build_model(CONFIG, 10).eval()
    clip = normalize(scenes[0].view.clip[None], CONFIG.data.mean, CONFIG.data.std)
    observation = observe(model, clip)
    corners = [(t, y, x) for t in (0, 2, 4, 6) for y in (6, 22) for x in (6, 22)]
    shares = [partner_share(observation, scenes[0]._replace(partner=[corner])) for corner in corners]
    assert sum(share for share, _ in shares) == pytest.approx(1, abs=1e-5)
    assert {uniform for _, uniform in shares} == {1 / 16}


def test_items_of_rescaled_videos_are_an_error() -> None:
    view = View(Path("v.mp4"), torch.zeros(3, 8, 32, 32, dtype=torch.uint8), 0, 12, 0)
    scaled = CONFIG.model_copy(update={"test": CONFIG.test.model_copy(update={"short_side": 40})})
    with pytest.raises(ConfigError, match="test.short_side: got 40 for videos of 36×36 pixels"):
        item_positions(make_clip(DEMO_SPEC, "test", 0).items[0], view, DEMO_SPEC, scaled)


def test_before_training_the_trunk_is_that_of_the_stills_and_the_block_adds_nothing(tmp_path: Path) -> None:
    stills = RECIPES["demo_stills"]()
    trunk = build_model(stills, 22)
    run = RunDir(tmp_path / "stills")
    run.create(stills, tuple(map(str, range(22))))
    run.save(
        "last",
        Checkpoint(
            weights=trunk.state_dict(),
            config=stills,
            classes=tuple(map(str, range(22))),
            iteration=1,
            metrics={},
        ),
    )
    model = untrained_network(CONFIG, 10, run.path)
    assert not model.training
    assert torch.equal(model.layer1[0].conv2.weight, trunk.layer1[0].conv2.weight)
    (block,) = nonlocal_blocks(model).values()
    assert not block.norm.weight.any()
    again = untrained_network(CONFIG, 10, run.path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_which_scenes_fill_pairs_of_frames() -> None:
    view = View(Path("v.mp4"), torch.zeros(3, 8, 2, 2), 0, 1, 0)

    def scene(cue: list[int], partner: list[int]) -> Scene:
        return Scene(view, [(t, 0, 0) for t in cue], [(t, 1, 1) for t in partner])

    assert fills_frame_pairs(scene([6, 7], [0, 1]))
    assert not fills_frame_pairs(scene([5, 6], [0, 1]))
    assert not fills_frame_pairs(scene([6, 7], [1]))
    assert not fills_frame_pairs(scene([6, 7], [0, 7]))


def test_the_shares_as_text() -> None:
    shares = {"videos": 400, "trained": [0.9911, 0.9489], "before_training": 0.12, "uniform": 0.0833}
    assert attention_line(shares) == (
        "attention from the cue to the digit of its colour: 99.1 % / 94.9 % by seed (mean over 400 test videos); "
        "12.0 % before training, 8.3 % if uniform"
    )

"""The diagnostic's clips: pure, balanced, with held-out digit images, and every item where its description says."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlnet.data.diagnostic.task import (
    RGB,
    STILL_CLASSES,
    DiagnosticSpec,
    Split,
    Task,
    digit_images,
    make_clip,
    make_still,
)
from nlnet.errors import NlnetError

TASKS, SPLITS = get_args(Task), get_args(Split)
DENSE = DiagnosticSpec(frames=18, tile=14, visible=4)


@pytest.mark.parametrize("task", TASKS)
def test_a_clip_is_a_function_of_its_arguments(task):
    spec = DiagnosticSpec(task=task)
    before = [make_clip(spec, "train", i) for i in (3, 4)]
    np.random.seed(0)  # global state must not matter
    again = [make_clip(spec, "train", i) for i in (4, 3)][::-1]
    for one, two in zip(before, again, strict=True):
        assert (one.frames == two.frames).all()
        assert (one.label, one.items) == (two.label, two.items)
    others = [
        make_clip(spec, "train", 13),
        make_clip(spec, "val", 3),
        make_clip(replace(spec, seed=1), "train", 3),
    ]
    assert all((before[0].frames != other.frames).any() for other in others)


def test_the_frames_are_uint8_rgb_of_the_asked_size():
    clip = make_clip(DiagnosticSpec(height=40, width=52, frames=20), "test", 0)
    assert clip.frames.shape == (20, 40, 52, 3)
    assert clip.frames.dtype == np.uint8


def test_digit_images_of_the_splits_are_disjoint_and_complete():
    """load_digits has 1797 images; every row belongs to exactly one split, under its own class."""
    from sklearn.datasets import load_digits

    target = load_digits().target
    rows = digit_images()[1]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1797))
    assert all((target[mine] == digit).all() for (_, digit), mine in rows.items())
    assert all(len(rows[split, digit]) >= 15 for split in SPLITS for digit in range(10))


@pytest.mark.parametrize("split", SPLITS)
def test_a_clip_shows_digit_images_of_its_own_split_only(split):
    rows = digit_images()[1]
    for index in range(60):
        for item in make_clip(DENSE, split, index).items[:2]:
            assert item.image_row in rows[split, item.digit]


def test_labels_are_balanced_and_independent_of_color_and_order():
    clips = [make_clip(DENSE, "train", index) for index in range(1000)]
    assert set(Counter(c.label for c in clips).values()) == {100}
    sd = (1000 * 0.25) ** 0.5  # of a fair coin's count
    assert abs(sum(c.items[2].color == "red" for c in clips) - 500) < 4 * sd
    cued_first = sum(
        c.items[c.items[2].color == "green"].top < c.items[c.items[2].color == "red"].top for c in clips
    )
    cued_last = sum(
        c.items[c.items[2].color == "green"].top > c.items[c.items[2].color == "red"].top for c in clips
    )
    assert abs(cued_first - cued_last) < 4 * 2 * sd
    others = Counter((c.items[c.items[2].color == "red"].digit - c.label) % 10 for c in clips)
    assert set(others) == set(range(1, 10))


@pytest.mark.parametrize("task", TASKS)
def test_the_label_is_the_digit_on_the_cues_color(task):
    for index in range(50):
        clip = make_clip(DiagnosticSpec(task=task), "val", index)
        red, green, cue = clip.items
        assert (red.color, green.color, cue.digit, cue.image_row) == ("red", "green", None, None)
        assert red.digit != green.digit
        assert clip.label == {"red": red.digit, "green": green.digit}[cue.color]


def tint(frames: np.ndarray) -> np.ndarray:
    """Red minus green, which background (gray ± 30) and white ink hardly have."""
    return frames[..., 0].astype(int) - frames[..., 1]


@pytest.mark.parametrize("spec", [DENSE, *(DiagnosticSpec(task=task) for task in TASKS)], ids=str)
def test_items_are_where_and_when_the_description_says(spec):
    """The rim of a tile has its colour in its frames, and the position does not have it in any other frame."""
    for index in range(20):
        clip = make_clip(spec, "train", index)
        for item in clip.items:
            assert min(item.top, item.left) >= spec.margin
            assert max(item.top, item.left) + spec.tile <= spec.height - spec.margin
            sign = 1 if item.color == "red" else -1
            rim = sign * tint(clip.frames[:, item.top, item.left : item.left + spec.tile]).mean(axis=1)
            assert (rim[list(item.frames)] > 60).all()
            taken = {f for other in clip.items for f in other.frames}
            empty = [f for f in range(spec.frames) if f not in taken]
            assert (np.abs(rim[empty]) < 60).all()


def test_a_cue_is_solid_and_a_digit_has_ink():
    clip = make_clip(replace(DENSE, noise=0.0), "train", 0)
    for item in clip.items:
        tile = clip.frames[item.frames[0], item.top : item.top + 14, item.left : item.left + 14].astype(int)
        blue = tile[..., 2]
        assert (blue.max() - blue.min() > 80) == (item.digit is not None)
        channel = 0 if item.color == "red" else 1
        expected = np.array(RGB[item.color]) / RGB[item.color][channel]
        np.testing.assert_allclose(tile[0, 0] / tile[0, 0, channel], expected, atol=0.02)


def test_the_three_tasks_separate_items_as_named():
    for index in range(40):
        for task in TASKS:
            spec = DiagnosticSpec(task=task)
            items = make_clip(spec, "train", index).items
            positions = {(i.top, i.left) for i in items}
            slots = [set(i.frames) for i in items]
            assert len(positions) == (1 if task == "time" else 3)
            assert all(len(s) == (spec.frames if task == "space" else spec.visible) for s in slots)
            if task != "space":
                assert sum(map(len, slots)) == len(set.union(*slots))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 7), st.integers(0, 10**6))
def test_slots_leave_the_gap_on_the_ring(visible, gap, spare, index):
    """Rolled to any start, `gap` frames after each item are empty: a window of gap + 1 frames sees one item at most."""
    frames = 3 * (visible + gap) + spare
    spec = DiagnosticSpec(task="time", frames=frames, visible=visible, gap=gap)
    who = np.zeros(frames, int)
    for number, item in enumerate(make_clip(spec, "train", index).items, start=1):
        assert not who[list(item.frames)].any()
        who[list(item.frames)] = number
    for start in range(frames):
        window = who[(start + np.arange(gap + 1)) % frames]
        assert len(set(window) - {0}) <= 1


def test_items_wrap_around_the_end_and_come_in_any_order():
    clips = [make_clip(DENSE, "train", index) for index in range(120)]
    assert any({0, DENSE.frames - 1} <= set(item.frames) for clip in clips for item in clip.items)
    orders = {tuple(np.argsort([min(item.frames) for item in clip.items])) for clip in clips}
    assert len(orders) == 6


def test_a_clip_of_eight_frames_at_stride_two_never_loses_an_item():
    """16 of the 18 frames of the demo's videos: from any start, on the ring, each item is in one sampled frame or more."""
    for index in range(60):
        clip = make_clip(DENSE, "test", index)
        for start in range(18):
            sampled = {(start + 2 * k) % 18 for k in range(8)}
            assert all(sampled & set(item.frames) for item in clip.items)


def test_distance_sets_the_step_between_positions():
    spec = DiagnosticSpec(height=60, width=60, jitter=0, distance=20)
    for index in range(20):
        items = make_clip(spec, "train", index).items
        steps = {abs(a.top - b.top) for a in items for b in items} | {
            abs(a.left - b.left) for a in items for b in items
        }
        assert steps == {0, 20}
        assert max(i.top for i in items) + min(i.top for i in items) == 60 - 12


def test_stills_cycle_through_the_classes_and_are_pure():
    assert len(STILL_CLASSES) == 22
    for index in range(44):
        frame, label = make_still(DENSE, "train", index)
        assert frame.shape == (28, 28, 3)
        assert label == index % 22
        assert (frame == make_still(DENSE, "train", index)[0]).all()
        inked = tint(frame[None])[0]
        sign = 1 if STILL_CLASSES[label].startswith("red") else -1
        assert (sign * inked > 60).sum() > 40  # the tile
        assert (-sign * inked > 60).sum() < 10  # and nothing of the other colour
    assert (make_still(DENSE, "train", 0)[0] != make_still(DENSE, "val", 0)[0]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jitter": -1}, r"got jitter -1"),
        ({"visible": 0}, r"visible 0"),
        ({"still": 10}, r"still: got 10 pixels, expected at least two margins and a tile, 20"),
        ({"frames": 14}, r"frames: got 14, expected at least three slots of visible \+ gap frames, 15"),
        ({"height": 20}, r"distance: positions are -2 pixels apart, expected at least 1 and at most -2"),
        ({"distance": 15}, r"distance: positions are 15 pixels apart, expected at least 1 and at most 14"),
        (
            {"layout": "anywhere", "distance": 9},
            r"layout 'anywhere': .* distance None, got 28 pixels and distance 9",
        ),
        (
            {"layout": "anywhere", "task": "space"},
            r"at least 36 pixels inside the margins for task 'space' .*got 28",
        ),
        (
            {"task": "space", "tile": 14},
            r"positions are 12 pixels apart, expected at least 16 and at most 12 for task 'space'",
        ),
    ],
)
def test_an_impossible_spec_says_why(change, message):
    with pytest.raises(NlnetError, match=message):
        DiagnosticSpec(**change)


@pytest.mark.unhooked  # the runtime checker would stop it first
def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(NlnetError, match="task: got 'spacetme', expected one of space, time, spacetime"):
        DiagnosticSpec(task="spacetme")


@pytest.mark.unhooked  # the runtime checker would stop it first
def test_an_unknown_layout_names_the_known_ones():
    with pytest.raises(NlnetError, match="layout: got 'anywere', expected one of corners, anywhere"):
        DiagnosticSpec(layout="anywere")


@pytest.mark.parametrize("task", TASKS)
def test_anywhere_is_anywhere_inside_the_margin_and_never_on_top_of_another(task):
    """Every row and column inside the margin is some item's first; one position for all in the task time."""
    spec = DiagnosticSpec(task=task, height=48, width=48, layout="anywhere")
    clips = [make_clip(spec, "train", index) for index in range(200)]
    positions = np.array([[(item.top, item.left) for item in clip.items] for clip in clips])
    assert positions.min() == spec.margin
    assert positions.max() == 48 - spec.margin - spec.tile
    assert len(np.unique(positions)) == 48 - 2 * spec.margin - spec.tile + 1
    steps = np.abs(positions - np.roll(positions, 1, axis=1)).max(axis=2)
    if task == "time":
        assert (steps == 0).all()
    elif task == "space":
        assert (steps >= spec.tile).all()
        assert len(np.unique(steps)) > 10
    else:
        assert steps.min() < spec.tile, "they may share a position at different times"


@pytest.mark.parametrize(
    ("task", "items"),
    [
        ("space", [(270, 6, 19, 0, 16), (1238, 20, 4, 0, 16), (None, 5, 6, 0, 16)]),
        ("time", [(1749, 6, 20, 7, 3), (1649, 6, 20, 13, 3), (None, 6, 20, 2, 3)]),
        ("spacetime", [(1357, 18, 20, 5, 3), (1684, 18, 6, 10, 3), (None, 5, 6, 0, 3)]),
    ],
)
def test_clips_are_those_of_earlier_versions(task, items):
    """Image row, top, left, first frame and number of frames, as version 0.1.0 had them before `layout`."""
    clip = make_clip(DiagnosticSpec(task=task), "train", 7)
    found = [(i.image_row, i.top, i.left, i.frames[0], len(i.frames)) for i in clip.items]
    assert found == items


@pytest.mark.parametrize("task", TASKS)
def test_every_item_visits_every_corner(task):
    """An item's position says nothing about its class."""
    spec = DiagnosticSpec(task=task, jitter=0)
    clips = [make_clip(spec, "train", index) for index in range(80)]
    for number in range(3):
        assert len({(clip.items[number].top, clip.items[number].left) for clip in clips}) == 4
